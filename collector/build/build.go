// Package build makes the configured sources: it is the one list of what protip can watch.
// It promises that nothing is connected to before Run, so that start-up never fails because a target is down.
// It must not import anything that acts: protip-exporter is built of it.
package build

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/protip/protip/collector"
	"github.com/protip/protip/collector/guest"
	"github.com/protip/protip/collector/hyperv"
	"github.com/protip/protip/collector/libvirt"
	"github.com/protip/protip/collector/virtualserver"
	"github.com/protip/protip/collector/vsphere"
	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/config"
	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/vsphere"
)

// Options are what all sources share.
type Options struct {
	Clock      *clock.Clock
	Log        *slog.Logger
	Registerer prometheus.Registerer // takes the sources' own metrics
	// Snapshot is the fleet that all these sources fill: a source of guests looks for their VMs in it. It is not called before a
	// source is run.
	Snapshot func() *inventory.Snapshot

	guests *guest.Metrics
}

// Built is one source, ready to run.
type Built struct {
	Info   inventory.Source // for inventory.NewFleet
	Source collector.Source

	collect   inventory.MetricSet
	supervise collector.Options
}

// Sources makes the sources of a configuration, in its order.
func Sources(cfg *config.Config, opts Options) ([]Built, error) {
	metrics := collector.NewMetrics(opts.Registerer)
	identities := collector.NewIdentities()
	opts.guests = guest.NewMetrics(opts.Registerer)
	var out []Built
	for _, src := range cfg.Sources {
		watch, err := source(src, Session(src, src.Credential), opts, metrics.Observer(src.Name, opts.Log), identities)
		if err != nil {
			return nil, err
		}
		out = append(out, Built{
			Info: inventory.Source{
				Name: src.Name, Platform: src.Type, Interval: max(src.Interval, slowest(src.Type)), MaxSeries: src.MaxSeries,
			},
			collect:   inventory.OfGroups(src.Collect),
			Source:    watch,
			supervise: collector.Options{Clock: opts.Clock, Log: opts.Log, Metrics: metrics},
		})
	}
	return out, nil
}

// slowest is the period of a platform's slowest samples: asked more often, they still come no faster, and must not be taken
// for stale in between.
func slowest(platform string) time.Duration {
	if platform == config.VSphere {
		return 20 * time.Second // realtime counters
	}
	return 0
}

// Trial makes one source that is in no configuration yet, with a password that is in no file.
func Trial(src config.Source, password string, opts Options) (collector.Source, error) {
	metrics := collector.NewMetrics(opts.Registerer)
	session := Session(src, src.Credential)
	session.Password = func() (string, error) { return password, nil }
	return source(src, session, opts, metrics.Observer(src.Name, opts.Log), nil)
}

// source makes one source of its type.
func source(src config.Source, session platform.Options, opts Options, observer collector.Observer,
	identities *collector.Identities,
) (collector.Source, error) {
	switch src.Type {
	case config.VSphere:
		return vsphere.New(vsphere.Options{
			Name:       src.Name,
			Session:    session,
			Interval:   src.Interval,
			PerfBatch:  src.PerfBatch,
			Collect:    inventory.OfGroups(src.Collect),
			Attributes: src.CustomAttributes,
			Categories: src.TagCategories,
			Clock:      opts.Clock,
			Observer:   observer,
			Identities: identities,
		})
	case config.Guest, config.Machines:
		how, err := guests(src, opts, observer)
		if err != nil {
			return nil, err
		}
		return guest.New(how)
	case config.Libvirt:
		return libvirt.New(libvirt.Options{
			Name: src.Name, Hosts: LibvirtHosts(src, src.Credential), Interval: src.Interval, Clock: opts.Clock, Observer: observer,
		})
	case config.HyperV:
		hosts, err := WindowsHosts(src, src.Credential)
		if err != nil {
			return nil, err
		}
		return hyperv.New(hyperv.Options{
			Name: src.Name, Hosts: hosts, Interval: src.Interval, Clock: opts.Clock, Observer: observer, Identities: identities,
		})
	case config.VirtualServer:
		hosts, err := WindowsHosts(src, src.Credential)
		if err != nil {
			return nil, err
		}
		return virtualserver.New(virtualserver.Options{Name: src.Name, Hosts: hosts, Interval: src.Interval, Clock: opts.Clock, Observer: observer})
	}
	return nil, fmt.Errorf("source %q: unknown type %q", src.Name, src.Type)
}

// Session is how to log in at a source's vCenter with one of its credentials: the source's own, which watches, or the one that
// may act.
func Session(src config.Source, as config.Credential) platform.Options {
	o := platform.Options{URL: src.URL, TLS: src.TLS}
	if e := as.Extension; e != nil {
		o.Extension = &platform.Extension{Key: e.ID, CertFile: e.CertFile, KeyFile: e.KeyFile}
		return o
	}
	o.Username, o.Password = as.User(), platform.PasswordFile(as.PasswordFile)
	if as.PasswordEnv != "" {
		o.Password = platform.PasswordEnv(as.PasswordEnv)
	}
	return o
}

// Run keeps the source running until ctx is done. What it is not to collect does not reach the sink, whether or not the source
// knows to leave it.
func (b Built) Run(ctx context.Context, sink collector.Sink) {
	collector.Supervise(ctx, b.Info.Name, b.Source, collector.Only(sink, b.collect), b.supervise)
}

// Check logs in at one source of a configuration, looks at what its user can see and what its users may do, and logs out.
func Check(ctx context.Context, cfg *config.Config, src config.Source) (collector.Report, error) {
	switch src.Type {
	case config.Guest, config.Machines:
		return checkGuests(ctx, cfg, src)
	case config.VSphere:
		return checkVSphere(ctx, src)
	case config.Libvirt:
		return checkLibvirt(ctx, src)
	case config.HyperV, config.VirtualServer:
		return checkWindows(ctx, cfg, src)
	}
	return collector.Report{}, fmt.Errorf("source %q: unknown type %q", src.Name, src.Type)
}

func checkVSphere(ctx context.Context, src config.Source) (collector.Report, error) {
	r, err := vsphere.CheckSource(ctx, Session(src, src.Credential))
	if err != nil || src.Acting == nil {
		return r, err
	}
	found := vsphere.CheckActing(ctx, Session(src, *src.Acting))
	r.Acting = &found
	return r, nil
}
