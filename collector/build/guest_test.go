package build

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/config"
	"github.com/protip/protip/internal/sim"
)

// TestCheckGuests: a check of guests looks for their VMs in what the other sources tell now, and says of which it does not know.
func TestCheckGuests(t *testing.T) {
	vc, err := sim.StartVCenter(sim.Config{
		Name: "lab", Clock: clock.New(1),
		Clusters: []sim.Cluster{{Name: "c", Hosts: []sim.Host{{Name: "h", Cores: 4, MemoryBytes: 8 << 30, VMs: []sim.VM{{Name: "web"}, {Name: "db"}}}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(vc.Close)
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "app_up 1\nnode_uname_info{nodename=\"db\"} 1\n")
	}))
	t.Cleanup(page.Close)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if block, _ := pem.Decode(vc.CAPEM()); block == nil {
		t.Fatal("no certificate")
	}
	word, _ := vc.Login().User.Password()
	text := fmt.Sprintf(`sources:
  - {name: lab, type: vsphere, url: %q, username: %q, password_file: %q, tls_config: {ca_file: %q}}
  - {name: dead, type: vsphere, url: "https://127.0.0.1:1", username: u, password_file: %q}
  - name: guests
    type: guest
    targets:
      - {name: named, url: %q, vm: lab/web}
      - {name: alike, url: %q}
    services: [{type: metric, metric: app_up, name: app, running: true}]
`, vc.URL().String(), vc.Login().User.Username(), file("password", word), file("ca.pem", string(vc.CAPEM())), file("other", "x"), page.URL, page.URL)
	cfg, err := config.Parse([]byte(text), filepath.Join(dir, "protip.yml"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := Check(t.Context(), cfg, cfg.Sources[2])
	if err != nil {
		t.Fatal(err)
	}
	web, _ := vc.VM("web")
	db, _ := vc.VM("db")
	for _, want := range []string{
		"target named: answers, 1 service; VM lab/vm/" + web.Value + ", by config",
		"target alike: answers, 1 service; no VM found; by its host name alone it may be lab/vm/" + db.Value,
		"source dead tells no VMs: ",
	} {
		if !slices.ContainsFunc(r.Notes, func(note string) bool { return strings.HasPrefix(note, want) }) {
			t.Errorf("notes %q have no %q", r.Notes, want)
		}
	}
	if r.VMs != 1 || vc.Sessions() != 0 {
		t.Errorf("%d VMs, and %d sessions are left open", r.VMs, vc.Sessions())
	}
}
