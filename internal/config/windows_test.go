package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHostURL(t *testing.T) {
	for host, want := range map[string]string{
		"hv-01":                       "https://hv-01:5986",
		"hv-01.example.com:443":       "https://hv-01.example.com:443",
		"hv-01:5985":                  "http://hv-01:5985",
		"old:80":                      "http://old:80",
		"2001:db8::1":                 "https://[2001:db8::1]:5986",
		"[2001:db8::1]:5985":          "http://[2001:db8::1]:5985",
		"http://hv-01":                "http://hv-01:5985",
		"https://proxy.example.com/x": "https://proxy.example.com:5986/x",
	} {
		if u, err := HostURL(host); err != nil || u.String() != want {
			t.Errorf("%s: %v, %v, want %s", host, u, err, want)
		}
	}
	for _, host := range []string{"", "a b", "user@host", "https://u:secret@host", "ftp://host", "https://", "http://h?x=1", "host/path"} {
		u, err := HostURL(host)
		if err == nil {
			t.Errorf("%q is %v", host, u)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", host, err)
		}
	}
}

// TestVirtualServerMovesNothing: a credential that may act says nothing to Virtual Server 2005, and is refused by name.
func TestVirtualServerMovesNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	source := "sources:\n- {name: a, type: virtualserver, hosts: ['old:80'], username: u, password_file: " + file
	if _, err := Parse([]byte(source+"}\n"), "protip.yml"); err != nil {
		t.Error(err)
	}
	_, err := Parse([]byte(source+", acting: {username: a, password_file: "+file+"}}\n"), "protip.yml")
	if err == nil || !strings.Contains(err.Error(), "acting says nothing to a source of type virtualserver") {
		t.Errorf("a credential that may act: %v", err)
	}
}

// TestWindowsSources holds what is wrong with a source of Windows hosts. Whatever is not listed must not be complained about.
func TestWindowsSources(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"password", "keytab", "cert", "key"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name, keys string
		want       []string
	}{
		{"sealed ntlm over plain http", "hosts: [hv-01:5985, hv-02], username: 'CORP\\u', password_file: password", nil},
		{"kerberos by keytab", "hosts: [hv-01], auth: kerberos, username: u@CORP.EXAMPLE.COM, keytab_file: keytab", nil},
		{"kerberos by cache", "hosts: [hv-01], auth: kerberos, ccache_file: keytab", nil},
		{"certificate", "hosts: [hv-01], auth: certificate, tls_config: {cert_file: cert, key_file: key}", nil},
		{"basic as asked for", "hosts: ['http://hv-01'], auth: basic, plain_basic: true, username: u, password_file: password", nil},
		{"a second user", "hosts: [hv-01], username: u, password_file: password, acting: {auth: kerberos, username: a, realm: X, keytab_file: keytab}", nil},

		{"no hosts", "username: u, password_file: password", []string{"hosts is missing"}},
		{"one host twice", "hosts: [HV-01, 'hv-01:5986'], username: u, password_file: password", []string{"hosts[1] is the same host as"}},
		{"a password in a host", "hosts: ['https://u:Marker@h'], username: u, password_file: password", []string{"hosts[0] holds a user or a password"}},
		{"basic over plain http", "hosts: [a:5985], auth: basic, username: u, password_file: password", []string{"auth is basic and a host is spoken to over plain http"}},
		{"kerberos over plain http", "hosts: [a:5985], auth: kerberos, username: u, realm: X, keytab_file: keytab", []string{"auth is kerberos and a host"}},
		{"kerberos without a realm", "hosts: [a], auth: kerberos, username: u, keytab_file: keytab", []string{"realm is missing"}},
		{"a keytab for ntlm", "hosts: [a], username: u, password_file: password, keytab_file: keytab", []string{"keytab_file says nothing without auth: kerberos"}},
		{"no certificate", "hosts: [a], auth: certificate", []string{"tls_config names none"}},
		{"an unknown way", "hosts: ['a:5985'], auth: credssp, username: u, password_file: password", []string{`auth is "credssp"`}},
		{"plain_basic for nobody", "hosts: [a], plain_basic: true, username: u, password_file: password", []string{"nothing logs in with basic"}},
		{"no user", "hosts: [a]", []string{"username is missing", "password_file is missing"}},
	} {
		_, err := Parse([]byte("sources:\n- {name: a, type: hyperv, "+c.keys+"}\n"), filepath.Join(dir, "protip.yml"))
		var problems *Error
		var said []string
		if errors.As(err, &problems) {
			for _, p := range problems.Problems {
				if !strings.Contains(p.What, ".type is ") {
					said = append(said, p.What)
				}
			}
		}
		ok := len(said) == len(c.want)
		for n := range min(len(said), len(c.want)) {
			ok = ok && strings.Contains(said[n], c.want[n]) && !strings.Contains(said[n], "Marker")
		}
		if !ok {
			t.Errorf("%s: %q, want %q", c.name, said, c.want)
		}
	}
}
