// Package app wires the agent together: sources, inventory, rules, remediation, store and web.
// It promises that New touches no network, that Run ends with everything closed, and that two agents can live in one process.
// It must not be imported by anything but commands and tests.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	versioncollector "github.com/prometheus/client_golang/prometheus/collectors/version"

	"github.com/protip/protip/collector/build"
	"github.com/protip/protip/collector/exposition"
	"github.com/protip/protip/internal/alertmanager"
	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/config"
	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/history/tsdb"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/store"
	"github.com/protip/protip/internal/web"
	"github.com/protip/protip/internal/web/console"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// Options are what an agent is made of.
type Options struct {
	ConfigFile string
	DataDir    string
	Clock      *clock.Clock
	Log        *slog.Logger
	// Notify hears what happens, in order, one event at a time; it must not block for long. It may be nil.
	Notify func(Event)
	// WrapJournal lays something over the journal before the engine gets it; nil leaves it as it is.
	WrapJournal func(remediation.Journal) remediation.Journal
	// LoopbackOnly answers only requests for a loopback host name.
	LoopbackOnly bool
	// LoginTicket logs in the first who opens /login?ticket= with it, as an operator; empty is none.
	LoginTicket string
}

// App is one agent.
type App struct {
	o        Options
	log      *slog.Logger
	clock    *clock.Clock
	started  time.Time
	fleet    *inventory.Fleet
	sources  []build.Built
	store    *store.Store
	outbox   *alertmanager.Sender // nil: no Alertmanager is told
	inbox    *alertmanager.Inbox  // nil: no alerts are taken
	past     history.Querier      // nil: no history is kept
	kept     *tsdb.Store          // nil: it is kept elsewhere, or not at all
	acting   *acting              // nil without a remediation section: nothing that could act was built
	metrics  *metrics
	access   *access
	events   *web.Events
	console  *console.Console
	pages    http.Handler
	settings atomic.Pointer[settings]
	reload   sync.Mutex // one reload at a time

	answers   memory     // of history, to queries that need not be asked at every evaluation
	following *following // what VMs usually need
	notifying sync.Mutex // keeps events in order

	mu       sync.Mutex // guards what follows
	tips     []rules.Tip
	judged   judgement            // of the last evaluation
	reserves *reserves            // what clusters can bear to lose
	held     map[string]string    // tip -> why it does not go by itself
	offered  map[string]time.Time // tips whose plan with downtime was told of, by when they became active
	failed   string               // why the last reload failed
}

// New reads the configuration and the packs, opens the data directory and builds everything. It connects to nothing.
func New(ctx context.Context, o Options) (*App, error) {
	settings, err := load(o.ConfigFile, o.Clock.Now())
	if err != nil {
		return nil, err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		versioncollector.NewCollector("protip"),
	)
	a := &App{o: o, log: o.Log, clock: o.Clock, started: o.Clock.Now(), metrics: newMetrics(registry), reserves: newReserves(registry), following: newFollowing(registry)}
	a.settings.Store(settings)
	if a.access, err = newAccess(func() config.Web { return a.settings.Load().config.Web }, registry, o.Log); err != nil {
		return nil, err
	}
	a.metrics.reloaded(true, time.Now())
	if a.o.Notify == nil {
		a.o.Notify = func(Event) {}
	}

	a.sources, err = build.Sources(settings.config, build.Options{
		Clock: o.Clock, Log: o.Log, Registerer: registry, Snapshot: func() *inventory.Snapshot { return a.fleet.Snapshot() },
	})
	if err != nil {
		return nil, err
	}
	infos := make([]inventory.Source, 0, len(a.sources))
	for _, src := range a.sources {
		infos = append(infos, src.Info)
	}
	a.fleet = inventory.NewFleet(infos...)

	if a.store, err = store.Open(ctx, o.DataDir); err != nil {
		return nil, err
	}
	if a.tips, err = a.store.LoadTips(ctx); err == nil {
		err = a.openHistory(settings, registry)
	}
	if err == nil {
		err = errors.Join(a.openInbox(ctx, settings.config, registry), a.openOutbox(settings.config, registry))
	}
	if err == nil {
		a.acting, err = a.newActing(ctx, settings.config, registry)
	}
	if err != nil {
		return nil, errors.Join(err, a.closeHistory(), a.store.Close())
	}
	a.events = web.NewEvents(time.Now(), o.Log) // two runs of one demo begin at the same time of its clock
	a.console = a.newConsole()
	a.pages = web.New(web.Options{
		Agent:         agent{a},
		Metrics:       exposition.New(a.Snapshot, registry, o.Log),
		Prometheus:    a.prometheusAPI(),
		OperatorToken: a.operatorToken,
		Access:        a.access.now,
		Ticket:        o.LoginTicket,
		Alerts:        a.alertReceiver(),
		Events:        a.events,
		Pages:         a.console.Routes(),
		ShowError:     a.console.ShowError,
		LoopbackOnly:  o.LoopbackOnly,
		Log:           o.Log,
	})
	return a, nil
}

// Handler serves the agent's pages.
func (a *App) Handler() http.Handler { return a.pages }

// Snapshot is the fleet now, without the values that grew too old.
func (a *App) Snapshot() *inventory.Snapshot {
	a.fleet.Expire(a.clock.Now())
	return a.fleet.Snapshot()
}

// Run watches, judges and acts until ctx is done, then closes everything. It is called once.
func (a *App) Run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var running sync.WaitGroup
	sink := newSink(a)
	for _, src := range a.sources {
		running.Go(func() { src.Run(ctx, sink) })
	}
	running.Go(func() { a.evaluateAll(ctx) })
	if a.outbox != nil {
		running.Go(func() { a.outbox.Run(ctx) })
	}
	if a.kept != nil {
		running.Go(func() { a.maintainHistory(ctx) })
	}
	if a.acting != nil {
		running.Go(func() {
			if err := a.acting.engine.Run(ctx); err != nil {
				stop(fmt.Errorf("remediation: %w", err))
			}
		})
	}
	<-ctx.Done()
	a.events.Close() // the server waits for its streams
	running.Wait()
	if a.acting != nil {
		a.acting.close()
	}
	a.console.Close()
	err := context.Cause(ctx)
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, a.closeHistory(), a.store.Close())
}

// Event is something that happened; exactly one of its parts is set.
type Event struct {
	At     time.Time           `json:"at"`
	Source *inventory.Source   `json:"source,omitempty"` // went up or down
	Change *inventory.Change   `json:"change,omitempty"` // after the source's first listing
	Tip    *rules.Change       `json:"tip,omitempty"`
	Action *remediation.Action `json:"action,omitempty"` // took a step
	Offer  *Offer              `json:"offer,omitempty"`  // waits for a person's word
}

// Offer is a plan that is carried out only if a person agrees to its downtime.
type Offer struct {
	Tip      rules.Tip            `json:"tip"`
	Downtime string               `json:"downtime"` // of which VMs, and why, in words
	Actions  []remediation.Action `json:"actions"`
}

func (a *App) notify(e Event) {
	a.notifying.Lock()
	defer a.notifying.Unlock()
	e.At = a.clock.Now()
	a.o.Notify(e)
	if e.Offer != nil { // the stream tells what changes, and an offer changes nothing
		return
	}
	a.events.Publish(web.News{At: e.At, Source: e.Source, Change: e.Change, Tip: e.Tip, Action: e.Action})
}
