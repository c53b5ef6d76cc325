// Package guest watches what runs inside guests: it scrapes their own exporters, probes services, and finds out whose guest they are. It
// watches machines that are no guests yet in the same way.
// It promises that a slow or hostile target costs only its own services, and that no VM is guessed: see DESIGN.md.
// It must not import rules, remediation, store, web, app or a platform but WS-Management, by which a Windows guest is asked.
package guest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/url"
	"slices"
	"sync"
	"time"

	promconfig "github.com/prometheus/common/config"

	"github.com/protip/protip/collector"
	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/platform/winrm"
)

// Platform is the platform of a source of guests, in inventory.Source.
const Platform = "guest"

const (
	defaultInterval = 20 * time.Second
	defaultTimeout  = 5 * time.Second
	fastLane        = 64 // looks at a time, of targets that answer at once
	slowLane        = 32 // of those that did not the last time: they wait for one another, and nobody for them
)

// Target is an endpoint that tells of a guest in Prometheus' text format.
type Target struct {
	Name string // default: host and port of the URL
	URL  string
	VM   string // source/name or source/id; empty: to be found out
}

// WindowsHost is a guest that is asked by WS-Management what its services are.
type WindowsHost struct {
	Name string // default: host and port
	VM   string
	Host winrm.Options // its Observe, MaxConnections and OperationTimeout are set by New
}

// Probe is a question whose answer is a service.
type Probe struct {
	Name string
	HTTP string // a URL; this, or
	TCP  string // host:port
	VM   string
}

// Options say what is watched, and how.
type Options struct {
	Name     string // of the source; part of every service's identity
	Targets  []Target
	Windows  []WindowsHost
	Probes   []Probe
	Services []Mapping
	Machines bool                        // the targets are of physical machines: each makes one, and no services
	HTTP     promconfig.HTTPClientConfig // for targets; probes share its TLS settings, and are sent no credentials
	Interval time.Duration               // between looks at each target; default 20 s
	Timeout  time.Duration               // of one look, in real time; default 5 s
	// Snapshot is the fleet that the guests' VMs are looked for in. It is asked at every look.
	Snapshot func() *inventory.Snapshot
	Clock    *clock.Clock
	Observer collector.Observer
	Metrics  *Metrics // may be nil
}

// Source follows a list of guests. All that a look needs to know of the one before is in its subjects, each of which is touched by
// one goroutine at a time; they outlive a Watch.
type Source struct {
	opts     Options
	subjects []*subject
	index    *indexer
	fast     chan struct{}
	slow     chan struct{}
}

var _ collector.Source = (*Source)(nil)

// New checks the options. It connects to nothing.
func New(opts Options) (*Source, error) {
	if opts.Interval <= 0 {
		opts.Interval = defaultInterval
	}
	if opts.Timeout <= 0 {
		opts.Timeout = defaultTimeout
	}
	if opts.Snapshot == nil {
		empty := inventory.NewFleet().Snapshot()
		opts.Snapshot = func() *inventory.Snapshot { return empty }
	}
	s := &Source{
		opts: opts, index: &indexer{snapshot: opts.Snapshot},
		fast: make(chan struct{}, fastLane), slow: make(chan struct{}, slowLane),
	}
	if err := s.addSubjects(); err != nil {
		return nil, fmt.Errorf("source %q: %w", opts.Name, err)
	}
	return s, nil
}

func (s *Source) addSubjects() error {
	mappings, err := compile(s.opts.Services)
	if err != nil {
		return err
	}
	scraper, err := newScraper(s.opts.HTTP, mappings, s.opts.Machines)
	if err != nil {
		return err
	}
	prober, err := newProber(s.opts.HTTP.TLSConfig)
	if err != nil {
		return err
	}
	for _, t := range s.opts.Targets {
		if t.Name == "" {
			u, err := url.Parse(t.URL)
			if err != nil {
				return errors.New("a target's url cannot be read")
			}
			t.Name = u.Host
		}
		ask, machine := scraper.scrape, (*inventory.Machine)(nil)
		if s.opts.Machines {
			ask = scraper.machine
			machine = &inventory.Machine{ID: inventory.ID{Source: s.opts.Name, Kind: inventory.KindMachine, Ref: t.Name}, Name: t.Name}
		}
		s.subjects = append(s.subjects, &subject{
			source: s.opts.Name, name: t.Name, explicit: t.VM, kind: "target", known: map[string]entry{}, machine: machine,
			ask: func(ctx context.Context, past *past) answer { return ask(ctx, t.URL, past) },
		})
	}
	for _, h := range s.opts.Windows {
		subj, err := s.windowsSubject(h, mappings)
		if err != nil {
			return err
		}
		s.subjects = append(s.subjects, subj)
	}
	for _, p := range s.opts.Probes {
		subj := &subject{
			source: s.opts.Name, name: p.Name, explicit: p.VM, kind: "probe", known: map[string]entry{},
			ask: func(ctx context.Context, _ *past) answer { return prober.probe(ctx, p) },
		}
		svc := subj.service(reading{name: p.Name, typ: p.Type()})
		subj.known[svc.ID.Ref] = entry{service: svc}
		s.subjects = append(s.subjects, subj)
	}
	return nil
}

// Watch implements collector.Source. It ends with ctx, or by a panic of ours: no target is the platform, and the others go on without
// it. It is in sync when every target and probe was asked once, or an interval has passed.
func (s *Source) Watch(ctx context.Context, emit func(inventory.Delta)) error {
	emit(s.begin())
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all, first sync.WaitGroup
	for i, subj := range s.subjects {
		first.Add(1)
		all.Go(func() {
			err := collector.Contain(func() error { s.follow(ctx, subj, s.phase(i), emit, sync.OnceFunc(first.Done)); return nil })
			if err != nil {
				cancel(err)
			}
		})
	}
	asked := make(chan struct{})
	go func() { first.Wait(); close(asked) }()
	late := time.NewTimer(s.opts.Clock.Real(s.opts.Interval))
	defer late.Stop()
	select {
	case <-asked:
	case <-late.C:
	case <-ctx.Done():
	}
	if ctx.Err() == nil {
		emit(inventory.Delta{Source: s.opts.Name, Synced: true})
	}
	all.Wait()
	<-asked
	s.hangUp()
	return context.Cause(ctx)
}

// hangUp ends what is kept open between looks.
func (s *Source) hangUp() {
	for _, subj := range s.subjects {
		if subj.hangUp != nil {
			subj.hangUp()
		}
	}
}

// begin announces what an earlier Watch knew, in a state that nobody knows now.
func (s *Source) begin() inventory.Delta {
	d := inventory.Delta{Source: s.opts.Name, Begin: true}
	for _, subj := range s.subjects {
		for ref, e := range subj.known {
			e.service.State = ""
			subj.known[ref] = e
			d.Services = append(d.Services, e.service)
		}
		if subj.machine != nil {
			d.Machines = append(d.Machines, *subj.machine)
		}
	}
	return d
}

// phase is when in the interval a subject's second look is: all at once would be a burst, here and on the network.
func (s *Source) phase(i int) time.Duration {
	return s.opts.Interval/2 + s.opts.Interval/2*time.Duration(i)/time.Duration(len(s.subjects))
}

// follow looks at one subject at each interval until ctx is done. done is called after the first look.
func (s *Source) follow(ctx context.Context, subj *subject, next time.Duration, emit func(inventory.Delta), done func()) {
	defer done()
	for {
		began := s.opts.Clock.Now()
		d, ok := s.look(ctx, subj)
		if !ok {
			return
		}
		emit(d)
		done()
		pause := max(next-s.opts.Clock.Now().Sub(began), s.opts.Interval/10)
		if s.opts.Clock.Sleep(ctx, pause) != nil {
			return
		}
		next = s.opts.Interval
	}
}

// look asks one subject once and says what that changed; false if ctx is done. A panic over what a target sent is that target's
// failure.
func (s *Source) look(ctx context.Context, subj *subject) (inventory.Delta, bool) {
	in := s.fast
	if subj.slow {
		in = s.slow
	}
	select {
	case in <- struct{}{}:
	case <-ctx.Done():
		return inventory.Delta{}, false
	}
	ans := s.ask(ctx, subj)
	<-in
	if ctx.Err() != nil {
		return inventory.Delta{}, false
	}
	if call, one := map[string]string{"target": "scrape", "probe": "probe"}[subj.kind]; one { // Windows hosts are sent several
		s.opts.Observer.Call(call)
	}
	for _, err := range ans.missing {
		s.opts.Observer.Fault("class", fmt.Errorf("%s: %w", subj.name, err))
	}
	if ans.err != nil {
		s.opts.Observer.Fault(subj.kind, fmt.Errorf("%s: %w", subj.name, ans.err))
	}
	if ans.dropped > 0 {
		s.opts.Observer.Fault("services", fmt.Errorf("%s: %d services are left out: more than %d, or names longer than %d bytes",
			subj.name, ans.dropped, maxServices, maxName))
	}
	if ans.err == nil {
		subj.evidence = ans.evidence
	}
	was := subj.joined
	subj.joined = s.index.join(subj.explicit, subj.evidence)
	if subj.joined.err != nil {
		s.opts.Observer.Fault("join", fmt.Errorf("%s: %w", subj.name, subj.joined.err))
	}
	s.opts.Metrics.looked(s.opts.Name, subj, was.how, ans.err == nil)
	return subj.take(ans, s.opts.Clock.Now()), true
}

// ask asks in bounded time, and remembers whether that took long.
func (s *Source) ask(ctx context.Context, subj *subject) (ans answer) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	subj.past.forget(s.opts.Clock.Now(), 3*s.opts.Interval)
	began := time.Now()
	if err := collector.Contain(func() error { ans = subj.ask(ctx, &subj.past); return nil }); err != nil {
		ans = answer{err: err}
		subj.past = past{}
	}
	subj.slow = time.Since(began) > s.opts.Timeout/2
	if errors.Is(ans.err, context.DeadlineExceeded) {
		ans.err = fmt.Errorf("no answer within %s", s.opts.Timeout)
	}
	return ans
}

// subject is one target or probe.
type subject struct {
	source   string
	name     string
	explicit string
	kind     string // target | windows | probe
	ask      func(context.Context, *past) answer
	hangUp   func() // ends what ask keeps open; may be nil

	known    map[string]entry   // by ref
	machine  *inventory.Machine // that it is; nil if it tells of services
	past     past
	evidence evidence // of the last answer
	joined   joined
	slow     bool
}

// entry is a service that was announced, and the mappings that knew of it.
type entry struct {
	service inventory.Service
	from    []int
}

// answer is what one look found.
type answer struct {
	readings []reading
	exposed  []bool             // by mapping: whether the answer had its series at all
	machine  *inventory.Machine // without its name, and what was measured of it
	values   []inventory.Value
	evidence evidence
	dropped  int
	missing  []error // classes that this Windows does not have
	err      error
}

// take makes a delta of an answer.
//
// A target that does not answer says nothing of its services: they stay, in a state that nobody knows, and their samples grow
// old. So does a service whose exporter answers without the whole family that told of it. One that is not in a family that is
// there is gone. A probe that is not answered is an answer: its reading says failed.
func (s *subject) take(ans answer, now time.Time) inventory.Delta {
	if s.machine != nil {
		return s.tell(ans, now.UnixMilli())
	}
	d := inventory.Delta{Source: s.source}
	next := map[string]entry{}
	for _, r := range ans.readings {
		svc := s.service(r)
		next[svc.ID.Ref] = entry{svc, r.from}
		if r.measured && !math.IsInf(r.latency, 0) && r.latency >= 0 {
			d.Samples = append(d.Samples, inventory.SampleSet{
				ID: svc.ID, At: now.UnixMilli(), Values: []inventory.Value{{Metric: inventory.ServiceLatency, Value: r.latency}},
			})
		}
	}
	for ref, e := range s.known {
		if _, seen := next[ref]; seen {
			continue
		}
		unseen := func(mapping int) bool { return !ans.exposed[mapping] }
		if ans.err != nil || slices.ContainsFunc(e.from, unseen) {
			e.service.State, e.service.VM = "", s.joined.vm
			next[ref] = e
		} else {
			d.Removed = append(d.Removed, e.service.ID)
		}
	}
	for _, ref := range slices.Sorted(maps.Keys(next)) {
		d.Services = append(d.Services, next[ref].service)
	}
	s.known = next
	return d
}

// service is what a reading tells of, whose guest the subject is now. Its ref stays the same: target, how it is seen, and name.
func (s *subject) service(r reading) inventory.Service {
	id := inventory.ID{Source: s.source, Kind: inventory.KindService, Ref: s.name + "/" + r.typ + "/" + r.name}
	return inventory.Service{ID: id, Name: r.name, VM: s.joined.vm, Type: r.typ, State: r.state}
}
