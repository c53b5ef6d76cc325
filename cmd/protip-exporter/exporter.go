package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	versioncollector "github.com/prometheus/client_golang/prometheus/collectors/version"
	"github.com/prometheus/common/version"
	"github.com/prometheus/exporter-toolkit/web"

	"github.com/protip/protip/collector"
	"github.com/protip/protip/collector/build"
	"github.com/protip/protip/collector/exposition"
	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/config"
	"github.com/protip/protip/internal/inventory"
)

// shutdownTimeout is how long scrapes under way, and log-outs, may take at the end.
const shutdownTimeout = 10 * time.Second

// exporter is the sources, the inventory they fill, and the pages that show it.
type exporter struct {
	sources []build.Built
	fleet   *inventory.Fleet
	clock   *clock.Clock
	log     *slog.Logger
	pages   http.Handler
}

func newExporter(cfg *config.Config, log *slog.Logger, metricsPath string) (*exporter, error) {
	e := &exporter{clock: clock.New(1), log: log}
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		versioncollector.NewCollector("protip_exporter"),
	)
	var err error
	if e.sources, err = build.Sources(cfg, build.Options{
		Clock: e.clock, Log: log, Registerer: registry, Snapshot: func() *inventory.Snapshot { return e.fleet.Snapshot() },
	}); err != nil {
		return nil, err
	}
	var infos []inventory.Source
	for _, src := range e.sources {
		infos = append(infos, src.Info)
	}
	e.fleet = inventory.NewFleet(infos...)
	e.pages, err = e.routes(registry, metricsPath)
	return e, err
}

func (e *exporter) routes(registry prometheus.Gatherer, metricsPath string) (http.Handler, error) {
	landing, err := web.NewLandingPage(web.LandingConfig{
		Name:        "protip-exporter",
		Description: "The hosts and VMs of vCenters, for Prometheus",
		Version:     version.Info(),
		Profiling:   "false",
		Links: []web.LandingLinks{
			{Address: metricsPath, Text: "Metrics", Description: "in the text format or OpenMetrics"},
			{Address: "/-/healthy", Text: "Healthy", Description: "the process answers"},
			{Address: "/-/ready", Text: "Ready", Description: "every source has been asked at least once"},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("landing page: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET "+metricsPath, exposition.New(e.snapshot, registry, e.log))
	mux.HandleFunc("GET /-/healthy", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "protip-exporter is healthy.") })
	mux.HandleFunc("GET /-/ready", e.ready)
	mux.Handle("GET /{$}", landing)
	return mux, nil
}

// snapshot is the fleet without the samples that grew too old.
func (e *exporter) snapshot() *inventory.Snapshot {
	e.fleet.Expire(e.clock.Now())
	return e.fleet.Snapshot()
}

// ready answers 503 until every source has been listed or has failed, so that the first scrape tells the whole fleet.
func (e *exporter) ready(w http.ResponseWriter, _ *http.Request) {
	for _, src := range e.fleet.Snapshot().Sources() {
		if !src.Synced && src.Error == "" {
			http.Error(w, fmt.Sprintf("source %s is being listed.", src.Name), http.StatusServiceUnavailable)
			return
		}
	}
	fmt.Fprintln(w, "protip-exporter is ready.")
}

// run watches and serves until ctx is done or the server fails.
func (e *exporter) run(ctx context.Context, flags *web.FlagConfig) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := &http.Server{Handler: e.pages, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- web.ListenAndServe(server, flags, e.log) }()

	watching := e.watch(ctx)
	var err error
	select {
	case err = <-served:
	case <-ctx.Done():
	}
	cancel()
	end, release := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer release()
	if shut := server.Shutdown(end); shut != nil && err == nil {
		err = fmt.Errorf("finish scrapes under way: %w", shut)
	}
	select {
	case <-watching:
	case <-end.Done():
		e.log.Warn("sources did not end in time")
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// watch runs every source on its own; the channel is closed when all have ended.
func (e *exporter) watch(ctx context.Context) <-chan struct{} {
	sink := collector.FleetSink(e.fleet, e.clock, e.log, nil)
	var running sync.WaitGroup
	for _, src := range e.sources {
		running.Go(func() { src.Run(ctx, sink) })
	}
	done := make(chan struct{})
	go func() { running.Wait(); close(done) }()
	return done
}
