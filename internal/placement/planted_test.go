package placement

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// planted is a question whose answer is yes by construction: what is free on each survivor, less the slack, is cut into pieces, and
// the pieces are the VMs of the hosts that fail. Those have room for what was cut from any one other, so that no set is worse.
func planted(seed uint64, hosts, reserve int, slack float64) Question {
	r := rand.New(rand.NewPCG(seed, uint64(hosts*100+reserve)))
	q := Question{Name: "planted", Reserve: reserve, Cluster: clusterID}
	var most Size
	for h := range hosts {
		free := Size{int64((0.3 + 0.7*r.Float64()) * 20 * ghz), int64((0.3 + 0.7*r.Float64()) * 100 * gib)}
		if h >= reserve {
			most = Size{max(most.CPUHertz, free.CPUHertz), max(most.MemoryBytes, free.MemoryBytes)}
		}
		q.Hosts = append(q.Hosts, Survivor{ID: hostID(fmt.Sprintf("h%d", h)), Name: fmt.Sprintf("h%d", h), Free: free})
	}
	for h := range reserve {
		q.Hosts[h].Free = most
	}
	for h := reserve; h < hosts; h++ {
		pieces := 2 + r.IntN(5)
		cpu := cut(r, float64(q.Hosts[h].Free.CPUHertz)*(1-slack), pieces)
		memory := cut(r, float64(q.Hosts[h].Free.MemoryBytes)*(1-slack), pieces)
		for i := range pieces {
			q.VMs = append(q.VMs, Claim{Host: r.IntN(reserve), Need: Size{cpu[i], memory[i]}})
		}
	}
	r.Shuffle(len(q.VMs), func(i, j int) { q.VMs[i], q.VMs[j] = q.VMs[j], q.VMs[i] })
	for i := range q.VMs {
		q.VMs[i].Name = fmt.Sprintf("vm%d", i)
		q.VMs[i].ID = vmID(q.VMs[i].Name)
	}
	return q
}

// cut breaks a stick into pieces of at least a tenth of an even share.
func cut(r *rand.Rand, stick float64, pieces int) []int64 {
	at := []float64{0, 1}
	for range pieces - 1 {
		at = append(at, r.Float64())
	}
	slices.Sort(at)
	out := make([]int64, pieces)
	for i := range out {
		out[i] = int64(stick * (0.1/float64(pieces) + 0.9*(at[i+1]-at[i])))
	}
	return out
}

// crowded is a random cluster near the limit: mixed hosts, mixed VMs, load that fills what is left after the loss of reserve hosts to
// the given share.
func crowded(seed uint64, hosts, vms, reserve int, fill float64) Question {
	r := rand.New(rand.NewPCG(seed, uint64(hosts*1000+vms)))
	q := Question{Name: "crowded", Reserve: reserve, Cluster: clusterID}
	var capacity, load Size
	for h := range hosts {
		size := []Size{{40 * ghz, 256 * gib}, {60 * ghz, 384 * gib}, {80 * ghz, 512 * gib}}[r.IntN(3)]
		capacity = capacity.plus(size)
		q.Hosts = append(q.Hosts, Survivor{ID: hostID(fmt.Sprintf("h%d", h)), Name: fmt.Sprintf("h%d", h), Free: size})
	}
	for i := range vms {
		memory := []float64{2, 4, 8, 16, 32, 64}[min(5, int(r.ExpFloat64()*1.5))]
		q.VMs = append(q.VMs, Claim{
			ID: vmID(fmt.Sprintf("vm%d", i)), Name: fmt.Sprintf("vm%d", i),
			Need: Size{int64(memory * ghz / 6 * (0.3 + 1.4*r.Float64())), int64(memory * gib * (0.5 + 0.5*r.Float64()))},
		})
		load = load.plus(q.VMs[i].Need)
	}
	share := 1 - float64(reserve)/float64(hosts)
	scale := func(have, need int64) float64 { return fill * share * float64(have) / float64(need) }
	cpu, memory := scale(capacity.CPUHertz, load.CPUHertz), scale(capacity.MemoryBytes, load.MemoryBytes)
	for i := range q.VMs {
		v := &q.VMs[i]
		v.Need = Size{int64(float64(v.Need.CPUHertz) * cpu), int64(float64(v.Need.MemoryBytes) * memory)}
		best := r.IntN(hosts)
		for range 3 {
			if h := r.IntN(hosts); q.Hosts[h].Free.MemoryBytes > q.Hosts[best].Free.MemoryBytes {
				best = h
			}
		}
		v.Host = best
		q.Hosts[best].Free = q.Hosts[best].Free.minus(v.Need)
	}
	for h := range q.Hosts {
		free := &q.Hosts[h].Free
		*free = Size{max(0, free.CPUHertz), max(0, free.MemoryBytes)}
	}
	return q
}
