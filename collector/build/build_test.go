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
)

func TestSources(t *testing.T) {
	lab := config.Source{Name: "lab", Type: config.VSphere, URL: "https://vc.invalid", Username: "u", PasswordFile: "/none", Interval: time.Minute}
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
