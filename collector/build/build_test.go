package build

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/config"
	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/vsphere"
)

func TestSources(t *testing.T) {
	lab := config.Source{Name: "lab", Type: config.VSphere, URL: "https://vc.invalid", Interval: time.Minute}
	lab.Credential = config.Credential{Username: "u", PasswordFile: "/none"}
	other := lab
	other.Type = "abacus"
	bare := lab
	bare.Username = ""
	for _, tc := range []struct {
		name    string
		sources []config.Source
		err     string
	}{
		{"a vCenter that does not answer", []config.Source{lab}, ""},
		{"an unknown type", []config.Source{lab, other}, `source "lab": unknown type "abacus"`},
		{"a vCenter without a user", []config.Source{bare}, `source "lab": `},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Sources(&config.Config{Sources: tc.sources}, Options{
				Clock: clock.New(1), Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
			})
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("got %v, want %s", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := inventory.Source{Name: "lab", Platform: "vsphere", Interval: time.Minute}
			if len(got) != 1 || got[0].Info != want || got[0].Source == nil {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

// TestSessionIsOfOneCredential: what watches is never what acts, and either may be of any kind.
func TestSessionIsOfOneCredential(t *testing.T) {
	t.Setenv("PROTIP_TEST_USER", "svc")
	t.Setenv("PROTIP_TEST_PASSWORD", "of-the-environment")
	src := config.Source{Name: "lab", Type: config.VSphere, URL: "https://vc.invalid"}
	src.Credential = config.Credential{UsernameEnv: "PROTIP_TEST_USER", PasswordEnv: "PROTIP_TEST_PASSWORD"}
	src.Acting = &config.Credential{Extension: &config.Extension{ID: "com.example.protip", CertFile: "/c", KeyFile: "/k"}}

	watch := Session(src, src.Credential)
	password, err := watch.Password()
	if watch.Who() != "svc" || password != "of-the-environment" || err != nil || watch.Extension != nil {
		t.Errorf("watches as %q, %v", watch.Who(), err)
	}
	act := Session(src, *src.Acting)
	want := platform.Extension{Key: "com.example.protip", CertFile: "/c", KeyFile: "/k"}
	if act.Extension == nil || *act.Extension != want || act.Username != "" || act.Who() != want.Key {
		t.Errorf("acts as %+v", act.Extension)
	}
	t.Setenv("PROTIP_TEST_PASSWORD", "")
	if _, err := watch.Password(); err == nil || !strings.Contains(err.Error(), "PROTIP_TEST_PASSWORD") {
		t.Errorf("without the variable: %v", err)
	}
}

// TestGroupsOfMetrics: the configuration takes every group that metrics are of, and no other.
func TestGroupsOfMetrics(t *testing.T) {
	parse := func(groups string) (*config.Config, error) {
		return config.Parse([]byte(`sources:
  - {name: lab, type: vsphere, url: "https://vc.invalid", username: u, password_file: build_test.go, max_series: 7`+groups+`}
`), "protip.yml")
	}
	all := inventory.Groups()
	if _, err := parse(", collect: [" + strings.Join(all, ", ") + "]"); err != nil {
		t.Error(err)
	}
	if _, err := parse(", collect: [cpus]"); err == nil || !strings.Contains(err.Error(), "did you mean cpu?") {
		t.Errorf("an unknown group: %v", err)
	}
	for text, want := range map[string][2]bool{"": {true, true}, ", collect: []": {false, false}, ", collect: [disk]": {false, true}} {
		cfg, err := parse(text)
		if err != nil {
			t.Fatal(err)
		}
		built, err := Sources(cfg, Options{Clock: clock.New(1), Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
		if err != nil {
			t.Fatal(err)
		}
		has := built[0].collect
		if got := [2]bool{has.Has(inventory.VMCPUUsage), has.Has(inventory.HostDiskLatency)}; got != want || built[0].Info.MaxSeries != 7 {
			t.Errorf("%q has CPU and disks: %v, want %v", text, got, want)
		}
		again, err := config.Parse([]byte(cfg.String()), "protip.yml")
		if err != nil || (again.Sources[0].Collect == nil) != (cfg.Sources[0].Collect == nil) {
			t.Errorf("%q is printed as\n%s", text, cfg)
		}
	}
}
