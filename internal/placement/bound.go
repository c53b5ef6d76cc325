package placement

import (
	"cmp"
	"fmt"
	"slices"
)

// bound proves that the items cannot all be placed, and says how; empty if it cannot prove it. Each proof is one of counting:
// of an item no host can take, of sums over the hosts that matter, or of items so large that few fit on each host.
func (f *failure) bound() string {
	if len(f.items) > 0 && len(f.failed) == len(f.free) {
		return "no host is left"
	}
	for i := range f.items {
		if why := f.homeless(&f.items[i]); why != "" {
			return why
		}
	}
	if why := f.volume(nil, "all that must be restarted"); why != "" {
		return why
	}
	if why := f.count(); why != "" {
		return why
	}
	var seen [][]uint64
	for i := range f.items {
		hosts := f.items[i].hosts
		if hosts == nil || slices.ContainsFunc(seen, func(s []uint64) bool { return slices.Equal(s, hosts) }) {
			continue
		}
		if len(seen) == 64 {
			break
		}
		seen = append(seen, hosts)
		if why := f.volume(hosts, "the VMs that rules, datastores or networks tie to the same hosts"); why != "" {
			return why
		}
	}
	return f.crowd()
}

// homeless is why no host can take the item even alone.
func (f *failure) homeless(it *item) string {
	allowed, room := 0, 0
	for h := range f.free {
		if f.free[h].CPUHertz < 0 || !it.may(h, f.taken) {
			continue
		}
		allowed++
		if it.need.fits(f.free[h]) {
			room++
		}
	}
	name := f.q.VMs[it.vms[0]].Name
	switch {
	case allowed == 0:
		return fmt.Sprintf("rules, datastores or networks leave no host to %s", name)
	case room == 0:
		return fmt.Sprintf("none of the %d hosts that %s may run on has %s free", allowed, name, it.need)
	}
	return ""
}

// volume compares what the items that may run only on the hosts need with what is free there; nil is all. A host on which
// none of them fits does not count.
func (f *failure) volume(hosts []uint64, what string) string {
	var need, free Size
	least := Size{maxAmount, maxAmount}
	for i := range f.items {
		if it := &f.items[i]; hosts == nil || it.hosts != nil && slices.Equal(intersect(it.hosts, hosts), it.hosts) {
			need = need.plus(it.need)
			least = Size{min(least.CPUHertz, it.need.CPUHertz), min(least.MemoryBytes, it.need.MemoryBytes)}
		}
	}
	n := 0
	for h := range f.free {
		if (hosts == nil || has(hosts, h)) && least.fits(f.free[h]) {
			free = free.plus(f.free[h])
			n++
		}
	}
	switch {
	case need.CPUHertz > free.CPUHertz:
		return fmt.Sprintf("%s needs %s of CPU, and the %d hosts that have room have %s free", what, hertz(float64(need.CPUHertz)), n, hertz(float64(free.CPUHertz)))
	case need.MemoryBytes > free.MemoryBytes:
		return fmt.Sprintf("%s needs %s of memory, and the %d hosts that have room have %s free", what, bytes(float64(need.MemoryBytes)), n, bytes(float64(free.MemoryBytes)))
	}
	return ""
}

// count compares, for each size, how many items are at least as large with how many such a host can hold.
func (f *failure) count() string {
	for _, dim := range []struct {
		what string
		of   func(Size) int64
		show func(float64) string
	}{
		{"CPU", func(s Size) int64 { return s.CPUHertz }, hertz},
		{"memory", func(s Size) int64 { return s.MemoryBytes }, bytes},
	} {
		needs := make([]int64, len(f.items))
		for i := range f.items {
			needs[i] = dim.of(f.items[i].need)
		}
		slices.SortFunc(needs, func(a, b int64) int { return cmp.Compare(b, a) })
		for i, size := range needs {
			if size == 0 || i+1 < len(needs) && needs[i+1] == size {
				continue
			}
			room := int64(0)
			for _, free := range f.free {
				if free.CPUHertz >= 0 {
					room += dim.of(free) / size
				}
			}
			if room <= int64(i) {
				return fmt.Sprintf("%d VMs need %s of %s or more each, and the hosts have room for %d such", i+1, dim.show(float64(size)), dim.what, room)
			}
			if room >= int64(len(needs)) {
				break
			}
		}
	}
	return ""
}

// crowd compares the size of each group that is kept apart with the hosts that are left to it.
func (f *failure) crowd() string {
	for g, group := range f.q.Apart {
		var hosts []uint64
		n := 0
		for i := range f.items {
			it := &f.items[i]
			if !slices.Contains(it.apart, g) {
				continue
			}
			n++
			mine := make([]uint64, f.q.words)
			for h := range f.free {
				if it.need.fits(f.free[h]) && it.may(h, f.taken) {
					set(mine, h)
				}
			}
			if hosts == nil {
				hosts = mine
				continue
			}
			for w := range hosts {
				hosts[w] |= mine[w]
			}
		}
		if room := members(hosts); n > room {
			return fmt.Sprintf("rule %q keeps %d VMs apart, and %d hosts are left to them", group.Name, n, room)
		}
	}
	return ""
}

func (a Size) String() string {
	return fmt.Sprintf("%s and %s", hertz(float64(a.CPUHertz)), bytes(float64(a.MemoryBytes)))
}
