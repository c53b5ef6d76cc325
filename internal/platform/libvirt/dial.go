package libvirt

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// dial makes the connection that messages go through.
func (p *place) dial(ctx context.Context, opts *Options) (net.Conn, error) {
	switch p.transport {
	case "unix":
		return dialSockets(p.sockets, func(path string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		})
	case "tcp":
		return p.dialTCP(ctx, "16509")
	case "tls":
		return p.dialTLS(ctx, &opts.TLS)
	case "ssh":
		return p.dialSSH(ctx, &opts.SSH)
	}
	return nil, fmt.Errorf("no transport %s", p.transport)
}

func (p *place) dialTCP(ctx context.Context, port string) (net.Conn, error) {
	if p.port != "" {
		port = p.port
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(p.host, port))
}

// dialSockets tries one path after the other and returns the first error if there is none to connect to.
func dialSockets(paths []string, dial func(string) (net.Conn, error)) (net.Conn, error) {
	var first error
	for _, path := range paths {
		c, err := dial(path)
		if err == nil {
			return c, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

func (p *place) dialTLS(ctx context.Context, files *TLS) (net.Conn, error) {
	cfg, err := files.config(p.host)
	if err != nil {
		return nil, err
	}
	raw, err := p.dialTCP(ctx, "16514")
	if err != nil {
		return nil, err
	}
	c := tls.Client(raw, cfg)
	if err := bounded(ctx, raw, func() error { return greet(ctx, c) }); err != nil {
		raw.Close()
		return nil, err
	}
	return c, nil
}

// greet shakes hands and reads the byte by which a daemon says that it takes the client's certificate.
func greet(ctx context.Context, c *tls.Conn) error {
	if err := c.HandshakeContext(ctx); err != nil {
		return err
	}
	var ok [1]byte
	if _, err := c.Read(ok[:]); err != nil || ok[0] != 1 {
		return errors.New("the daemon does not take this client certificate")
	}
	return nil
}

func (f *TLS) config(host string) (*tls.Config, error) {
	ca, err := os.ReadFile(either(f.CAFile, "/etc/pki/CA/cacert.pem"))
	if err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("TLS: no certificate in %s", either(f.CAFile, "/etc/pki/CA/cacert.pem"))
	}
	cert, err := tls.LoadX509KeyPair(
		either(f.CertFile, "/etc/pki/libvirt/clientcert.pem"), either(f.KeyFile, "/etc/pki/libvirt/private/clientkey.pem"))
	if err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return &tls.Config{
		RootCAs: roots, Certificates: []tls.Certificate{cert}, ServerName: either(f.ServerName, host), MinVersion: tls.VersionTLS12,
	}, nil
}

func (p *place) dialSSH(ctx context.Context, files *SSH) (net.Conn, error) {
	cfg, err := files.config(p.user)
	if err != nil {
		return nil, err
	}
	raw, err := p.dialTCP(ctx, "22")
	if err != nil {
		return nil, err
	}
	var c net.Conn
	err = bounded(ctx, raw, func() error {
		port := either(p.port, "22")
		sc, channels, requests, err := ssh.NewClientConn(raw, net.JoinHostPort(p.host, port), cfg)
		if err != nil {
			return err
		}
		client := ssh.NewClient(sc, channels, requests)
		channel, err := dialSockets(p.sockets, func(path string) (net.Conn, error) {
			c, err := client.Dial("unix", path)
			if err != nil {
				return nil, fmt.Errorf("socket %s there: %w", path, err)
			}
			return c, nil
		})
		c = &tunnelled{Conn: channel, client: client}
		return err
	})
	if err != nil {
		raw.Close()
		return nil, err
	}
	return c, nil
}

func (f *SSH) config(user string) (*ssh.ClientConfig, error) {
	if f.KeyFile == "" {
		return nil, errors.New("SSH: no key file")
	}
	if user == "" {
		user = "root"
	}
	pem, err := os.ReadFile(f.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("SSH: %w", err)
	}
	key, err := ssh.ParsePrivateKey(pem)
	if err != nil {
		return nil, fmt.Errorf("SSH: key file %s: %w", f.KeyFile, err)
	}
	known := f.KnownHostsFile
	if known == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, fmt.Errorf("SSH: no known hosts: %w", err)
		}
		known = filepath.Join(home, ".ssh", "known_hosts")
	}
	check, err := knownhosts.New(known)
	if err != nil {
		return nil, fmt.Errorf("SSH: known hosts: %w", err)
	}
	return &ssh.ClientConfig{User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: check}, nil
}

// tunnelled is a channel whose end is the end of the SSH connection too.
type tunnelled struct {
	net.Conn
	client *ssh.Client
}

func (t *tunnelled) Close() error { return t.client.Close() }

// bounded does what cannot be called back and closes c when ctx ends before it.
func bounded(ctx context.Context, c net.Conn, f func() error) error {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	err := f()
	if !stop() {
		return context.Cause(ctx)
	}
	return err
}

func either(s, otherwise string) string {
	if s != "" {
		return s
	}
	return otherwise
}
