package libvirt

import (
	"maps"
	"math"
	"testing"
	"time"

	"github.com/protip/protip/internal/inventory"
)

// reading makes stats of numbers, and of one disk and one interface.
func reading(numbers map[number]uint64, disk, net map[counter]uint64) *stats {
	s := &stats{}
	for n, v := range numbers {
		s.set(n, v)
	}
	if _, ok := numbers[vcpuDelay]; ok {
		s.delayed = int(numbers[vcpuCurrent])
	}
	add := func(key deviceKey, counters map[counter]uint64) {
		if counters == nil {
			return
		}
		d := device{key: key}
		for c, v := range counters {
			d.counters[c] = v
			d.has |= 1 << c
		}
		s.devices = append(s.devices, d)
	}
	add(deviceKey{true, "vda"}, disk)
	add(deviceKey{false, "tap0"}, net)
	return s
}

func byMetric(values []inventory.Value) map[inventory.Metric]float64 {
	out := map[inventory.Metric]float64{}
	for _, v := range values {
		out[v.Metric] = v.Value
	}
	return out
}

const second = uint64(time.Second)

// TestMeter follows one VM through two runs. Each reading comes 10 s after the one before.
func TestMeter(t *testing.T) {
	type values = map[inventory.Metric]float64
	hostA := run{inventory.ID{Ref: "a"}, 1}
	hostB := run{inventory.ID{Ref: "b"}, 7}
	var m meter
	at := time.Unix(1e9, 0)
	for i, step := range []struct {
		in     run
		rough  bool // the time is not known well
		stats  *stats
		want   values
		weight float64 // of the VM's contention
	}{
		{
			hostA, false,
			reading(map[number]uint64{cpuTime: 100 * second, vcpuDelay: 5 * second, vcpuCurrent: 2, balloonRSS: 1000, balloonCurrent: 900, balloonMaximum: 1024},
				map[counter]uint64{diskReadBytes: 4096, diskReads: 1, diskReadTime: 7}, map[counter]uint64{netReceiveBytes: 10}),
			values{
				inventory.VMMemoryUsage: 1000 * 1024, inventory.VMMemoryBalloon: 124 * 1024,
				inventory.VMDiskRead: 4096, inventory.VMDiskReadOperations: 1, inventory.VMNetworkReceive: 10,
			},
			0,
		},
		{
			hostA, false,
			reading(map[number]uint64{cpuTime: 105 * second, vcpuDelay: 7 * second, vcpuCurrent: 2, balloonAvailable: 800, balloonUsable: 300, balloonUnused: 100},
				map[counter]uint64{diskReadBytes: 8192, diskReads: 3, diskReadTime: 7 + second/100}, map[counter]uint64{netReceiveBytes: 30}),
			values{
				inventory.VMCPUUsage: 1e9, inventory.VMCPUContention: 0.1, inventory.VMMemoryGuestUsage: 500 * 1024, inventory.VMDiskLatency: 0.005,
				inventory.VMDiskRead: 8192, inventory.VMDiskReadOperations: 3, inventory.VMNetworkReceive: 30,
			},
			2,
		},
		{ // no disk did anything: it has no latency; an answer that took long: no rates
			hostA, true,
			reading(map[number]uint64{cpuTime: 115 * second, vcpuDelay: 7 * second, vcpuCurrent: 2, balloonAvailable: 800, balloonUnused: 100},
				map[counter]uint64{diskReadBytes: 8192, diskReads: 3, diskReadTime: 7 + second/100}, map[counter]uint64{netReceiveBytes: 30}),
			values{
				inventory.VMMemoryGuestUsage: 700 * 1024, inventory.VMDiskRead: 8192, inventory.VMDiskReadOperations: 3, inventory.VMNetworkReceive: 30,
			},
			0,
		},
		{ // rates go on from the last time that was known well
			hostA, false,
			reading(map[number]uint64{cpuTime: 125 * second}, nil, nil),
			values{inventory.VMCPUUsage: 2e9},
			0,
		},
		{ // migrated: its domain begins at zero there, and the totals go on
			hostB, false,
			reading(map[number]uint64{cpuTime: 3 * second, vcpuDelay: second, vcpuCurrent: 2},
				map[counter]uint64{diskReadBytes: 100, diskReads: 1, diskReadTime: second}, map[counter]uint64{netReceiveBytes: 5}),
			values{inventory.VMDiskRead: 8292, inventory.VMDiskReadOperations: 4, inventory.VMNetworkReceive: 35},
			0,
		},
		{ // what ran backwards makes no rate, and counters that fell count anew
			hostB, false,
			reading(map[number]uint64{cpuTime: second, vcpuDelay: second / 2, vcpuCurrent: 2},
				map[counter]uint64{diskReadBytes: 50, diskReads: 1, diskReadTime: 1}, nil),
			values{inventory.VMDiskRead: 8342, inventory.VMDiskReadOperations: 4},
			0,
		},
		{ // more contention than there is time is all of it
			hostB, false,
			reading(map[number]uint64{cpuTime: second, vcpuDelay: 100 * second, vcpuCurrent: 2}, nil, nil),
			values{inventory.VMCPUUsage: 0, inventory.VMCPUContention: 1},
			2,
		},
		{hostB, false, reading(nil, nil, nil), values{}, 0},
	} {
		at = at.Add(10 * time.Second)
		out, l := m.sample(step.stats, step.in, at, !step.rough, 2e9)
		got := byMetric(out)
		for metric, want := range step.want {
			if v, ok := got[metric]; !ok || math.Abs(v-want) > 1e-9*max(want, 1) {
				t.Errorf("step %d: %v is %v (%v), want %v", i, metric, v, ok, want)
			}
		}
		for metric := range maps.Keys(got) {
			if _, ok := step.want[metric]; !ok {
				t.Errorf("step %d: %v is %v, want none", i, metric, got[metric])
			}
		}
		if l.vcpus != step.weight {
			t.Errorf("step %d: weight %v, want %v", i, l.vcpus, step.weight)
		}
	}
}

func TestHostMeter(t *testing.T) {
	h := &inventory.Host{CPUHertz: 8e9}
	var m hostMeter
	mem := map[string]uint64{"total": 1000, "free": 100, "buffers": 50, "cached": 250}
	first := byMetric(m.sample(h, map[string]uint64{"kernel": 10, "user": 20, "idle": 70, "iowait": 0}, mem))
	if len(first) != 2 || first[inventory.HostMemoryUsage] != 600*1024 || first[inventory.HostMemoryUsageRatio] != 0.6 {
		t.Errorf("first: %v", first)
	}
	second := byMetric(m.sample(h, map[string]uint64{"kernel": 20, "user": 35, "idle": 140, "iowait": 5}, nil))
	if len(second) != 2 || second[inventory.HostCPUUsageRatio] != 0.25 || second[inventory.HostCPUUsage] != 2e9 {
		t.Errorf("second: %v", second)
	}
	for name, cpu := range map[string]map[string]uint64{
		"nothing": nil, "the same again": {"kernel": 20, "user": 35, "idle": 140, "iowait": 5}, "backwards": {"idle": 1},
	} {
		m := m
		if got := m.sample(h, cpu, map[string]uint64{"total": 1, "free": 2}); len(got) > 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestContention(t *testing.T) {
	got := byMetric(contention([]load{{contention: 0.5, vcpus: 2, ok: true}, {contention: 0.1, vcpus: 6, ok: true}, {}}))
	if math.Abs(got[inventory.HostCPUContention]-0.2) > 1e-9 || got[inventory.HostCPUContentionMax] != 0.5 {
		t.Errorf("contention: %v", got)
	}
	if got := contention([]load{{}}); got != nil {
		t.Errorf("of no VM: %v", got)
	}
}
