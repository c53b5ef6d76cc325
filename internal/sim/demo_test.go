package sim

import (
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/clock"
)

// traces are the measured loads at hand: the file that PROTIP_TRACE names, those beside the checkout, else one made in their format.
func traces(t *testing.T) []string {
	t.Helper()
	if path := os.Getenv("PROTIP_TRACE"); path != "" {
		return []string{path}
	}
	if found, _ := filepath.Glob("../../../shared/traces/*.csv.gz"); len(found) > 0 {
		return found
	}
	return []string{madeTrace(t)}
}

// madeTrace is a day of 500 VMs, most of them nearly idle and a few busy, as measured fleets are.
func madeTrace(t *testing.T) string {
	t.Helper()
	rnd := rand.New(rand.NewPCG(7, 7))
	const vms, rows = 500, 288
	names, level := make([]string, vms), make([]float64, vms)
	for i := range names {
		names[i] = fmt.Sprintf("vm%04d", i+1)
		level[i] = 80 * rnd.Float64() * rnd.Float64() * rnd.Float64()
		if i%10 == 0 {
			level[i] = 30 + 50*rnd.Float64()
		}
	}
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	w := csv.NewWriter(zip)
	_ = w.Write(names)
	row := make([]string, vms)
	for range rows {
		for i := range row {
			row[i] = strconv.Itoa(int(min(100, max(0, level[i]*(1+0.08*rnd.NormFloat64())))))
		}
		_ = w.Write(row)
	}
	w.Flush()
	_ = zip.Close()
	path := filepath.Join(t.TempDir(), "made.csv.gz")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestDemoKeepsItsPromise looks at two hours of samples, which are a pure function of time, for many seeds and all loads.
func TestDemoKeepsItsPromise(t *testing.T) {
	paths := append([]string{"", madeTrace(t)}, traces(t)...)
	for _, path := range paths {
		for seed := range uint64(10) {
			t.Run(fmt.Sprintf("load=%s/seed=%d", filepath.Base(path), seed), func(t *testing.T) {
				d, err := NewDemo(DemoConfig{Seed: seed, TracePath: path, Clock: clock.New(30)})
				if err != nil {
					t.Fatal(err)
				}
				defer d.Close()
				checkPromise(t, d)
			})
		}
	}
}

func checkPromise(t *testing.T, d *Demo) {
	t.Helper()
	begin := d.Hot.From.Truncate(sampleLength)
	for at := begin.Add(-10 * time.Minute); !at.After(begin); at = at.Add(sampleLength) {
		if !at.Before(d.Hot.From) {
			continue
		}
		eachHost(d, at, func(vc *VCenter, host types.ManagedObjectReference, cpu, _ float64) {
			if cpu >= 0.70 {
				t.Fatalf("host %s at %.3f before the heat", host.Value, cpu)
			}
		})
	}
	hot := begin.Add(sampleLength)
	for at := hot; at.Before(hot.Add(3 * time.Hour)); at = at.Add(9 * sampleLength) {
		eachHost(d, at, func(vc *VCenter, host types.ManagedObjectReference, cpu, contention float64) {
			switch {
			case vc == d.Hot.VCenter && host == d.Hot.Host:
				if cpu < 0.90 || contention < 0.06 {
					t.Fatalf("%s after the heat began the hot host is at %.3f, contention %.3f", at.Sub(hot), cpu, contention)
				}
			case cpu != 0 && (cpu < 0.25 || cpu > 0.50):
				t.Fatalf("%s after the heat began host %s is at %.3f", at.Sub(hot), host.Value, cpu)
			}
		})
	}

	if len(d.Hot.Busy) != 2 {
		t.Fatalf("%d busy VMs", len(d.Hot.Busy))
	}
	targets := othersOf(d)
	vc := d.Hot.VCenter
	for i, vm := range d.Hot.Busy {
		vc.usage.moved(vm, targets[i])
	}
	vc.usage.mu.Lock()
	vc.usage.samples = nil // of the future, without the moves
	vc.usage.mu.Unlock()
	after := vc.usage.latest().Add(time.Hour)
	for at := after; at.Before(after.Add(2 * time.Hour)); at = at.Add(9 * sampleLength) {
		eachHost(d, at, func(vc *VCenter, host types.ManagedObjectReference, cpu, _ float64) {
			limit := 0.70
			if vc == d.Hot.VCenter && host == d.Hot.Host {
				limit = 0.65
			}
			if cpu >= limit {
				t.Fatalf("after both busy VMs were moved host %s is at %.3f", host.Value, cpu)
			}
		})
	}
}

// othersOf are the hot host's neighbours.
func othersOf(d *Demo) []types.ManagedObjectReference {
	hosts := d.Hot.VCenter.Hosts()[:hostsPerCluster]
	return slices.DeleteFunc(hosts, func(h types.ManagedObjectReference) bool { return h == d.Hot.Host })
}

func eachHost(d *Demo, at time.Time, f func(vc *VCenter, host types.ManagedObjectReference, cpu, contention float64)) {
	for _, vc := range []*VCenter{d.A, d.B} {
		s := vc.usage.sampleAt(at)
		vcpus := map[types.ManagedObjectReference]float64{}
		for _, v := range vc.usage.vms {
			if place := v.at(at); place.on {
				vcpus[place.host.ref] += v.vcpus
			}
		}
		for ref, h := range s.hosts {
			f(vc, ref, float64(h.usageMHz)/float64(h.capacityMHz), float64(h.readyMs)/20000/max(1, vcpus[ref]))
		}
	}
}

func TestDemoHeatsUpInRealTime(t *testing.T) {
	d, err := NewDemo(DemoConfig{Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	began := time.Now()
	c := client(t, d.Hot.VCenter)
	usage := func() float64 {
		var host mo.HostSystem
		if err := property.DefaultCollector(c.Client).RetrieveOne(t.Context(), d.Hot.Host, []string{"summary"}, &host); err != nil {
			t.Fatal(err)
		}
		hw := host.Summary.Hardware
		return float64(host.Summary.QuickStats.OverallCpuUsage) / float64(int(hw.CpuMhz)*int(hw.NumCpuCores))
	}
	if u := usage(); u > 0.70 {
		t.Fatalf("hot from the start: %.3f", u)
	}
	for usage() < 0.90 {
		if time.Since(began) > 8*time.Second {
			t.Fatalf("after %s the host is at %.3f", time.Since(began), usage())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func TestDemoIsTheSameForTheSameSeed(t *testing.T) {
	names := func(seed uint64) (out []string) {
		d, err := NewDemo(DemoConfig{Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		for _, h := range d.A.cfg.Clusters[0].Hosts {
			for _, vm := range h.VMs {
				out = append(out, vm.Name)
			}
		}
		return append(out, d.Hot.Cluster, d.Hot.Host.Value)
	}
	if a, b := names(5), names(5); !slices.Equal(a, b) {
		t.Errorf("two demos of one seed: %v and %v", a, b)
	}
}

func TestDemoHasOddNames(t *testing.T) {
	d, err := NewDemo(DemoConfig{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, vc := range []*VCenter{d.A, d.B} {
		count := map[string]int{}
		for _, c := range vc.cfg.Clusters {
			for _, h := range c.Hosts {
				for _, vm := range h.VMs {
					count[vm.Name]++
				}
			}
		}
		for _, name := range []string{"two\nlines", `Müller's "Büro" server`, `C:\temp{name="x"}`} {
			if count[name] != 1 {
				t.Errorf("%s has %d VMs named %q", vc.cfg.Name, count[name], name)
			}
		}
		if count["print-server"] != 2 {
			t.Errorf("%s has %d print servers", vc.cfg.Name, count["print-server"])
		}
	}
}
