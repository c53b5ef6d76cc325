package app

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/protip/protip/internal/config"
	"github.com/protip/protip/internal/web"
)

// TestUsersAreReadAgain: a change of the file counts at once, and a mistake in it leaves everybody as they were.
func TestUsersAreReadAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users.yml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	token := func(name, role string) string {
		return fmt.Sprintf("  - {name: %s, role: %s, sha256: %x}\n", name, role, sha256.Sum256([]byte(name)))
	}
	var log strings.Builder
	cfg := config.Web{UsersFile: file}
	write("tokens:\n" + token("ann", "viewer"))
	a, err := newAccess(func() config.Web { return cfg }, prometheus.NewRegistry(), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	check := func(when string, ok float64, want map[string]web.Role) {
		t.Helper()
		got := a.now()
		for name, role := range want {
			if u := got.Tokens[sha256.Sum256([]byte(name))]; u.Role != role || role != web.None && u.Name != name {
				t.Errorf("%s: %s is %+v, want %s", when, name, u, role)
			}
		}
		if v := testutil.ToFloat64(a.ok); v != ok {
			t.Errorf("%s: the metric is %g", when, v)
		}
	}
	check("at first", 1, map[string]web.Role{"ann": web.Viewer, "bob": web.None})
	write("tokens:\n" + token("ann", "operator") + token("bob", "viewer"))
	check("after a change", 1, map[string]web.Role{"ann": web.Operator, "bob": web.Viewer})
	write("tokens:\n" + token("bob", "boss"))
	for range 3 {
		check("after a mistake", 0, map[string]web.Role{"ann": web.Operator, "bob": web.Viewer})
	}
	if n := strings.Count(log.String(), `tokens[0].role is \"boss\"`); n != 1 || !strings.Contains(log.String(), "users.yml:2:23") {
		t.Errorf("said %d times: %s", n, &log)
	}
	if err := os.Rename(file, file+".away"); err != nil {
		t.Fatal(err)
	}
	check("while it is away", 0, map[string]web.Role{"ann": web.Operator})
	write("tokens:\n" + token("bob", "viewer"))
	check("once it is back", 1, map[string]web.Role{"ann": web.None, "bob": web.Viewer})

	if got := a.now().Anonymous; got != web.None {
		t.Errorf("anonymous is %s", got)
	}
	cfg.Anonymous = config.RoleViewer
	if got := a.now().Anonymous; got != web.Viewer {
		t.Errorf("anonymous is %s", got)
	}
	cfg.UsersFile = ""
	if got := a.now(); len(got.Tokens) > 0 {
		t.Errorf("without a file: %v", got.Tokens)
	}
}
