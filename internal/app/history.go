package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/protip/protip/collector/exposition"
	"github.com/protip/protip/internal/config"
	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/history/api"
	"github.com/protip/protip/internal/history/promql"
	"github.com/protip/protip/internal/history/remote"
	"github.com/protip/protip/internal/history/tsdb"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/rules"
)

// upkeep is between two looks at what is due in the embedded history.
const upkeep = time.Minute

// ErrNoHistory says that the configuration has it switched off.
var ErrNoHistory = errors.New("history is switched off: set history.enabled")

// openHistory opens what rules look back into: the embedded history, a server, or nothing.
func (a *App) openHistory(s *settings, registry *prometheus.Registry) error {
	h := &s.config.History
	switch {
	case !h.Enabled:
		return nil
	case h.URL != "":
		client, err := server(h)
		if err != nil {
			return fmt.Errorf("%s: %w", s.config.At("history"), err)
		}
		a.past = client
		return nil
	}
	o := embedded(h, a.o.DataDir, a.log)
	o.Registerer = registry
	kept, err := tsdb.Open(o)
	if err != nil {
		return fmt.Errorf("%s: %w", s.config.At("history"), err)
	}
	a.past, a.kept = kept, kept
	a.keepWhatIsAsked(s.rules)
	return nil
}

// embedded are the options of the history that the configuration keeps beside the data directory.
func embedded(h *config.History, dataDir string, log *slog.Logger) tsdb.Options {
	o := tsdb.Options{
		Dir: h.Dir, Retention: h.Retention, RollupRetention: h.RollupRetention, MaxBytes: h.MaxBytes(), Families: h.Families,
		Limits: promql.DefaultLimits(), Log: log,
	}
	if o.Dir == "" {
		o.Dir = filepath.Join(dataDir, "history")
	}
	o.Limits.Timeout, o.Limits.Samples = h.Timeout, h.MaxSamples
	return o
}

func server(h *config.History) (*remote.Client, error) {
	return remote.New(remote.Options{URL: h.URL, HTTP: h.HTTPClient(), Timeout: h.Timeout, Samples: h.MaxSamples, Matchers: h.Matchers})
}

// OpenHistory is the history of a configuration for who only asks and is no agent: the server that it names, or what an agent
// that is not running has kept. While one runs it is tsdb.ErrLocked, and the agent is to be asked (below /prometheus).
func OpenHistory(cfg *config.Config, dataDir string, log *slog.Logger) (past history.Querier, done func() error, err error) {
	h := &cfg.History
	switch {
	case !h.Enabled:
		return nil, nil, ErrNoHistory
	case h.URL != "":
		client, err := server(h)
		return client, func() error { return nil }, err
	}
	kept, err := tsdb.OpenReadOnly(embedded(h, dataDir, log))
	if err != nil {
		return nil, nil, err
	}
	return kept, kept.Close, nil
}

func (a *App) closeHistory() error {
	if a.kept == nil {
		return nil
	}
	return a.kept.Close()
}

// keepWhatIsAsked adds what the rules select to what is kept.
func (a *App) keepWhatIsAsked(set *rules.Set) {
	if a.kept == nil {
		return
	}
	var names []string
	for _, q := range set.Queries() {
		if more, err := promql.Selectors(q.Expr); err == nil { // a pack that could not be read was not loaded
			names = append(names, more...)
		}
	}
	a.kept.Want(names)
}

// remember writes the fleet as it is now. What fails is counted and said there, and costs nothing else.
func (a *App) remember(snap *inventory.Snapshot, now time.Time) {
	if a.kept != nil {
		_ = a.kept.Append(snap, now)
	}
}

func (a *App) maintainHistory(ctx context.Context) {
	for a.clock.Sleep(ctx, upkeep) == nil {
		a.kept.Maintain(ctx, a.clock.Now())
	}
}

// prometheusAPI serves the embedded history, so that Grafana needs no Prometheus; nil if there is none.
func (a *App) prometheusAPI() http.Handler {
	if a.kept == nil {
		return nil
	}
	units := map[string]string{}
	for _, kind := range []inventory.Kind{inventory.KindCluster, inventory.KindHost, inventory.KindVM, inventory.KindDatastore, inventory.KindService, inventory.KindMachine} {
		for _, m := range inventory.MetricsOf(kind) {
			units[m.String()] = m.Desc().Unit
		}
	}
	var metadata []api.Metadata
	for _, f := range exposition.Families() {
		metadata = append(metadata, api.Metadata{Name: f.Name, Type: string(f.Type), Help: f.Help, Unit: units[f.Name]})
	}
	return api.New(api.Options{Engine: a.kept.Engine, Storage: a.kept, Metadata: metadata, Now: a.clock.Now})
}
