package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/protip/protip/internal/app"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// narrator tells what happens in the demo: a line for each thing that a person at the console would look up at.
type narrator struct {
	out     io.Writer
	json    bool
	started time.Time
	hosts   map[inventory.ID]heat
	steps   map[string]int  // action -> quarter of its progress last told
	told    map[string]bool // plans whose outcome was told
}

// heat is how warm a host was when last told.
type heat int

const (
	calm heat = iota
	warm
	hot
)

func newNarrator(out io.Writer, asJSON bool) *narrator {
	return &narrator{out: out, json: asJSON, started: time.Now(), hosts: map[inventory.ID]heat{}, steps: map[string]int{}, told: map[string]bool{}}
}

// line prints one event: the time since the start, a word that says what kind it is, and the sentence. Names in it may
// hold anything.
func (n *narrator) line(word, format string, args ...any) {
	since := time.Since(n.started)
	fmt.Fprintf(n.out, "%02d:%02d  %-8s %s\n", int(since.Minutes()), int(since.Seconds())%60, word, printable(fmt.Sprintf(format, args...)))
}

// more adds to the line before.
func (n *narrator) more(format string, args ...any) {
	fmt.Fprintf(n.out, "%15s%s\n", "", printable(fmt.Sprintf(format, args...)))
}

// event tells one event of the agent.
func (n *narrator) event(e app.Event, snap *inventory.Snapshot) {
	if n.json {
		_ = json.NewEncoder(n.out).Encode(e)
		return
	}
	switch {
	case e.Source != nil:
		n.source(*e.Source, snap)
	case e.Change != nil:
		n.change(*e.Change, snap)
	case e.Tip != nil:
		n.tip(*e.Tip)
	case e.Action != nil:
		n.action(*e.Action, snap)
	}
}

func (n *narrator) source(s inventory.Source, snap *inventory.Snapshot) {
	if !s.Up {
		n.line("DOWN", "%s: %s", s.Name, s.Error)
		return
	}
	clusters, hosts, vms := 0, 0, 0
	for _, c := range snap.ClusterTable(s.Name).Facts {
		clusters += present(c)
	}
	for _, h := range snap.HostTable(s.Name).Facts {
		hosts += present(h)
	}
	for _, vm := range snap.VMTable(s.Name).Facts {
		vms += present(vm)
	}
	n.line("UP", "%s: %d clusters, %d hosts, %d VMs", s.Name, clusters, hosts, vms)
}

func present[T any](obj *T) int {
	if obj == nil {
		return 0
	}
	return 1
}

func (n *narrator) change(c inventory.Change, snap *inventory.Snapshot) {
	if c.Kind == inventory.Moved {
		n.line("SEEN", "%s runs on %s now, says %s", c.Name, hostName(snap, c.To), c.Source)
	}
}

func (n *narrator) tip(c rules.Change) {
	t := c.Tip
	switch {
	case c.Dropped:
		return
	case t.State == rules.Pending:
		n.line("WATCH", "%s on %s: %s", t.Rule, t.Name, t.Summary)
	case t.State == rules.Active && c.From != rules.InProgress:
		n.line("TIP", "%s, %s on %s: %s", t.Severity, t.Rule, t.Name, t.Summary)
		for _, e := range t.Evidence {
			n.more("%s = %s", e.Name, quantity(e.Value, e.Unit))
		}
		n.more("remedy: %s", t.Remedy.Words())
		n.more("more:   protip tips show %s", t.ID)
	case t.State == rules.Resolved:
		n.line("RESOLVED", "%s on %s: %s", t.Rule, t.Name, t.ResolvedWhy)
	case t.State == rules.Unknown:
		n.line("UNKNOWN", "%s on %s: no data since %s", t.Rule, t.Name, t.NoDataSince.Format(time.TimeOnly))
	}
}

func (n *narrator) action(a remediation.Action, snap *inventory.Snapshot) {
	switch {
	case a.Outcome != "":
		if n.told[a.PlanID] {
			return
		}
		n.told[a.PlanID] = true
		n.line("OUTCOME", "%s: %s", strings.ReplaceAll(string(a.Outcome), "_", " "), hostLoad(snap, a.From))
	case a.State == remediation.Approved:
		n.line("PLAN", "move %s from %s to %s (%s)", a.VMName, a.FromName, a.ToName, a.Why)
	case a.State == remediation.Started:
		if quarter := int(a.Progress * 4); quarter != n.steps[a.ID] || a.Progress == 0 {
			n.steps[a.ID] = quarter
			n.line("MOVE", "%s %s %3.0f %%  (task %s)", a.VMName, bar(a.Progress, 20), a.Progress*100, a.TaskRef)
		}
	case a.State == remediation.Done:
		n.line("DONE", "%s is on %s", a.VMName, a.ToName)
	case a.State.Final():
		n.line("FAILED", "%s: %s: %s", a.VMName, strings.ReplaceAll(string(a.State), "_", " "), a.Error)
	}
}

// watch tells when a host becomes warm, hot, or calm again.
func (n *narrator) watch(snap *inventory.Snapshot) {
	if n.json {
		return
	}
	for h := range snap.Hosts() {
		cpu, ok := h.Samples.Value(inventory.HostCPUUsageRatio)
		if !ok {
			continue
		}
		was, is := n.hosts[h.ID], n.hosts[h.ID]
		switch {
		case cpu > 0.85:
			is = hot
		case cpu > 0.75 && was == calm:
			is = warm
		case cpu < 0.70:
			is = calm
		}
		if is == was {
			continue
		}
		n.hosts[h.ID] = is
		n.line([]string{"CALM", "WARM", "HOT"}[is], "%s", hostLoad(snap, h.ID))
	}
}

// hostLoad is a host's name and load in a line.
func hostLoad(snap *inventory.Snapshot, id inventory.ID) string {
	h, ok := snap.Host(id)
	if !ok {
		return id.String()
	}
	text := fmt.Sprintf("%-12s", h.Name)
	if cpu, ok := h.Samples.Value(inventory.HostCPUUsageRatio); ok {
		text += fmt.Sprintf("  CPU %s %3.0f %%", bar(cpu, 30), cpu*100)
	}
	if wait, ok := h.Samples.Value(inventory.HostCPUContention); ok {
		text += fmt.Sprintf("  its VMs wait %.1f %% of the time", wait*100)
	}
	return text
}

func hostName(snap *inventory.Snapshot, id inventory.ID) string {
	if h, ok := snap.Host(id); ok {
		return h.Name
	}
	return id.Ref
}

// bar draws a ratio, 0..1, as width characters.
func bar(ratio float64, width int) string {
	full := int(math.Round(min(max(ratio, 0), 1) * float64(width)))
	return strings.Repeat("█", full) + strings.Repeat("░", width-full)
}

// quantity prints a number in its unit as a person reads it.
func quantity(v float64, unit string) string {
	switch unit {
	case "ratio":
		return fmt.Sprintf("%.1f %%", v*100)
	case "hertz":
		return fmt.Sprintf("%.1f GHz", v/1e9)
	case "bytes":
		return fmt.Sprintf("%.1f GiB", v/(1<<30))
	case "seconds":
		return fmt.Sprintf("%.3f s", v)
	}
	return fmt.Sprintf("%g", v)
}
