package build

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/protip/protip/internal/config"
	"github.com/protip/protip/internal/platform/winrm"
)

func TestWindowsHosts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("first\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	src := config.Source{Name: "hv", Hosts: []string{"hv-01", "hv-02:5985"}, Credential: config.Credential{Username: `CORP\u`, PasswordFile: file}}
	got, err := WindowsHosts(src, src.Credential)
	if err != nil || len(got) != 2 {
		t.Fatal(got, err)
	}
	if got[0].URL != "https://hv-01:5986" || got[1].URL != "http://hv-02:5985" || got[0].Logins == nil || got[0].Logins != got[1].Logins {
		t.Errorf("got %s, %s, sharing: %v", got[0].URL, got[1].URL, got[0].Logins == got[1].Logins)
	}
	for _, o := range got {
		if _, err := winrm.New(o); err != nil {
			t.Error(err)
		}
	}
	if err := os.WriteFile(file, []byte("second"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := got[1].Password(); p != "second" || err != nil {
		t.Errorf("a rotated password: %q, %v", p, err)
	}
	keys := config.Credential{Auth: config.AuthKerberos, Username: "u@CORP.EXAMPLE.COM", KeytabFile: "keytab"}
	if got, err = WindowsHosts(config.Source{Hosts: []string{"hv-01"}}, keys); err != nil {
		t.Fatal(err)
	}
	if _, err := winrm.New(got[0]); err != nil {
		t.Error(err)
	}
	if _, err := WindowsHosts(config.Source{Hosts: []string{"a b"}}, keys); err == nil {
		t.Error("no host is taken for one")
	}
}
