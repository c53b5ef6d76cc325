package vsphere_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/protip/protip/collector"
	"github.com/protip/protip/collector/vsphere"
	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/vsphere"
	"github.com/protip/protip/internal/sim"
)

// certified is an extension with a certificate of its own, and what the vCenter knows of it.
func certified(t *testing.T, key string) (*platform.Extension, sim.Extension) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: key},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ext := &platform.Extension{Key: key, CertFile: write("cert.pem", "CERTIFICATE", cert), KeyFile: write("key.pem", "PRIVATE KEY", der)}
	return ext, sim.Extension{Key: key, Certificate: cert}
}

// as is the vCenter's session by an extension instead of a user.
func as(vc *sim.VCenter, ext *platform.Extension) platform.Options {
	through := *ext
	through.Tunnel = vc.TunnelAddr()
	o := sessionOf(vc)
	o.Username, o.Password, o.Extension = "", nil, &through
	return o
}

func TestExtensionsLogInByCertificate(t *testing.T) {
	t.Parallel()
	watcher, known := certified(t, "com.example.protip")
	actor, knownToo := certified(t, "com.example.protip.act")
	vc := startVCenter(t, sim.Config{
		Extensions: []sim.Extension{known, knownToo},
		Users:      []sim.User{{Name: actor.Key, Lacks: []string{"Resource.HotMigrate"}}},
	})
	r, err := vsphere.CheckSource(t.Context(), as(vc, watcher))
	if err != nil || r.VMs != 20 || len(r.Lacks) > 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if a := vsphere.CheckActing(t.Context(), as(vc, actor)); a.Error != "" || len(a.Lacks) != 1 || a.Username != actor.Key {
		t.Errorf("acting: %+v", a)
	}

	mixed := *watcher
	mixed.Key = actor.Key
	direct := as(vc, watcher)
	direct.Extension.Tunnel = strings.TrimPrefix(vc.URL().Host, "//") // speaks TLS and takes no CONNECT
	otherName := as(vc, watcher)
	otherName.TLS.ServerName = "vc.example.org"
	lost := as(vc, watcher)
	lost.Extension.KeyFile += ".gone"
	for name, tt := range map[string]struct {
		opts    platform.Options
		want    string
		refused bool
	}{
		"with another's certificate":   {as(vc, &mixed), "refused", true},
		"not through the tunnel":       {direct, "through " + direct.Extension.Tunnel, false},
		"at a vCenter of another name": {otherName, "vc.example.org", false},
		"without its key":              {lost, "key.pem.gone", false},
	} {
		before := vc.Logins()
		_, err := vsphere.CheckSource(t.Context(), tt.opts)
		if err == nil || !strings.Contains(err.Error(), tt.want) || errors.Is(err, collector.ErrCredentials) != tt.refused {
			t.Errorf("%s: %v", name, err)
		}
		if n := vc.Logins() - before; tt.refused != (n == 1) {
			t.Errorf("%s: %d log-ins", name, n)
		}
	}
	if n := vc.Sessions(); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// TestExtensionFollows: a session by certificate is as good as any, also when it has to be made anew.
func TestExtensionFollows(t *testing.T) {
	t.Parallel()
	ext, known := certified(t, "com.example.protip")
	clk := clock.New(speed)
	vc := startVCenter(t, sim.Config{Clock: clk, Extensions: []sim.Extension{known}})
	a := supervise(t, clk, map[string]platform.Options{"vc": as(vc, ext)})
	full := func() bool { return a.up("vc") && a.fresh("vc", inventory.VMCPUContention) == 20 }
	a.eventually(15*time.Second, "samples", full)
	c := &console{t: t, name: "vc", vc: vc}
	c.ForgetLogins()
	a.eventually(15*time.Second, "one more log-in", func() bool { return c.LogIns() == 2 })
	vc.Stop()
	a.eventually(15*time.Second, "down", func() bool { return !a.up("vc") })
	if err := vc.Restart(); err != nil {
		t.Fatal(err)
	}
	a.eventually(15*time.Second, "samples again", full)
	if n := vc.Sessions(); n != 1 {
		t.Errorf("%d sessions, want 1", n)
	}
}
