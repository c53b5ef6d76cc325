package build

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	promconfig "github.com/prometheus/common/config"

	"github.com/protip/protip/collector"
	"github.com/protip/protip/collector/guest"
	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/config"
	"github.com/protip/protip/internal/inventory"
)

// listing is how long the other sources may take to tell their VMs when guests are checked.
const listing = 30 * time.Second

// guests is how a source of guests or of machines is watched.
func guests(src config.Source, opts Options, observer collector.Observer) (guest.Options, error) {
	o := guest.Options{
		Name:     src.Name,
		HTTP:     promconfig.HTTPClientConfig{TLSConfig: src.TLS, BearerTokenFile: src.BearerTokenFile},
		Interval: src.Interval,
		Timeout:  src.Timeout,
		Snapshot: opts.Snapshot,
		Clock:    opts.Clock,
		Observer: observer,
		Metrics:  opts.guests,
		Machines: src.Type == config.Machines,
	}
	names := make([]string, len(src.Windows))
	for i, w := range src.Windows {
		names[i] = w.Host
	}
	hosts, err := windowsHosts(src, src.Credential, names)
	if err != nil {
		return o, err
	}
	for i, w := range src.Windows {
		o.Windows = append(o.Windows, guest.WindowsHost{Name: w.Name, VM: w.VM, Host: hosts[i]})
	}
	if len(src.Windows) == 0 && (src.PasswordFile != "" || src.PasswordEnv != "") { // it is no target's
		o.HTTP.BasicAuth = &promconfig.BasicAuth{Username: src.User(), PasswordFile: src.PasswordFile}
		if src.PasswordEnv != "" {
			o.HTTP.BasicAuth.Password = promconfig.Secret(os.Getenv(src.PasswordEnv))
		}
	}
	for _, t := range src.Targets {
		o.Targets = append(o.Targets, guest.Target(t))
	}
	for _, p := range src.Probes {
		o.Probes = append(o.Probes, guest.Probe(p))
	}
	for _, m := range src.Services {
		o.Services = append(o.Services, guest.Mapping(m))
	}
	return o, nil
}

// checkGuests asks every target and probe once, and looks for their VMs in what the other sources tell.
func checkGuests(ctx context.Context, cfg *config.Config, src config.Source) (collector.Report, error) {
	fleet, missing, err := list(ctx, cfg)
	if err != nil {
		return collector.Report{}, err
	}
	how, err := guests(src, Options{Clock: clock.New(1), Snapshot: fleet.Snapshot}, nil)
	if err != nil {
		return collector.Report{}, err
	}
	r, err := guest.Check(ctx, how)
	r.Notes = append(r.Notes, missing...)
	return r, err
}

// list watches every source that has VMs until it has listed them or failed, and says of which there is no list.
func list(ctx context.Context, cfg *config.Config) (fleet *inventory.Fleet, missing []string, err error) {
	others := *cfg
	others.Sources = slices.DeleteFunc(slices.Clone(cfg.Sources), func(s config.Source) bool { return s.Type == config.Guest || s.Type == config.Machines })
	clk, log := clock.New(1), slog.New(slog.DiscardHandler)
	built, err := Sources(&others, Options{Clock: clk, Log: log, Registerer: prometheus.NewRegistry()})
	if err != nil {
		return nil, nil, err
	}
	infos := make([]inventory.Source, len(built))
	for i, b := range built {
		infos[i] = b.Info
	}
	fleet = inventory.NewFleet(infos...)
	ctx, cancel := context.WithTimeout(ctx, listing)
	defer cancel()
	told := make(chan struct{}, 1)
	sink := telling{collector.FleetSink(fleet, clk, log, nil), told}
	var watching sync.WaitGroup
	for _, b := range built {
		watching.Go(func() { b.Run(ctx, sink) })
	}
	for waiting := true; waiting && ctx.Err() == nil; {
		waiting = slices.ContainsFunc(fleet.Snapshot().Sources(), func(s inventory.Source) bool { return !s.Synced && s.Error == "" })
		if !waiting {
			break
		}
		select {
		case <-told:
		case <-ctx.Done():
		}
	}
	cancel()
	watching.Wait() // they log out
	for _, s := range fleet.Snapshot().Sources() {
		if !s.Synced {
			missing = append(missing, fmt.Sprintf("source %s tells no VMs: %s", s.Name, reason(s)))
		}
	}
	return fleet, missing, nil
}

func reason(s inventory.Source) string {
	if s.Error != "" {
		return s.Error
	}
	return "it took too long"
}

// telling is a Sink that tells when there is something new.
type telling struct {
	collector.Sink
	told chan<- struct{}
}

func (t telling) Apply(d inventory.Delta) { t.Sink.Apply(d); t.tell() }

func (t telling) Down(source string, err error) { t.Sink.Down(source, err); t.tell() }

func (t telling) tell() {
	select {
	case t.told <- struct{}{}:
	default:
	}
}
