package vsphere

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	promconfig "github.com/prometheus/common/config"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	platform "github.com/protip/protip/internal/platform/vsphere"
	"github.com/protip/protip/internal/sim"
	"github.com/protip/protip/internal/sim/load"
)

// callCounter is an Observer that counts calls.
type callCounter struct{ calls atomic.Int64 }

func (c *callCounter) Call(string)         { c.calls.Add(1) }
func (*callCounter) Fault(string, error)   {}
func (*callCounter) Cycle(string, float64) {}

// BenchmarkWatch times the parts of a watch against a simulated vCenter in the same process, whose own work counts too.
func BenchmarkWatch(b *testing.B) {
	for _, vms := range []int{1000, 10_000} {
		vc, err := sim.StartVCenter(sim.Config{
			Clusters: sim.Uniform(vms/10, vms), Load: load.Steady(load.Use{CPU: 0.4, MemoryActive: 0.2, MemoryConsumed: 0.5}),
		})
		if err != nil {
			b.Fatal(err)
		}
		password, _ := vc.Login().User.Password()
		calls := &callCounter{}
		src, err := New(Options{Name: "vc", Clock: clock.New(1), Observer: calls, Session: platform.Options{
			URL: vc.URL().String(), Username: vc.Login().User.Username(), Password: func() (string, error) { return password, nil },
			TLS: promconfig.TLSConfig{CA: string(vc.CAPEM())},
		}})
		if err != nil {
			b.Fatal(err)
		}
		ctx := b.Context()
		for _, part := range []struct {
			name string
			run  func(f *follower, view types.ManagedObjectReference) func() error
		}{
			{"list", func(f *follower, view types.ManagedObjectReference) func() error {
				return func() error { _, err := f.list(ctx, view); return err }
			}},
			{"usage", func(f *follower, view types.ManagedObjectReference) func() error {
				listAll(b, f, view)
				return func() error { return f.usageCycle(ctx, view) }
			}},
			{"perf", func(f *follower, view types.ManagedObjectReference) func() error {
				listAll(b, f, view)
				p := &perf{follower: f}
				if err := p.resolve(ctx); err != nil {
					b.Fatal(err)
				}
				return func() error { return p.cycle(ctx, 0) }
			}},
		} {
			b.Run(fmt.Sprintf("%s/vms=%d", part.name, vms), func(b *testing.B) {
				for range b.N {
					b.StopTimer()
					benchOnce(b, ctx, src, calls, part.run)
				}
				b.ReportMetric(float64(calls.calls.Load()), "calls")
			})
		}
		vc.Close()
	}
}

// benchOnce times what prepare returns, on a session of its own. The timer is stopped before and after.
func benchOnce(b *testing.B, ctx context.Context, src *Source, calls *callCounter, prepare func(*follower, types.ManagedObjectReference) func() error) {
	session, err := platform.New(src.opts.Session)
	if err != nil {
		b.Fatal(err)
	}
	defer session.Close()
	conn, err := session.Login(ctx)
	if err != nil {
		b.Fatal(err)
	}
	f := newFollower(src, conn, func(inventory.Delta) {})
	view, err := createView(ctx, conn)
	if err != nil {
		b.Fatal(err)
	}
	run := prepare(f, view)
	calls.calls.Store(0)
	b.StartTimer()
	err = run()
	b.StopTimer()
	if err != nil {
		b.Fatal(err)
	}
}

func listAll(b *testing.B, f *follower, view types.ManagedObjectReference) {
	if _, err := f.list(b.Context(), view); err != nil {
		b.Fatal(err)
	}
}
