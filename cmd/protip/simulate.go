package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/placement"
)

// Bounds of what one line may bring.
const (
	simulateLine = 64 << 20
	simulateMost = 100_000 // hosts, and VMs
)

func addSimulate(kp *kingpin.Application, verbs map[string]command) {
	cmd := kp.Command("simulate", "Plan for a simulated fleet: a line of JSON in is its state, a line out the migrations that should begin.")
	cmd.Flag("stdin", "Read states from standard input.").Required().Bool()
	goal := cmd.Flag("goal", "fill: as few hosts as serve the VMs. balance: all hosts, none crowded.").Default("balance").Enum("fill", "balance")
	explain := cmd.Flag("explain", "Each answer carries the whole plan too, as values and in words.").Bool()
	verbs[cmd.FullCommand()] = func(ctx context.Context, c *console) error {
		return simulate(ctx, os.Stdin, c.out, *goal == "fill", *explain)
	}
}

// simState is the simulated fleet at one moment. Work is in MIPS, memory in MB, and CPU is what a VM demands of one vCPU.
type simState struct {
	Step     int       `json:"step"`
	Time     float64   `json:"time"`
	Interval float64   `json:"interval"`
	Hosts    []simHost `json:"hosts"`
	VMs      []simVM   `json:"vms"`
}

type simHost struct {
	ID    int       `json:"id"`
	MIPS  float64   `json:"mips"`
	PE    float64   `json:"pe"`
	RAM   float64   `json:"ram"`
	Power []float64 `json:"power"` // watts, from idle to busy
	Util  float64   `json:"util"`
}

type simVM struct {
	ID   int     `json:"id"`
	Host int     `json:"host"`
	MIPS float64 `json:"mips"` // the most it can use
	CPU  float64 `json:"cpu"`
	RAM  float64 `json:"ram"`
}

type simMove struct {
	VM int `json:"vm"`
	To int `json:"to"`
}

// simAnswer is the first wave, and the whole plan where that was asked for.
type simAnswer struct {
	Migrations []simMove         `json:"migrations"`
	Plan       *placement.Course `json:"plan,omitempty"`
	Words      []string          `json:"words,omitempty"`
}

// simulate answers each line before it reads the next. It ends well at the end of the input.
func simulate(ctx context.Context, in io.Reader, out io.Writer, fill, explain bool) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 1<<20), simulateLine)
	s := newSimulation(fill)
	answers := json.NewEncoder(out)
	n := 0
	for lines.Scan() {
		n++
		if err := ctx.Err(); err != nil {
			return err
		}
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var state simState
		if err := json.Unmarshal(lines.Bytes(), &state); err != nil {
			return usageError{fmt.Errorf("line %d: %w", n, err)}
		}
		course, err := s.next(&state)
		if err != nil {
			return usageError{fmt.Errorf("line %d: %w", n, err)}
		}
		answer, err := answerOf(course)
		if err != nil {
			return err
		}
		if explain {
			answer.Plan, answer.Words = &course, course.Words()
		}
		if err := answers.Encode(answer); err != nil {
			return fmt.Errorf("answer line %d: %w", n, err)
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return usageError{fmt.Errorf("line %d: more than %d MiB", n+1, simulateLine>>20)}
	} else if err != nil {
		return fmt.Errorf("line %d: %w", n+1, err)
	}
	return nil
}

const (
	simSource = "simulation"
	perMIPS   = 1e6 // hertz
	perMB     = 1e6 // bytes
)

// simulation follows the fleet as the agent follows one: an inventory, samples, and what it planned before.
type simulation struct {
	fleet    *inventory.Fleet
	followed placement.Followed
	past     placement.Past
	policy   placement.Policy
	last     float64
}

func newSimulation(fill bool) *simulation {
	return &simulation{
		fleet: inventory.NewFleet(inventory.Source{Name: simSource}),
		// Memory here is a VM's configured size, which does not grow: it may fill a host.
		policy: placement.Policy{Ceiling: 0.85, Fill: fill},
		last:   math.Inf(-1),
	}
}

func simID(kind inventory.Kind, n int) inventory.ID {
	return inventory.ID{Source: simSource, Kind: kind, Ref: strconv.Itoa(n)}
}

// next takes in a state and returns the plan.
func (s *simulation) next(state *simState) (placement.Course, error) {
	if err := state.check(s.last); err != nil {
		return placement.Course{}, err
	}
	s.last = state.Time
	if _, err := s.fleet.Apply(state.delta(), time.UnixMilli(int64(state.Time*1000))); err != nil {
		return placement.Course{}, err
	}
	snap := s.fleet.Snapshot()
	var demand placement.Demand
	sizes := make(map[inventory.ID]float64, len(state.VMs))
	for _, v := range state.VMs {
		sizes[simID(inventory.KindVM, v.ID)] = v.MIPS * perMIPS
	}
	s.followed, demand = s.followed.Next(placement.Observed(snap), sizes, state.Time)
	want := placement.Rebalance{Now: state.Time, Age: state.age(), MemoryCeiling: 1, Watts: map[inventory.ID][]float64{}, Past: s.past}
	for _, h := range state.Hosts {
		if len(h.Power) > 0 {
			want.Watts[simID(inventory.KindHost, h.ID)] = h.Power
		}
	}
	course := placement.Plan(snap, demand, want, s.policy)
	s.past = course.Past
	return course, nil
}

// answerOf is the first wave: what depends on it is planned again when it has landed.
func answerOf(course placement.Course) (simAnswer, error) {
	answer := simAnswer{Migrations: []simMove{}}
	if len(course.Waves) == 0 {
		return answer, nil
	}
	for _, step := range course.Waves[0] {
		vm, err := strconv.Atoi(step.VM.Ref)
		if err != nil {
			return answer, err
		}
		to, err := strconv.Atoi(step.To.Ref)
		if err != nil {
			return answer, err
		}
		answer.Migrations = append(answer.Migrations, simMove{vm, to})
	}
	return answer, nil
}

// check refuses what is no fleet.
func (s *simState) check(last float64) error {
	const most = 1e12
	number := func(v float64) bool { return v >= 0 && v < most }
	if !number(s.Time) || s.Time <= last {
		return fmt.Errorf("time %v does not follow %v", s.Time, last)
	}
	if len(s.Hosts) > simulateMost || len(s.VMs) > simulateMost {
		return fmt.Errorf("%d hosts and %d VMs: at most %d of each", len(s.Hosts), len(s.VMs), simulateMost)
	}
	hosts, vms := map[int]bool{}, map[int]bool{}
	for _, h := range s.Hosts {
		if hosts[h.ID] || !(h.MIPS > 0 && h.PE > 0 && h.RAM > 0) || !number(h.MIPS) || !number(h.PE) || !number(h.RAM) || !number(h.Util) {
			return fmt.Errorf("host %d: named twice, or its size is no size", h.ID)
		}
		hosts[h.ID] = true
	}
	for _, v := range s.VMs {
		if vms[v.ID] || !number(v.CPU) || !number(v.MIPS) || !(v.RAM > 0) || !number(v.RAM) {
			return fmt.Errorf("VM %d: named twice, or its demand is no number", v.ID)
		}
		if !hosts[v.Host] {
			return fmt.Errorf("VM %d: no host %d", v.ID, v.Host)
		}
		vms[v.ID] = true
	}
	return nil
}

// age is 0 if the VMs' demand is of this moment, and otherwise 1: hosts that have VMs with a demand and do nothing are not as old.
func (s *simState) age() float64 {
	busy := map[int]bool{}
	for _, h := range s.Hosts {
		busy[h.ID] = h.Util > 0
	}
	for _, v := range s.VMs {
		if v.CPU > 0 && !busy[v.Host] {
			return 1
		}
	}
	return 0
}

// delta is the state as a source would tell it.
func (s *simState) delta() inventory.Delta {
	cluster := simID(inventory.KindCluster, 0)
	d := inventory.Delta{Source: simSource, Begin: true, Synced: true, Clusters: []inventory.Cluster{{ID: cluster, Name: simSource}}}
	at := int64(s.Time * 1000)
	cpu, memory := map[int]float64{}, map[int]float64{}
	for _, v := range s.VMs {
		id := simID(inventory.KindVM, v.ID)
		cpu[v.Host] += v.CPU
		memory[v.Host] += v.RAM
		d.VMs = append(d.VMs, inventory.VM{
			ID: id, Name: "vm-" + strconv.Itoa(v.ID), Host: simID(inventory.KindHost, v.Host), Connection: inventory.Connected,
			Power: inventory.PowerOn, VCPUs: 1, MemoryBytes: v.RAM * perMB,
		})
		d.Samples = append(d.Samples, inventory.SampleSet{ID: id, At: at, Values: []inventory.Value{
			{Metric: inventory.VMCPUUsage, Value: v.CPU * perMIPS},
			{Metric: inventory.VMCPUContention, Value: 0},
			{Metric: inventory.VMMemoryUsage, Value: v.RAM * perMB},
		}})
	}
	for _, h := range s.Hosts {
		id := simID(inventory.KindHost, h.ID)
		d.Hosts = append(d.Hosts, inventory.Host{
			ID: id, Name: "host-" + strconv.Itoa(h.ID), Cluster: cluster, Connection: inventory.Connected, Power: inventory.PowerOn,
			Cores: max(1, int(math.Round(h.MIPS/h.PE))), CPUHertz: h.MIPS * perMIPS, MemoryBytes: h.RAM * perMB,
		})
		d.Samples = append(d.Samples, inventory.SampleSet{ID: id, At: at, Values: []inventory.Value{
			{Metric: inventory.HostCPUUsage, Value: cpu[h.ID] * perMIPS},
			{Metric: inventory.HostMemoryUsage, Value: memory[h.ID] * perMB},
		}})
	}
	return d
}
