package app

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/protip/protip/internal/config"
	"github.com/protip/protip/internal/web"
)

// access is who may what, as the file of users says now: it is read again when it changes. While it cannot be read, what it said before
// stays in force.
type access struct {
	config func() config.Web
	log    *slog.Logger
	ok     prometheus.Gauge

	mu     sync.Mutex
	file   string      // that was read, or tried
	info   os.FileInfo // of it as it was then
	users  web.Access
	failed error // why it was not read
}

func newAccess(cfg func() config.Web, registry prometheus.Registerer, log *slog.Logger) (*access, error) {
	a := &access{config: cfg, log: log, ok: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "protip_users_last_load_successful", Help: "Whether the file of users was read when it last changed; 1 without one.",
	})}
	registry.MustRegister(a.ok)
	a.ok.Set(1)
	if err := a.load(cfg().UsersFile); err != nil {
		return nil, err
	}
	return a, nil
}

// now is cheap: one look at the file's time and size.
func (a *access) now() web.Access {
	cfg := a.config()
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.failed
	a.failed = a.load(cfg.UsersFile)
	switch {
	case a.failed == nil:
		a.ok.Set(1)
	case before == nil || before.Error() != a.failed.Error():
		a.ok.Set(0)
		a.log.Error("users not loaded: who was known before is known still", "err", a.failed)
	}
	users := a.users
	if cfg.Anonymous == config.RoleViewer {
		users.Anonymous = web.Viewer
	}
	return users
}

// load reads the file if it is another one or was changed.
func (a *access) load(file string) error {
	if file == "" {
		a.file, a.info, a.users = "", nil, web.Access{}
		return nil
	}
	info, err := os.Stat(file)
	if err != nil {
		a.info = nil
		return fmt.Errorf("read users: %w", err)
	}
	if file == a.file && a.info != nil && os.SameFile(info, a.info) && info.ModTime().Equal(a.info.ModTime()) && info.Size() == a.info.Size() {
		return a.failed
	}
	a.file, a.info = file, info
	listed, err := config.LoadUsers(file)
	if err != nil {
		return err
	}
	a.users = accessOf(listed)
	a.log.Info("users loaded", "file", file, "users", len(listed.Users), "tokens", len(listed.Tokens))
	return nil
}

func accessOf(listed *config.Users) web.Access {
	out := web.Access{Accounts: map[string]web.Account{}, Tokens: map[[sha256.Size]byte]web.User{}, Subjects: map[string]web.User{}}
	for _, u := range listed.Users {
		role := roleOf(u.Role)
		if u.Bcrypt != "" {
			out.Accounts[u.Name] = web.Account{Role: role, Bcrypt: u.Bcrypt}
		}
		if u.Subject != "" {
			out.Subjects[u.Subject] = web.User{Name: u.Name, Role: role}
		}
	}
	for _, t := range listed.Tokens {
		sum, _ := hex.DecodeString(t.SHA256) // validated
		out.Tokens[[sha256.Size]byte(sum)] = web.User{Name: t.Name, Role: roleOf(t.Role)}
	}
	return out
}

func roleOf(name string) web.Role {
	switch name {
	case config.RoleOperator:
		return web.Operator
	case config.RoleViewer:
		return web.Viewer
	}
	return web.None
}
