package vsphere

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// locale is the language of a session's messages, some of which are read by words.
const locale = "en_US"

// sdkTunnel is the one place where a vCenter looks at a client's certificate. Its port 80 leads there.
const (
	sdkTunnel     = "sdkTunnel:8089"
	sdkTunnelPort = "80"
)

// PasswordFile reads a password from a file, without the line's end. An empty file is one that is being written: its nothing is
// not sent.
func PasswordFile(path string) func() (string, error) {
	return func() (string, error) {
		b, err := os.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("password file: %w", err)
		}
		password := strings.TrimRight(string(b), "\r\n")
		if password == "" {
			return "", fmt.Errorf("password file: %s is empty", path)
		}
		return password, nil
	}
}

// PasswordEnv reads a password from a variable of the environment.
func PasswordEnv(name string) func() (string, error) {
	return func() (string, error) {
		password := os.Getenv(name)
		if password == "" {
			return "", fmt.Errorf("password: %s is not set in the environment", name)
		}
		return password, nil
	}
}

// Extension is an account of a vCenter that logs in with a certificate instead of a password: the one that was registered for
// the extension's key.
type Extension struct {
	Key               string
	CertFile, KeyFile string // PEM, read at each log-in
	Tunnel            string // host:port that leads to the vCenter's SDK tunnel; default port 80 of the URL's host
}

// Who is the account's name.
func (o *Options) Who() string {
	if o.Extension != nil {
		return o.Extension.Key
	}
	return o.Username
}

// secret is what the next log-in would prove itself with.
func (o *Options) secret() (string, error) {
	if o.Extension == nil {
		return o.Password()
	}
	cert, err := os.ReadFile(o.Extension.CertFile)
	if err != nil {
		return "", fmt.Errorf("extension's certificate: %w", err)
	}
	key, err := os.ReadFile(o.Extension.KeyFile)
	if err != nil {
		return "", fmt.Errorf("extension's key: %w", err)
	}
	return string(cert) + string(key), nil
}

// login gives the connection a session. A vCenter that refuses it answers with one of several faults.
func (c *Conn) login(ctx context.Context, secret string) error {
	ref := c.ServiceContent.SessionManager
	if ref == nil {
		return fmt.Errorf("vcenter %s: has no session manager", c.URL().Host)
	}
	var err error
	if c.opts.Extension != nil {
		err = c.loginExtension(ctx, *ref)
	} else {
		_, err = methods.Login(ctx, c, &types.Login{This: *ref, UserName: c.opts.Username, Password: secret, Locale: locale})
	}
	if isLoginRefusal(err) {
		return fmt.Errorf("vcenter %s: log in as %q: %w", c.URL().Host, c.opts.Who(), ErrInvalidLogin)
	}
	return err
}

// loginExtension logs in through the tunnel, at whose end the vCenter's certificate is checked as at the front, and takes the
// session over to this connection.
func (c *Conn) loginExtension(ctx context.Context, ref types.ManagedObjectReference) error {
	ext, host := c.opts.Extension, c.URL().Hostname()
	settings := c.opts.TLS
	settings.Cert, settings.Key, settings.CertRef, settings.KeyRef = "", "", "", ""
	settings.CertFile, settings.KeyFile = ext.CertFile, ext.KeyFile
	if settings.ServerName == "" {
		settings.ServerName = host // and not the tunnel's name, which no certificate has
	}
	transport, err := newTransport(&settings)
	if err != nil {
		return fmt.Errorf("vcenter %s: %w", c.URL().Host, err)
	}
	defer transport.CloseIdleConnections()
	proxy := ext.Tunnel
	if proxy == "" {
		proxy = net.JoinHostPort(host, sdkTunnelPort)
	}
	transport.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: proxy})

	far := &url.URL{Scheme: "https", Host: sdkTunnel, Path: c.URL().Path}
	sc := soap.NewClient(far, false)
	sc.Transport, sc.CheckRedirect = bounded{transport}, c.soap.CheckRedirect
	sc.Namespace, sc.Version, sc.UserAgent = c.soap.Namespace, c.soap.Version, c.soap.UserAgent
	tunnel := &Conn{soap: sc, transport: transport, opts: c.opts}
	tunnel.Client = &vim25.Client{Client: sc, RoundTripper: tunnel}
	if _, err := methods.LoginExtensionByCertificate(ctx, tunnel, &types.LoginExtensionByCertificate{
		This: ref, ExtensionKey: ext.Key, Locale: locale,
	}); err != nil {
		return fmt.Errorf("vcenter %s: log in as extension %q through %s: %w", c.URL().Host, ext.Key, proxy, err)
	}
	c.soap.Jar.SetCookies(c.URL(), sc.Jar.Cookies(far))
	if c.soap.SessionCookie() == nil {
		return fmt.Errorf("vcenter %s: log in as extension %q: %w", c.URL().Host, ext.Key, errors.New("no session came with the answer"))
	}
	return nil
}

// logout ends the session at the vCenter, and reports whether it is over.
func (c *Conn) logout(ctx context.Context) bool {
	_, err := methods.Logout(ctx, c, &types.Logout{This: *c.ServiceContent.SessionManager})
	return err == nil || IsNotAuthenticated(err)
}
