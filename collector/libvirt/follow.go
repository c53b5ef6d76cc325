package libvirt

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/protip/protip/collector"
	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/libvirt"
)

// keep follows a host, again and again, until ctx is done.
//
//	connect -> list -> followed -> lost -> wait -> connect ...
//	   |         |                           ^
//	   +---------+------ failed -------------+
func (w *watch) keep(ctx context.Context, h *host) error {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = time.Second, time.Minute
	for {
		followed, err := w.follow(ctx, h)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		w.change(func(c *cluster) { c.lose(h) })
		w.opts.Observer.Fault("host", err)
		w.settled(h, err)
		if followed {
			wait.Reset()
		}
		if err := w.opts.Clock.Sleep(ctx, wait.NextBackOff()); err != nil {
			return err
		}
	}
}

// follower follows a host on one connection.
type follower struct {
	*watch
	*host
	conn   *platform.Conn
	memory float64 // the host's, bytes
}

// follow connects, takes all that the host has, then its changes and samples until something ends it. All it started has ended when it
// returns. followed says whether it came so far.
func (w *watch) follow(ctx context.Context, h *host) (followed bool, err error) {
	conn, err := platform.Dial(ctx, h.opts)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	f := &follower{watch: w, host: h, conn: conn}
	if err := f.list(ctx); err != nil {
		return false, err
	}
	w.settled(h, nil)

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	start := func(run func(context.Context) error) {
		wg.Go(func() {
			if err := collector.Contain(func() error { return run(ctx) }); err != nil {
				cancel(err)
			}
		})
	}
	start(f.events)
	start(f.samples)
	start(f.guests)
	start(f.networks)
	wg.Wait()
	return true, context.Cause(ctx)
}

// list asks for all there is. Events that come meanwhile wait in the connection.
func (f *follower) list(ctx context.Context) error {
	facts, err := identify(ctx, f.conn, f.watch.opts.Name)
	if err != nil {
		return err
	}
	if err := f.conn.Subscribe(ctx); err != nil {
		return err
	}
	found, err := f.ask(ctx)
	if err != nil {
		return err
	}
	wired, err := f.reach(ctx)
	if err != nil {
		return err
	}
	f.memory = facts.MemoryBytes
	all := make([]*stats, len(found.domains))
	for i := range found.domains {
		all[i] = &found.domains[i]
	}
	described, err := f.describeAll(ctx, all)
	if err != nil {
		return err
	}
	views := make(map[platform.UUID]*view, len(described))
	for _, v := range described {
		views[v.dom.UUID] = v
	}
	f.change(func(c *cluster) {
		f.host.wired = wired
		err = c.install(f.host, *facts, views)
	})
	return err
}

// describe reads a domain's description. One that cannot be read is a fault, and costs only its facts.
func (f *follower) describe(ctx context.Context, dom platform.Domain) (*facts, error) {
	text, err := f.conn.DomainXML(ctx, dom)
	if platform.IsGone(err) {
		return nil, err
	}
	if err == nil {
		var facts *facts
		if facts, err = parseDescription(text); err == nil {
			return facts, nil
		}
	}
	return nil, f.survive("description", fmt.Errorf("VM %s: %w", dom.Name, err))
}

// identify asks a host what it is.
func identify(ctx context.Context, conn *platform.Conn, source string) (*inventory.Host, error) {
	text, err := conn.Capabilities(ctx)
	if err != nil {
		return nil, err
	}
	caps, err := parseCapabilities(text)
	if err != nil {
		return nil, err
	}
	name, err := conn.Hostname(ctx)
	if err != nil {
		return nil, err
	}
	node, err := conn.NodeInfo(ctx)
	if err != nil {
		return nil, err
	}
	driver, err := conn.Driver(ctx)
	if err != nil {
		return nil, err
	}
	version, err := conn.Version(ctx)
	if err != nil {
		return nil, err
	}
	if node.CPUs < 1 || node.MemoryKiB == 0 {
		return nil, fmt.Errorf("libvirt %s: a host with %d CPUs and %d KiB of memory", conn.Name(), node.CPUs, node.MemoryKiB)
	}
	ref := caps.UUID
	if ref == "" {
		ref = conn.Name() // drivers of no real machine have no UUID
	}
	return &inventory.Host{
		ID:   inventory.ID{Source: source, Kind: inventory.KindHost, Ref: ref},
		Name: name, Cluster: inventory.ID{Source: source, Kind: inventory.KindCluster, Ref: source}, UUID: caps.UUID,
		Connection: inventory.Connected, Power: inventory.PowerOn,
		Cores: node.CPUs, CPUHertz: float64(node.CPUs) * coreHertz(&caps, node.MHz), MemoryBytes: float64(node.MemoryKiB) * 1024,
		Model: node.Model, CPUModel: caps.CPU.Model, Version: driver + ", libvirt " + version,
	}, nil
}

// nominal is the speed of a core whose host does not tell: usage in hertz is then only a share of it.
const nominal = 1e9

// coreHertz is the speed of a core: that of its time stamp counter, which stays, else what the kernel said when it was asked.
func coreHertz(caps *capabilities, mhz int) float64 {
	for _, c := range caps.CPU.Counters {
		if c.Name == "tsc" && c.Frequency > 0 && !math.IsInf(c.Frequency, 0) {
			return c.Frequency
		}
	}
	if mhz > 0 {
		return float64(mhz) * 1e6
	}
	return nominal
}

// events looks at domains that libvirt says something of. What an event says is only where to look, so that it does not matter which of two
// events is older than an answer.
func (f *follower) events(ctx context.Context) error {
	for {
		select {
		case e := <-f.conn.Events():
			if err := f.look(ctx, e); err != nil {
				return err
			}
		case <-f.conn.Done():
			return fmt.Errorf("libvirt %s: %w", f.conn.Name(), f.conn.Err())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// look asks how a domain is now.
func (f *follower) look(ctx context.Context, e platform.Event) error {
	state, reason, err := f.conn.DomainState(ctx, e.Domain)
	var facts *facts
	if err == nil && f.describes(e) {
		facts, err = f.describe(ctx, e.Domain)
	}
	if platform.IsGone(err) {
		patience := endedFor
		if e.Type == platform.Stopped && e.Detail == platform.StoppedMigrated {
			patience = missingFor
		}
		f.change(func(c *cluster) { c.forget(f.host, e.Domain.UUID, patience) })
		return nil
	}
	if err != nil {
		return f.survive("event", err)
	}
	if state == platform.DomainShutoff || state == platform.DomainCrashed {
		e.Domain.ID = -1
	}
	f.change(func(c *cluster) {
		c.saw(f.host, view{dom: e.Domain, state: state, reason: reason, facts: facts})
	})
	return nil
}

// describes says whether an event may have changed a domain's description, or tells of one that was never read.
func (f *follower) describes(e platform.Event) bool {
	switch e.Type {
	case platform.Defined, platform.Undefined, platform.Started, platform.AgentChanged:
		return true
	}
	c := f.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	v := f.views[e.Domain.UUID]
	return v == nil || v.facts == nil
}

// survive makes a fault of an error that the connection outlived.
func (f *follower) survive(kind string, err error) error {
	if f.conn.Err() != nil {
		return err
	}
	f.watch.opts.Observer.Fault(kind, err)
	return nil
}
