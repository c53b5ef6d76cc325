package vsphere

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/collector"
	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/vsphere"
)

const (
	perfConcurrency = 2
	// perfRetries bounds the calls that one cycle repeats with fewer VMs.
	perfRetries = 8
	// perfGiveUp is how many failed calls without a good one end a cycle.
	perfGiveUp = 4
	// regrow is after how many cycles without an overload a batch that was halved is tried twice as large.
	regrow = 30
)

// perf is what one connection knows of the vCenter's counters.
type perf struct {
	*follower
	vms, hosts counted
	resolved   bool
	limit      int           // config.vpxd.stats.maxQueryMetrics, 0 if there is none
	phase      time.Duration // after a multiple of the interval, when samples are asked for
}

func newPerf(f *follower) *perf {
	return &perf{
		follower: f, phase: f.opts.Interval / 4,
		vms:   wanted(typeVM, vmCounters[:], &f.opts.Collect),
		hosts: wanted(typeHost, hostCounters[:], &f.opts.Collect),
	}
}

// samplePerf asks for counters at each interval, just after the vCenter's hosts have made new ones.
func (f *follower) samplePerf(ctx context.Context) error {
	p := newPerf(f)
	if len(p.vms.counters)+len(p.hosts.counters) == 0 {
		return nil
	}
	var skew time.Duration
	next := func(started time.Time) time.Duration {
		return untilNextSample(started.Add(-skew), f.opts.Interval, p.phase)
	}
	return f.each(ctx, "perf", next, func(ctx context.Context) (err error) {
		if !p.resolved {
			if err := p.resolve(ctx); err != nil {
				return err
			}
		}
		if skew, err = f.conn.Skew(ctx, f.opts.Clock.Now); err != nil {
			return err
		}
		return p.cycle(ctx, skew)
	})
}

// untilNextSample is how long after vcenter (a vCenter's time) to ask again: phase after a whole multiple of the interval,
// where realtime samples end. Asked for young, a sample is replaced well before it is stale.
func untilNextSample(vcenter time.Time, interval, phase time.Duration) time.Duration {
	next := vcenter.Truncate(interval).Add(phase)
	for next.Sub(vcenter) < interval/4 {
		next = next.Add(interval)
	}
	return next.Sub(vcenter)
}

// learnPhase asks later from now on if the newest sample was not the one that had just ended: hosts take their time.
func (p *perf) learnPhase(newest, asked time.Time) {
	if asked.Sub(newest) >= max(p.opts.Interval, realtime*time.Second) {
		p.phase = min(p.phase+p.opts.Interval/4, p.opts.Interval*3/4)
	}
}

// resolve learns which counters the vCenter has, and what it allows.
func (p *perf) resolve(ctx context.Context) error {
	ids, err := p.counterIDs(ctx)
	if err != nil {
		return err
	}
	p.vms.resolve(ids)
	p.hosts.resolve(ids)
	if len(p.vms.ids)+len(p.hosts.ids) == 0 {
		return errors.New("vcenter has none of the counters that are sampled")
	}
	p.limit, p.resolved = p.maxQueryMetrics(ctx), true
	return nil
}

// counterIDs are the ids of the vCenter's counters, by name.
func (f *follower) counterIDs(ctx context.Context) (map[string]int32, error) {
	ref := f.conn.ServiceContent.PerfManager
	if ref == nil {
		return nil, errors.New("vcenter has no performance manager")
	}
	props, err := f.conn.Properties(ctx, *ref, "perfCounter")
	if err != nil {
		return nil, err
	}
	infos, _ := platform.Get[types.ArrayOfPerfCounterInfo](props, "perfCounter")
	ids := make(map[string]int32, len(infos.PerfCounterInfo))
	for i := range infos.PerfCounterInfo {
		c := &infos.PerfCounterInfo[i]
		if c.GroupInfo == nil || c.NameInfo == nil {
			continue
		}
		if _, twice := ids[c.Name()]; !twice {
			ids[c.Name()] = c.Key
		}
	}
	return ids, nil
}

// resolve takes the counters' ids, by name.
func (c *counted) resolve(ids map[string]int32) {
	c.ids, c.place = nil, make([]int, len(c.counters))
	for i := range c.counters {
		c.place[i] = -1
		if id, ok := ids[c.counters[i].name]; ok {
			c.place[i] = len(c.ids)
			c.ids = append(c.ids, id)
		}
	}
}

// maxQueryMetrics is how many metrics the vCenter's administrator allows in one query: 0 if it does not say, or has no limit.
// It binds queries of the database and mostly not realtime ones; only a query that is refused for it is cut to it.
func (f *follower) maxQueryMetrics(ctx context.Context) int {
	if f.conn.ServiceContent.Setting == nil {
		return 0
	}
	res, err := methods.QueryOptions(ctx, f.conn, &types.QueryOptions{
		This: *f.conn.ServiceContent.Setting, Name: "config.vpxd.stats.maxQueryMetrics",
	})
	if err != nil {
		return 0 // the setting is missing where nobody has set it
	}
	for _, o := range res.Returnval {
		if n, err := strconv.Atoi(fmt.Sprint(o.GetOptionValue().Value)); err == nil {
			return max(n, 0) // -1 is no limit
		}
	}
	return 0
}

// cycle asks for the counters of all VMs that run and of their hosts and emits what is new.
func (p *perf) cycle(ctx context.Context, skew time.Duration) error {
	start := p.opts.Clock.Now()
	p.mu.Lock()
	vms, hosts := p.totals.asks(p.tree, start), p.totals.hostAsks(p.tree, start)
	p.mu.Unlock()
	answers, err := p.query(ctx, vms, hosts)
	defer func() {
		for _, a := range answers {
			a.release()
		}
	}()
	if ctx.Err() != nil || platform.IsNotAuthenticated(err) {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	samples := p.samples(answers, skew)
	if newest := newestOf(answers); !newest.IsZero() {
		p.learnPhase(newest.Add(skew), start)
	}
	if len(samples) > 0 {
		p.emit(inventory.Delta{Source: p.opts.Name, Samples: samples})
	}
	return err
}

// newestOf is the vCenter's time of the newest sample, zero if there is none.
func newestOf(answers []*answer) time.Time {
	var newest time.Time
	for _, a := range answers {
		for _, t := range a.times {
			if t.After(newest) {
				newest = t
			}
		}
	}
	return newest
}

// query asks in batches. It returns what was answered, and the first error that cost samples.
func (p *perf) query(ctx context.Context, vms, hosts []ask) ([]*answer, error) {
	// A vCenter that takes the full time for each of 200 calls must not hold up the cycle for an hour.
	ctx, cancel := context.WithTimeout(ctx, max(p.opts.Clock.Real(2*p.opts.Interval), time.Minute))
	defer cancel()
	q := &perfQuery{perf: p}
	var g errgroup.Group
	g.SetLimit(perfConcurrency)
	start := func(of *counted, asks []ask) {
		if len(of.ids) == 0 {
			return
		}
		for batch := range slices.Chunk(asks, p.batch.size()) {
			g.Go(func() error {
				return collector.Contain(func() error { return q.ask(ctx, of, batch) })
			})
		}
	}
	start(&p.hosts, hosts)
	start(&p.vms, vms)
	err := g.Wait()
	if err == nil && q.failed > 0 {
		err = fmt.Errorf("counters of %d of %d VMs and hosts not answered: %w", q.lost, len(vms)+len(hosts), q.first)
	}
	if !q.overload {
		p.batch.calm()
	}
	return q.answers, err
}

// perfQuery is one cycle's asking.
type perfQuery struct {
	*perf
	mu       sync.Mutex
	answers  []*answer
	good     int
	failed   int // calls
	lost     int // VMs and hosts
	retries  int
	overload bool
	first    error
}

// ask asks for the objects in calls of the batch's size. What the vCenter cannot answer is asked again for less: without what
// is gone, in smaller batches after an overload, by halves if something else is wrong with one of them. Only what ends
// the whole cycle is returned as an error.
func (q *perfQuery) ask(ctx context.Context, of *counted, asks []ask) error {
	if size := q.batch.size(); len(asks) > size {
		for batch := range slices.Chunk(asks, size) {
			if err := q.ask(ctx, of, batch); err != nil {
				return err
			}
		}
		return nil
	}
	if len(asks) == 0 || !q.worthwhile(asks) {
		return nil
	}
	answer, err := queryPerf(ctx, q.conn, of, asks)
	if err == nil {
		q.gain(answer)
		return nil
	}
	if platform.IsNotAuthenticated(err) || errors.Is(err, context.Canceled) {
		return err
	}
	if ref, ok := platform.Gone(err); ok {
		rest := slices.DeleteFunc(slices.Clone(asks), func(a ask) bool { return a.ref == ref.Value })
		if len(rest) < len(asks) && q.again() {
			return q.ask(ctx, of, rest)
		}
	}
	if platform.IsOverload(err) {
		q.overloaded(len(asks), len(of.ids), err)
		// What took too long is not tried again before the next cycle.
		if len(asks) > 1 && !platform.IsTimeout(err) && q.again() {
			return q.ask(ctx, of, asks)
		}
	} else if len(asks) > 1 && q.again() {
		half := len(asks) / 2
		if err := q.ask(ctx, of, asks[:half]); err != nil {
			return err
		}
		return q.ask(ctx, of, asks[half:])
	}
	q.lose(asks, err)
	return nil
}

// worthwhile reports whether to ask at all: not once nothing but failures came.
func (q *perfQuery) worthwhile(asks []ask) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.good > 0 || q.failed < perfGiveUp {
		return true
	}
	q.lost += len(asks)
	return false
}

// overloaded makes the batches smaller than the n objects that were too many, each with so many counters.
func (q *perfQuery) overloaded(n, counters int, err error) {
	q.mu.Lock()
	q.overload = true
	q.mu.Unlock()
	q.batch.halve(n)
	if platform.IsRestricted(err) && q.limit > 0 {
		q.batch.cap(q.limit / counters)
	}
}

func (q *perfQuery) gain(a *answer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.good++
	q.answers = append(q.answers, a)
}

// again reports whether a call that failed may be made again for less.
func (q *perfQuery) again() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.retries++
	return q.retries <= perfRetries
}

// lose notes VMs that were not answered for.
func (q *perfQuery) lose(asks []ask, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.failed++
	q.lost += len(asks)
	if q.first == nil {
		q.first = err
	}
}

// batchSize is how many VMs are asked for in one call: fewer after an overload, more again after a calm while.
type batchSize struct {
	mu         sync.Mutex
	now, limit int
	calmCycles int
}

func newBatchSize(n int) *batchSize { return &batchSize{now: n, limit: n} }

func (b *batchSize) size() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

// halve makes batches half as large as one that failed.
func (b *batchSize) halve(failed int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now, b.calmCycles = max(min(b.now, failed/2), 1), 0
}

// cap makes n the largest batch for good: the vCenter said so.
func (b *batchSize) cap(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.limit = max(min(b.limit, n), 1)
	b.now = min(b.now, b.limit)
}

func (b *batchSize) calm() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.calmCycles++; b.calmCycles >= regrow {
		b.now, b.calmCycles = min(2*b.now, b.limit), 0
	}
}
