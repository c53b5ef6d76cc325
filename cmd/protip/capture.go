package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/protip/protip/internal/config"
	"github.com/protip/protip/internal/platform/winrm"
	"github.com/protip/protip/internal/platform/winrm/capture"
)

// captureTimeout bounds a capture; a host with a thousand VMs answers in a minute or two.
const captureTimeout = 15 * time.Minute

// captureFlags are what a command line says of a Windows host.
type captureFlags struct {
	host, out, passwordFile string
	src                     config.Source
}

func addCapture(kp *kingpin.Application, verbs map[string]command) {
	cmd := kp.Command("capture", "Record what a Windows host answers, its names, addresses and SIDs masked, so that it can be handed on. Changes nothing on the host.")
	var f captureFlags
	cmd.Arg("host", "A Hyper-V host, a cluster's node or a Virtual Server host: its name, host:port or URL. A bare name is asked by https.").Required().StringVar(&f.host)
	cmd.Flag("username", `The user, as DOMAIN\user or user@domain.`).StringVar(&f.src.Username)
	cmd.Flag("password.file", "Read the password from a file instead of asking.").StringVar(&f.passwordFile)
	cmd.Flag("auth", "How to log in: ntlm, kerberos, basic or certificate.").Default(config.AuthNTLM).
		EnumVar(&f.src.Auth, config.AuthNTLM, config.AuthKerberos, config.AuthBasic, config.AuthCertificate)
	cmd.Flag("realm", "Kerberos' realm.").StringVar(&f.src.Realm)
	cmd.Flag("krb5.conf", "Kerberos' configuration.").StringVar(&f.src.Krb5Conf)
	cmd.Flag("keytab.file", "Kerberos' keys of the user, instead of a password.").StringVar(&f.src.KeytabFile)
	cmd.Flag("ccache.file", "Kerberos' tickets, instead of both.").StringVar(&f.src.CacheFile)
	cmd.Flag("plain-basic", "Let basic send the password readable over plain http.").BoolVar(&f.src.PlainBasic)
	cmd.Flag("tls.ca-file", "The authority that signed the host's certificate.").StringVar(&f.src.TLS.CAFile)
	cmd.Flag("tls.server-name", "The name in the host's certificate.").StringVar(&f.src.TLS.ServerName)
	cmd.Flag("tls.cert-file", "The certificate to log in with.").StringVar(&f.src.TLS.CertFile)
	cmd.Flag("tls.key-file", "The certificate's key.").StringVar(&f.src.TLS.KeyFile)
	cmd.Flag("tls.insecure-skip-verify", "Trust whatever certificate the host shows.").BoolVar(&f.src.TLS.InsecureSkipVerify)
	cmd.Flag("output", "The directory to make and write to.").Short('o').Default("protip-capture").StringVar(&f.out)
	verbs[cmd.FullCommand()] = func(ctx context.Context, c *console) error { return captureHost(ctx, c, f) }
}

func captureHost(ctx context.Context, c *console, f captureFlags) error {
	opts, err := f.options(newPrompt(os.Stdin, c.err))
	if err != nil {
		return usageError{err}
	}
	if _, err := os.Lstat(f.out); err == nil {
		return usageError{fmt.Errorf("--output %s: it is there already", f.out)}
	}
	if _, err := winrm.New(opts); err != nil {
		return usageError{err}
	}
	ctx, cancel := context.WithTimeout(ctx, captureTimeout)
	defer cancel()
	manifest, err := capture.Record(ctx, opts, capture.Classes(), f.out, func(e capture.Entry) {
		fmt.Fprintf(c.err, "%s: %s\n", e.Class, answered(e))
	})
	if err != nil {
		return err
	}
	return c.print(manifest, func(w *tabwriter.Writer) {
		fmt.Fprintf(w, "NAMESPACE\tCLASS\tANSWERED\n")
		for _, e := range manifest.Entries {
			fmt.Fprintf(w, "%s\t%s\t%s\n", e.Namespace, e.Class, answered(e))
		}
		fmt.Fprintf(w, "\nwritten to %s: read it before you hand it on\n", f.out)
	})
}

func answered(e capture.Entry) string {
	if e.Error != "" {
		return e.Error
	}
	return plural(e.Instances, "instance")
}

// options are those of the one host.
func (f *captureFlags) options(ask *prompt) (winrm.Options, error) {
	u, err := config.HostURL(f.host)
	if err != nil {
		return winrm.Options{}, fmt.Errorf("the host %w: write its name, host:port or a URL", err)
	}
	s := &f.src
	o := winrm.Options{
		URL: u.String(), Auth: winrm.Auth(s.Auth), Username: s.Username, TLS: s.TLS, AllowPlainBasic: s.PlainBasic,
		Kerberos: winrm.KerberosOptions{Realm: s.Realm, ConfFile: s.Krb5Conf, KeytabFile: s.KeytabFile, CacheFile: s.CacheFile},
	}
	if s.Auth == config.AuthCertificate || s.KeytabFile != "" || s.CacheFile != "" {
		return o, nil
	}
	if s.Username == "" {
		return o, errors.New("--username is missing")
	}
	password, err := trialPassword(f.passwordFile, s.Username, ask)
	o.Password = func() (string, error) { return password, nil }
	return o, err
}
