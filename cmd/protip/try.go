package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"go.yaml.in/yaml/v3"
	"golang.org/x/term"

	"github.com/protip/protip/internal/app"
	"github.com/protip/protip/internal/config"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/rules"
	"github.com/protip/protip/rules/packs"
)

// tryTimeout is how long the look at a vCenter may take.
const tryTimeout = 30 * time.Second

func addTry(kp *kingpin.Application, verbs map[string]command) {
	cmd := kp.Command("try", "Look at a vCenter once, read-only: its hosts, what would be tips, and the configuration that would keep watching. Writes nothing.")
	address := cmd.Arg("url", "https://user@vcenter.example.com").Required().String()
	passwordFile := cmd.Flag("password.file", "Read the password from a file instead of asking.").String()
	fingerprint := cmd.Flag("tls.fingerprint", "Trust the certificate with this SHA-256 fingerprint instead of asking.").String()
	verbs[cmd.FullCommand()] = func(ctx context.Context, c *console) error {
		src, err := trialSource(*address)
		if err != nil {
			return usageError{err}
		}
		ask := newPrompt(os.Stdin, c.err)
		if err := trust(ctx, &src, *fingerprint, ask); err != nil {
			return err
		}
		password, err := trialPassword(*passwordFile, src.Username, ask)
		if err != nil {
			return usageError{err}
		}
		return try(ctx, c, src, password)
	}
}

// trialSource is the source that an address with a user stands for.
func trialSource(address string) (config.Source, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "https" {
		return config.Source{}, errors.New("the address is not of the form https://user@vcenter.example.com")
	}
	if _, has := u.User.Password(); has {
		return config.Source{}, errors.New("the address holds a password, which other users of this machine can read: leave it out, protip asks for it")
	}
	if u.User.Username() == "" {
		return config.Source{}, errors.New("the address names no user: write https://user@" + u.Host)
	}
	name, _, _ := strings.Cut(u.Hostname(), ".")
	if net.ParseIP(u.Hostname()) != nil {
		name = "vcenter"
	}
	src := config.Source{Name: name, Type: config.VSphere, Interval: config.DefaultInterval}
	src.Username = u.User.Username()
	u.User = nil
	src.URL = u.String()
	return src, nil
}

// trust makes the source trust the vCenter's certificate: by the system's authorities, or by its fingerprint and the user's word.
func trust(ctx context.Context, src *config.Source, fingerprint string, ask *prompt) error {
	u, err := url.Parse(src.URL)
	if err != nil {
		return err
	}
	address := u.Host
	if u.Port() == "" {
		address = net.JoinHostPort(u.Hostname(), "443")
	}
	cert, verified, err := presented(ctx, address, u.Hostname())
	if err != nil {
		return fmt.Errorf("%s: %w", address, err)
	}
	sum := sha256.Sum256(cert.Raw)
	seen := strings.ReplaceAll(fmt.Sprintf("% X", sum[:]), " ", ":")
	switch {
	case fingerprint != "":
		if !strings.EqualFold(strings.ReplaceAll(fingerprint, ":", ""), fmt.Sprintf("%X", sum[:])) {
			return fmt.Errorf("%s shows a certificate with another fingerprint: %s", address, seen)
		}
	case verified:
		return nil
	default:
		ok, err := ask.yes(fmt.Sprintf("%s shows a certificate that no known authority signed for it:\n  subject      %s\n  issuer       %s\n  valid until  %s\n  SHA-256      %s\nTrust it?",
			address, printable(cert.Subject.String()), printable(cert.Issuer.String()), cert.NotAfter.Format(time.DateOnly), seen))
		if err != nil {
			return err
		}
		if !ok {
			return errors.New("the certificate is not trusted: nothing was sent")
		}
	}
	src.TLS.CA = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	if cert.VerifyHostname(u.Hostname()) != nil && len(cert.DNSNames) > 0 {
		src.TLS.ServerName = cert.DNSNames[0]
	}
	return nil
}

// presented is the certificate that a server shows, and whether the system's authorities vouch for it. Nothing is sent.
func presented(ctx context.Context, address, host string) (*x509.Certificate, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	// Nothing is verified here because nothing is trusted here: the certificate is only read, and the connection closed.
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, ServerName: host}} //nolint:gosec
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, false, err
	}
	defer conn.Close()
	chain := conn.(*tls.Conn).ConnectionState().PeerCertificates
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err = chain[0].Verify(x509.VerifyOptions{DNSName: host, Intermediates: between})
	return chain[0], err == nil, nil
}

func trialPassword(file, user string, ask *prompt) (string, error) {
	if file != "" {
		return readSecret(file)
	}
	return ask.password(fmt.Sprintf("Password of %s (not shown): ", printable(user)))
}

// try looks and prints.
func try(ctx context.Context, c *console, src config.Source, password string) error {
	var files []rules.File
	for _, name := range packs.Names() {
		f, err := packs.File(name)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	set, err := rules.Load(files, rules.Options{})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	log := slog.New(slog.DiscardHandler)
	if c.log.Level.String() == "debug" {
		log = promslog.New(c.log)
	}
	fmt.Fprintf(c.err, "looking at %s, %s at most ...\n", src.URL, tryTimeout)
	trial, err := app.Try(ctx, src, password, set, log)
	if err != nil {
		return fmt.Errorf("%s: %w", src.URL, err)
	}
	permanent, err := permanentConfig(src)
	if err != nil {
		return err
	}
	out := struct {
		app.Trial
		Config string `json:"config"`
	}{trial, permanent}
	return c.print(out, func(w *tabwriter.Writer) { printTrial(w, trial, src.Name, permanent) })
}

// permanentConfig is the configuration that keeps watching the source, as YAML.
func permanentConfig(src config.Source) (string, error) {
	type trusted struct {
		CA         string `yaml:"ca,omitempty"`
		ServerName string `yaml:"server_name,omitempty"`
	}
	type entry struct {
		Name         string  `yaml:"name"`
		Type         string  `yaml:"type"`
		URL          string  `yaml:"url"`
		Username     string  `yaml:"username"`
		PasswordFile string  `yaml:"password_file"`
		TLS          trusted `yaml:"tls_config,omitempty"`
	}
	text, err := yaml.Marshal(map[string][]entry{"sources": {{
		Name: src.Name, Type: src.Type, URL: src.URL, Username: src.Username, PasswordFile: src.Name + ".password",
		TLS: trusted{src.TLS.CA, src.TLS.ServerName},
	}}})
	return string(text), err
}

func printTrial(w *tabwriter.Writer, t app.Trial, name, permanent string) {
	hosts := plural(t.Hosts, "host")
	if t.Resting+t.Lost > 0 {
		hosts += fmt.Sprintf(" (%d in maintenance, %d out of reach)", t.Resting, t.Lost)
	}
	fmt.Fprintf(w, "%s, %s, %s, %d of them running\n", plural(len(t.Clusters), "cluster"), hosts, plural(t.VMs, "VM"), t.Running)
	for _, missing := range t.Missing {
		fmt.Fprintf(w, "note: %s\n", missing)
	}
	fmt.Fprintln(w, "\nCLUSTER\tHOSTS\tDRS\tHA")
	for _, c := range t.Clusters {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", printable(c.Name), c.Hosts, drsWords(c.DRS), haWords(c.HA))
	}
	fmt.Fprintln(w, "\nHOTTEST HOST\tCLUSTER\tCPU\tMEMORY\tITS VMS WAIT\tSTATE")
	for _, h := range t.Hottest {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n",
			printable(h.Name), printable(h.Cluster), percent(h.CPU), percent(h.Memory), percent(h.Contention), h.State)
	}
	if len(t.Waiting) == 0 {
		fmt.Fprintln(w, "\nno VM is seen waiting for CPU for 2 % of the time or more")
	} else {
		fmt.Fprintln(w, "\nWAITING VM\tHOST\tWAITS")
		for _, vm := range t.Waiting {
			fmt.Fprintf(w, "%s\t%s\t%s\n", printable(vm.Name), printable(vm.Host), percent(&vm.Contention))
		}
	}
	fmt.Fprintln(w)
	if len(t.Tips) == 0 {
		fmt.Fprintln(w, "no rule of the shipped packs that one look is enough for holds now")
	}
	for _, tip := range t.Tips {
		fmt.Fprintf(w, "%s: would be a %s tip of %s if it goes on for %s\n", printable(tip.Summary), tip.Severity, tip.Rule, model.Duration(tip.For))
	}
	if n := len(t.NeedHistory); n > 0 {
		fmt.Fprintf(w, "not judged, for one look has no history: %s\n", plural(n, "rule"))
	}
	fmt.Fprintf(w, "\nTo keep watching, write what follows to protip.yml, and:\n\n")
	fmt.Fprintf(w, "  (umask 077; cat > %s.password)   # type the password, Enter, Ctrl-D\n", name)
	fmt.Fprintf(w, "  protip check source %s\n  protip run\n\n%s", name, permanent)
}

func drsWords(d inventory.DRS) string {
	if !d.Enabled {
		return "off"
	}
	return strings.ReplaceAll(string(d.Automation), "_", " ")
}

func haWords(h inventory.HA) string {
	switch {
	case !h.Enabled:
		return "off"
	case !h.AdmissionControl:
		return "on, without admission control"
	case h.HostFailures > 0:
		return fmt.Sprintf("on, admission control for %d host failures", h.HostFailures)
	}
	return "on, admission control by " + strings.ReplaceAll(h.Policy, "_", " ")
}

func percent(ratio *float64) string {
	if ratio == nil {
		return "no data"
	}
	return fmt.Sprintf("%.1f %%", *ratio*100)
}

// prompt asks a person, or reads the answers that a script gives.
type prompt struct {
	in    *os.File
	lines *bufio.Reader
	out   io.Writer
}

func newPrompt(in *os.File, out io.Writer) *prompt { return &prompt{in, bufio.NewReader(in), out} }

func (p *prompt) line() (string, error) {
	s, err := p.lines.ReadString('\n')
	if s == "" && err != nil {
		return "", fmt.Errorf("no answer: %w", err)
	}
	return strings.TrimRight(s, "\r\n"), nil
}

func (p *prompt) yes(question string) (bool, error) {
	fmt.Fprintf(p.out, "%s [y/N] ", question)
	answer, err := p.line()
	if err != nil {
		return false, err
	}
	return strings.EqualFold(answer, "y") || strings.EqualFold(answer, "yes"), nil
}

// password reads a secret without showing it, if there is a terminal.
func (p *prompt) password(question string) (string, error) {
	fmt.Fprint(p.out, question)
	if !term.IsTerminal(int(p.in.Fd())) {
		return p.line()
	}
	secret, err := term.ReadPassword(int(p.in.Fd()))
	fmt.Fprintln(p.out)
	return string(secret), err
}
