package sim

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/protip/protip/internal/sim/load"
)

// A demo on a trace plays a window of two hours, over and over, and casts VMs whose measured demand does what the demo
// promises at every row of it. Sizes are not in a trace: a VM's vCPUs are chosen so that it fills its part.
const windowRows = int(2 * time.Hour / load.TraceStep)

// casting is what a trace offers in one window.
type casting struct {
	trace *load.Trace
	first int
	rows  int
	free  []int // columns not cast yet, in an order that the seed makes
}

// useTrace makes the stage cast from a trace: from a window that fills all hosts, the hot one first, which is the hard one.
func (s *stage) useTrace(path string) error {
	tr, err := load.ReadTrace(path)
	if err != nil {
		return err
	}
	tr.Start = s.start
	rows := min(windowRows, tr.Rows())
	for _, first := range s.rnd.Perm(tr.Rows() - rows + 1) {
		c := &casting{trace: tr, first: first, rows: rows, free: s.rnd.Perm(tr.VMs())}
		hot, ok := s.castHot(c)
		if !ok {
			continue
		}
		cool, ok := s.castCools(c, coolHosts)
		if !ok {
			continue
		}
		s.trace = tr.Window(first, rows)
		s.cast = func(isHot bool) []guest {
			if isHot {
				return hot
			}
			next := cool[0]
			cool = cool[1:]
			return next
		}
		return nil
	}
	return fmt.Errorf("%s: no two hours in which VMs of this trace keep a host of %d cores hot and two of them can cool it", path, demoCores)
}

// part is a VM of the trace with so many vCPUs: its share of a host at each row.
type part struct {
	column, vcpus     int
	shares            []float64
	low, high, middle float64
}

func (c *casting) part(column, vcpus int) part {
	p := part{column: column, vcpus: vcpus, shares: make([]float64, c.rows), low: math.Inf(1)}
	for i := range p.shares {
		v := c.trace.Row(column, c.first+i) * float64(vcpus) / demoCores
		p.shares[i] = v
		p.low, p.high = min(p.low, v), max(p.high, v)
		p.middle += v / float64(c.rows)
	}
	return p
}

// sized is the VM with the vCPUs (a multiple of two) that bring its middle share nearest to want.
func (c *casting) sized(column int, want float64, most int) part {
	one := c.part(column, 2)
	vcpus := 2
	if one.middle > 0 {
		vcpus = 2 * max(1, min(most/2, int(math.Round(want/one.middle))))
	}
	return c.part(column, vcpus)
}

// castHot finds two busy VMs and the rest, so that all together never ask for less than 90.5 % and the rest never for more
// than 63 %.
func (s *stage) castHot(c *casting) ([]guest, bool) {
	var busy, rest []part
	for _, column := range c.free {
		if p := c.sized(column, hotBusy, 16); p.middle > 0.165 && p.low > 0.14 && p.high < 0.215 {
			busy = append(busy, p)
		} else if p := c.sized(column, hotRest/11, 8); p.middle > 0.03 && p.high-p.low < 0.6*p.middle {
			rest = append(rest, p)
		}
	}
	if len(busy) < 2 || len(rest) < 6 {
		return nil, false
	}
	for range 500 {
		s.rnd.Shuffle(len(busy), func(i, j int) { busy[i], busy[j] = busy[j], busy[i] })
		s.rnd.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
		n, sum := 0, 0.0
		for n < len(rest) && sum < hotRest {
			sum += rest[n].middle
			n++
		}
		if restOnly := total(c.rows, rest[:n]); restOnly.high > 0.63 || total(c.rows, append(rest[:n:n], busy[:2]...)).low < 0.905 {
			continue
		}
		var guests []guest
		for _, p := range busy[:2] {
			guests = append(guests, guest{vcpus: p.vcpus, memory: 32 << 30, column: p.column, busy: true})
		}
		for _, p := range rest[:n] {
			guests = append(guests, guest{vcpus: p.vcpus, memory: 16 << 30, column: p.column})
		}
		c.take(guests)
		return guests, true
	}
	return nil, false
}

func total(rows int, parts []part) part {
	sum := part{shares: make([]float64, rows), low: math.Inf(1)}
	for i := range rows {
		for _, p := range parts {
			sum.shares[i] += p.shares[i]
		}
		sum.low, sum.high = min(sum.low, sum.shares[i]), max(sum.high, sum.shares[i])
		sum.middle += sum.shares[i] / float64(rows)
	}
	return sum
}

// take removes the cast from what is free.
func (c *casting) take(guests []guest) {
	cast := map[int]bool{}
	for _, g := range guests {
		cast[g.column] = true
	}
	free := c.free[:0:0]
	for _, column := range c.free {
		if !cast[column] {
			free = append(free, column)
		}
	}
	c.free = free
}

// castCools fills n hosts.
func (s *stage) castCools(c *casting, n int) ([][]guest, bool) {
	var hosts [][]guest
	for range n {
		guests, ok := s.castCool(c)
		if !ok {
			return nil, false
		}
		hosts = append(hosts, guests)
	}
	return hosts, true
}

// castCool fills a host with VMs that together ask for 30 % to 46 % at every row: steady ones first, then any.
func (s *stage) castCool(c *casting) ([]guest, bool) {
	for range 20 {
		s.rnd.Shuffle(len(c.free), func(i, j int) { c.free[i], c.free[j] = c.free[j], c.free[i] })
		var parts []part
		sum := total(c.rows, nil)
		for _, steady := range []float64{0.5, 1, 2} {
			for _, column := range c.free {
				if sum.middle > coolShare-0.02 || len(parts) >= 30 {
					break
				}
				p := c.sized(column, coolShare/11, 8)
				if p.middle < 0.008 || p.high-p.low > steady*p.middle || slices.ContainsFunc(parts, func(q part) bool { return q.column == column }) {
					continue
				}
				if with := total(c.rows, append(parts[:len(parts):len(parts)], p)); with.high < 0.46 {
					parts, sum = append(parts, p), with
				}
			}
		}
		if sum.low < 0.30 {
			continue
		}
		var guests []guest
		for _, p := range parts {
			guests = append(guests, guest{vcpus: p.vcpus, memory: 8 << 30, column: p.column})
		}
		c.take(guests)
		return guests, true
	}
	return nil, false
}
