package placement

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// The rules that others answer the same question by. Each is as published, and knows nothing of rules, datastores or certificates.

// slotRule cuts every host into slots of the largest CPU and the largest memory need of all VMs, takes away the hosts with the
// most slots, and asks for a slot per VM: vSphere HA's host failures policy, and VMM 2008.
func slotRule(q Question) bool {
	var slot Size
	for _, v := range q.VMs {
		slot = Size{max(slot.CPUHertz, v.Need.CPUHertz), max(slot.MemoryBytes, v.Need.MemoryBytes)}
	}
	var slots []int64
	for _, c := range capacities(q) {
		slots = append(slots, min(c.CPUHertz/max(1, slot.CPUHertz), c.MemoryBytes/max(1, slot.MemoryBytes)))
	}
	slices.Sort(slots)
	sum := int64(0)
	for _, n := range slots[:max(0, len(slots)-q.Reserve)] {
		sum += n
	}
	return sum >= int64(len(q.VMs))
}

// percentRule asks that the share of hosts that may fail is free of the whole cluster's capacity: vSphere HA's percentage policy.
func percentRule(q Question) bool {
	var capacity, free Size
	for h, c := range capacities(q) {
		capacity, free = capacity.plus(c), free.plus(q.Hosts[h].Free)
	}
	share := float64(q.Reserve) / float64(len(q.Hosts))
	return float64(free.CPUHertz) >= share*float64(capacity.CPUHertz) && float64(free.MemoryBytes) >= share*float64(capacity.MemoryBytes)
}

// largestRule is VMM 2012's: for each set of hosts, their largest VM by memory, the memory that each survivor has left beyond it, and
// whether the other failed VMs need more than the sum.
func largestRule(q Question) bool {
	return subsets(len(q.Hosts), q.Reserve, func(failed []int) bool {
		var largest, lost, room int64
		for _, v := range q.VMs {
			if slices.Contains(failed, v.Host) {
				largest = max(largest, v.Need.MemoryBytes)
				lost += v.Need.MemoryBytes
			}
		}
		for h, s := range q.Hosts {
			if !slices.Contains(failed, h) {
				room += max(0, s.Free.MemoryBytes-largest)
			}
		}
		return lost-largest <= room
	})
}

func capacities(q Question) []Size {
	out := make([]Size, len(q.Hosts))
	for h, s := range q.Hosts {
		out[h] = s.Free
	}
	for _, v := range q.VMs {
		out[v.Host] = out[v.Host].plus(v.Need)
	}
	return out
}

// BenchmarkReserveRules puts the rules beside the answer on the same random clusters near the limit. Admissions are held against
// the checker, and a refusal is a proof, so the answer is the truth wherever there is one.
func BenchmarkReserveRules(b *testing.B) {
	rules := []struct {
		name string
		yes  func(Question) bool
	}{{"slots", slotRule}, {"percent", percentRule}, {"vmm2012", largestRule}}
	for _, size := range [][2]int{{8, 1}, {16, 1}, {16, 2}, {32, 2}} {
		b.Run(fmt.Sprintf("hosts=%d/reserve=%d", size[0], size[1]), func(b *testing.B) {
			for b.Loop() {
				const n = 60
				count := map[Answer]int{}
				wrongYes, wrongNo := make([]int, len(rules)), make([]int, len(rules))
				for seed := range uint64(n) {
					r := rand.New(rand.NewPCG(seed, 1))
					q := crowded(seed, size[0], 20*size[0], size[1], 0.55+0.40*r.Float64())
					a := q.Answer(nil)
					count[a.Answer]++
					if a.Answer == Admitted {
						if err := VerifyAdmission(q, a); err != nil {
							b.Fatal(err)
						}
					}
					for i, rule := range rules {
						yes := rule.yes(q)
						if a.Answer == Refused && yes {
							wrongYes[i]++
						}
						if a.Answer == Admitted && !yes {
							wrongNo[i]++
						}
					}
				}
				b.ReportMetric(float64(count[Admitted]), "admitted")
				b.ReportMetric(float64(count[Refused]), "refused")
				b.ReportMetric(float64(count[Unknown]), "unknown")
				for i, rule := range rules {
					b.ReportMetric(float64(wrongYes[i]), rule.name+"-false-yes")
					b.ReportMetric(float64(wrongNo[i]), rule.name+"-false-no")
				}
			}
		})
	}
}

// BenchmarkPlantedReserve tells how many clusters that survive by construction are refused, by us and by the rules.
func BenchmarkPlantedReserve(b *testing.B) {
	for _, size := range [][2]int{{8, 1}, {16, 1}, {16, 2}, {32, 2}} {
		for _, slack := range []float64{0.10, 0.05, 0.02} {
			b.Run(fmt.Sprintf("hosts=%d/reserve=%d/slack=%g", size[0], size[1], slack), func(b *testing.B) {
				for b.Loop() {
					const n = 100
					ours, slots, percents, vmm := 0, 0, 0, 0
					for seed := range uint64(n) {
						q := planted(seed, size[0], size[1], slack)
						switch a := q.Answer(nil); a.Answer {
						case Admitted:
							if err := VerifyAdmission(q, a); err != nil {
								b.Fatal(err)
							}
						case Refused:
							b.Fatalf("seed %d: a false proof: %s", seed, a.Why)
						case Unknown:
							ours++
						}
						for _, rule := range []struct {
							yes bool
							no  *int
						}{{slotRule(q), &slots}, {percentRule(q), &percents}, {largestRule(q), &vmm}} {
							if !rule.yes {
								*rule.no++
							}
						}
					}
					b.ReportMetric(100*float64(ours)/n, "%refused")
					b.ReportMetric(100*float64(slots)/n, "%slots-refused")
					b.ReportMetric(100*float64(percents)/n, "%percent-refused")
					b.ReportMetric(100*float64(vmm)/n, "%vmm2012-refused")
				}
			})
		}
	}
}

// BenchmarkReserve is the whole question, and the same after one more VM.
func BenchmarkReserve(b *testing.B) {
	for _, reserve := range []int{1, 2} {
		for _, fill := range []float64{0.70, 0.90} {
			q := crowded(1, 64, 8000, reserve, fill)
			b.Run(fmt.Sprintf("hosts=64/vms=8000/reserve=%d/fill=%g", reserve, fill), func(b *testing.B) {
				best(b, func() *Admission { return q.Answer(nil) })
			})
			before := q.Answer(nil)
			more := q.Plus(Claim{ID: vmID("more"), Name: "more", Host: 0, Need: Size{ghz / 4, gib}}, true)
			b.Run(fmt.Sprintf("hosts=64/vms=8000/reserve=%d/fill=%g/one more VM", reserve, fill), func(b *testing.B) {
				best(b, func() *Admission { return more.Answer(before) })
			})
		}
	}
}

// best reports the least processor time that an answer took.
func best(b *testing.B, ask func() *Admission) {
	least := time.Duration(math.MaxInt64)
	for b.Loop() {
		began := cpuTime()
		if a := ask(); a.Answer != Admitted {
			b.Fatal(a.Why)
		}
		least = min(least, cpuTime()-began)
	}
	b.ReportMetric(float64(least.Microseconds())/1000, "best-cpu-ms")
}
