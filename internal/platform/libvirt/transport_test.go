package libvirt_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/protip/protip/internal/platform/libvirt"
	"github.com/protip/protip/test/libvirtd"
)

func write(t *testing.T, file, text string) string {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// authority is a CA and a certificate of it for 127.0.0.1, which serves both ends.
func authority(t *testing.T, dir string) (libvirt.TLS, tls.Certificate, *x509.CertPool) {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "lab"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key))
	cert := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	private := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(key))}))
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(cert))
	files := libvirt.TLS{
		CAFile: write(t, filepath.Join(dir, "ca.pem"), cert), CertFile: write(t, filepath.Join(dir, "cert.pem"), cert),
		KeyFile: write(t, filepath.Join(dir, "key.pem"), private),
	}
	return files, must(tls.X509KeyPair([]byte(cert), []byte(private))), pool
}

// serve calls handle with every connection to a free port, until the test ends.
func serve(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go handle(c)
		}
	}()
	return l.Addr().String()
}

func join(a, b io.ReadWriteCloser) {
	go func() { _, _ = io.Copy(a, b); a.Close() }()
	_, _ = io.Copy(b, a)
	b.Close()
}

// TestTLS goes to a real daemon through what a daemon does about TLS: it looks at the client's certificate and says so with a byte.
func TestTLS(t *testing.T) {
	d := libvirtd.Start(t)
	files, cert, pool := authority(t, t.TempDir())
	strangers, _, _ := authority(t, t.TempDir())
	addr := serve(t, func(raw net.Conn) {
		c := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.RequireAnyClientCert})
		defer c.Close()
		if c.Handshake() != nil {
			return
		}
		if !c.ConnectionState().PeerCertificates[0].Equal(cert.Leaf) {
			_, _ = c.Write([]byte{0})
			return
		}
		_, _ = c.Write([]byte{1})
		if daemon, err := net.Dial("tcp", d.Addr); err == nil {
			join(c, daemon)
		}
	})
	half := files
	half.CertFile, half.KeyFile = strangers.CertFile, strangers.KeyFile
	named := files
	named.ServerName = "kvm-01"
	missing := files
	missing.CAFile = "/nowhere"
	for _, tt := range []struct {
		name  string
		files libvirt.TLS
		err   string
	}{
		{"both know each other", files, ""},
		{"the daemon is a stranger", strangers, "certificate"},
		{"the client is a stranger", half, "does not take this client certificate"},
		{"another name", named, "kvm-01"},
		{"no such file", missing, "/nowhere"},
	} {
		c, err := libvirt.Dial(t.Context(), libvirt.Options{URI: "test+tls://" + addr + "/default", TLS: tt.files, Timeout: patience})
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if err == nil {
			c.Close()
		}
	}
}

// TestSSH goes to a real daemon's socket through an SSH server that takes one key.
func TestSSH(t *testing.T) {
	d := libvirtd.Start(t)
	dir := t.TempDir()
	key := func(name string) (ssh.Signer, string) {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return must(ssh.NewSignerFromKey(private)), write(t, filepath.Join(dir, name), string(pem.EncodeToMemory(must(ssh.MarshalPrivateKey(private, "")))))
	}
	host, _ := key("host")
	stranger, strangersKey := key("stranger")
	client, clientsKey := key("client")
	cfg := &ssh.ServerConfig{PublicKeyCallback: func(meta ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		if meta.User() != "protip" || string(k.Marshal()) != string(client.PublicKey().Marshal()) {
			return nil, net.ErrClosed
		}
		return nil, nil
	}}
	cfg.AddHostKey(host)
	addr := serve(t, func(raw net.Conn) { tunnel(raw, cfg) })
	known := func(name string, k ssh.Signer) string {
		return write(t, filepath.Join(dir, name), knownhosts.Line([]string{knownhosts.Normalize(addr)}, k.PublicKey())+"\n")
	}
	right, wrong, none := known("known", host), known("wrong", stranger), write(t, filepath.Join(dir, "none"), "")
	for _, tt := range []struct {
		name   string
		user   string
		socket string
		files  libvirt.SSH
		err    string
	}{
		{"both know each other", "protip", d.Socket, libvirt.SSH{KeyFile: clientsKey, KnownHostsFile: right}, ""},
		{"another key", "protip", d.Socket, libvirt.SSH{KeyFile: strangersKey, KnownHostsFile: right}, "unable to authenticate"},
		{"another user", "root", d.Socket, libvirt.SSH{KeyFile: clientsKey, KnownHostsFile: right}, "unable to authenticate"},
		{"another host key", "protip", d.Socket, libvirt.SSH{KeyFile: clientsKey, KnownHostsFile: wrong}, "key mismatch"},
		{"a host that is not known", "protip", d.Socket, libvirt.SSH{KeyFile: clientsKey, KnownHostsFile: none}, "key is unknown"},
		{"no daemon there", "protip", "/nowhere", libvirt.SSH{KeyFile: clientsKey, KnownHostsFile: right}, "/nowhere"},
		{"no key file", "protip", d.Socket, libvirt.SSH{KnownHostsFile: right}, "no key file"},
	} {
		uri := "test+ssh://" + tt.user + "@" + addr + "/default?socket=" + tt.socket
		c, err := libvirt.Dial(t.Context(), libvirt.Options{URI: uri, SSH: tt.files, Timeout: patience})
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if err != nil {
			continue
		}
		if name, err := c.Hostname(t.Context()); err != nil || name == "" {
			t.Errorf("%s: host name %q %v", tt.name, name, err)
		}
		c.Close()
	}
}

// tunnel is an SSH server that leads to unix sockets, as OpenSSH's does.
func tunnel(raw net.Conn, cfg *ssh.ServerConfig) {
	defer raw.Close()
	_, channels, requests, err := ssh.NewServerConn(raw, cfg)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for request := range channels {
		var to struct {
			Path     string
			Reserved string
			Port     uint32
		}
		if request.ChannelType() != "direct-streamlocal@openssh.com" || ssh.Unmarshal(request.ExtraData(), &to) != nil {
			_ = request.Reject(ssh.UnknownChannelType, "")
			continue
		}
		socket, err := net.Dial("unix", to.Path)
		if err != nil {
			_ = request.Reject(ssh.ConnectionFailed, "open failed")
			continue
		}
		channel, more, err := request.Accept()
		if err != nil {
			return
		}
		go ssh.DiscardRequests(more)
		go join(channel, socket)
	}
}
