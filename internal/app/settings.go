package app

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/prometheus/common/version"

	"github.com/protip/protip/internal/config"
	"github.com/protip/protip/internal/history/tsdb"
	"github.com/protip/protip/internal/web"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
	"github.com/protip/protip/rules/packs"
)

// settings are what a reload replaces, all at once.
type settings struct {
	config *config.Config
	rules  *rules.Set
	policy remediation.Policy
	opened []remediation.Window // when what no person asked for may start
	loaded time.Time
}

// load reads the configuration and all packs it names.
func load(file string, now time.Time) (*settings, error) {
	cfg, err := config.Load(file)
	if err != nil {
		return nil, err
	}
	if err := tsdb.CheckFamilies(cfg.History.Families); err != nil {
		return nil, fmt.Errorf("%s: history.families: %w", cfg.At("history.families"), err)
	}
	if cfg.Web.UsersFile != "" {
		if _, err := config.LoadUsers(cfg.Web.UsersFile); err != nil {
			return nil, err
		}
	}
	set, err := loadPacks(cfg)
	if err != nil {
		return nil, err
	}
	policy := policyOf(cfg.Remediation)
	if err := checkGrants(cfg, policy.Automatic, set); err != nil {
		return nil, err
	}
	return &settings{config: cfg, rules: set, policy: policy, opened: windowsOf(cfg.Remediation), loaded: now}, nil
}

// loadPacks reads and compiles the packs that a configuration names. The error is of package rules or says which file.
func loadPacks(cfg *config.Config) (*rules.Set, error) {
	var files []rules.File
	shipped := cfg.Packs.Shipped
	if shipped == nil {
		shipped = packs.Names()
	}
	for _, name := range shipped {
		f, err := packs.File(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", cfg.At("packs.shipped"), err)
		}
		files = append(files, f)
	}
	for i, pattern := range cfg.Packs.Files {
		at := cfg.At(fmt.Sprintf("packs.files[%d]", i))
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return nil, fmt.Errorf("%s: packs.files: %q is not a pattern: %w", at, pattern, err)
		}
		if len(paths) == 0 {
			return nil, fmt.Errorf("%s: packs.files: no file is named %s: correct the name or leave it out", at, pattern)
		}
		for _, path := range paths {
			f, err := rules.ReadFile(path)
			if err != nil {
				return nil, err
			}
			files = append(files, f)
		}
	}
	return rules.Load(files, PackOptions(cfg))
}

// PackOptions are what the configuration says about packs.
func PackOptions(cfg *config.Config) rules.Options {
	o := rules.Options{Version: version.Version, Config: cfg.Packs.Config}
	for i, own := range cfg.Packs.Overrides {
		o.Overrides = append(o.Overrides, rules.Override{
			Pack: own.Pack, Source: own.Source, Cluster: own.Cluster, Host: own.Host, Tag: own.Tag, Config: own.Config,
			At: cfg.At(fmt.Sprintf("packs.overrides[%d]", i)),
		})
	}
	return o
}

// checkGrants refuses a grant for a rule that is not there. One for another version of the pack is no mistake: the rule
// falls back to manual and its tips say so.
func checkGrants(cfg *config.Config, grants []remediation.Grant, set *rules.Set) error {
	for i, g := range grants {
		if _, ok := set.Rule(g.Pack, g.Rule); !ok {
			return fmt.Errorf("%s: remediation.automatic: no rule %s in a pack %s is loaded: correct the names or load the pack",
				cfg.At(fmt.Sprintf("remediation.automatic[%d]", i)), g.Rule, g.Pack)
		}
	}
	return nil
}

// windowsOf are the windows of a configuration, which has been checked.
func windowsOf(r *config.Remediation) (out []remediation.Window) {
	if r == nil {
		return nil
	}
	for _, w := range r.Windows {
		if days, from, to, zone, err := w.Hours(); err == nil {
			out = append(out, remediation.Window{Days: days, From: from, To: to, Zone: zone})
		}
	}
	return out
}

func policyOf(r *config.Remediation) remediation.Policy {
	if r == nil {
		return remediation.Policy{Mode: remediation.ModeOff}
	}
	p := remediation.Policy{Mode: remediation.Mode(r.Mode), OverrideDRS: r.OverrideDRS, Severity: r.Severity}
	for _, c := range r.Clusters {
		p.Clusters = append(p.Clusters, remediation.Scope{Source: c.Source, Cluster: c.Cluster, Mode: remediation.Mode(c.Mode), Severity: c.Severity})
	}
	for _, g := range r.Automatic {
		p.Automatic = append(p.Automatic, remediation.Grant(g))
	}
	return p
}

// Reload reads configuration and packs again and swaps them in at once. On error the old ones stay in force. What is built
// once (sources, credentials, limits) cannot change without a restart, and a change there is refused.
func (a *App) Reload(context.Context) error {
	a.reload.Lock()
	defer a.reload.Unlock()
	next, err := load(a.o.ConfigFile, a.clock.Now())
	if err == nil {
		err = sameBuild(a.settings.Load().config, next.config)
	}
	a.mu.Lock()
	a.failed = ""
	if err != nil {
		a.failed = err.Error()
	}
	a.mu.Unlock()
	a.metrics.reloaded(err == nil, time.Now())
	if err != nil {
		return fmt.Errorf("reload: the old configuration stays in force: %w", err)
	}
	a.settings.Store(next)
	a.keepWhatIsAsked(next.rules)
	a.log.Info("configuration loaded", "rules", len(next.rules.Rules()))
	return nil
}

func sameBuild(old, next *config.Config) error {
	var changed []string
	differ := func(what string, a, b any) {
		if !reflect.DeepEqual(a, b) {
			changed = append(changed, what)
		}
	}
	differ("sources", old.Sources, next.Sources)
	differ("evaluation_interval", old.EvaluationInterval, next.EvaluationInterval)
	differ("history", old.History, next.History)
	if a, b := old.Remediation, next.Remediation; (a == nil) != (b == nil) {
		changed = append(changed, "remediation (added or removed)")
	} else if a != nil {
		differ("remediation.limits", a.Limits, b.Limits)
		differ("remediation.cooldown", a.Cooldown, b.Cooldown)
		differ("remediation.dry_run", a.DryRun, b.DryRun)
	}
	if len(changed) == 0 {
		return nil
	}
	return fmt.Errorf("%w: restart protip to change %s", web.ErrConflict, strings.Join(changed, ", "))
}

// operatorToken reads the token at each act, so that a rotated one counts at once.
func (a *App) operatorToken() (string, error) {
	file := a.settings.Load().config.Web.OperatorTokenFile
	if file == "" {
		return "", nil
	}
	token, err := readLine(file)
	if err != nil {
		return "", fmt.Errorf("operator token: %w", err)
	}
	if token == "" {
		return "", errors.New("operator token: " + file + " is empty")
	}
	return token, nil
}

// CheckConfig reads a configuration and all packs it names as New would.
func CheckConfig(file string) (*config.Config, *rules.Set, error) {
	s, err := load(file, time.Time{})
	if err != nil {
		return nil, nil, err
	}
	return s.config, s.rules, nil
}

// ReloadAndLog is Reload for who has nobody to answer to.
func (a *App) ReloadAndLog(ctx context.Context) {
	if err := a.Reload(ctx); err != nil {
		a.log.Error("configuration not loaded", "err", err)
	}
}
