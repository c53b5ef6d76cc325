package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/protip/protip/internal/app"
	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// narrator tells what happens in the demo: a line for each thing that a person at the console would look up at.
type narrator struct {
	out     io.Writer
	json    bool
	acts    string // automatic, manual or off
	goesOn  bool   // after the first outcome
	clock   *clock.Clock
	pack    *rules.Pack
	started time.Time

	hosts map[inventory.ID]heat
	ours  map[inventory.ID]inventory.ID // VM -> where protip moves it
	half  map[string]bool               // actions that were told to be half done
	plans map[string]bool               // plans whose outcome was told
}

// heat is how warm a host was when last told.
type heat string

const (
	calm heat = "CALM"
	warm heat = "WARM"
	hot  heat = "HOT"
)

func newNarrator(c *console, f demoFlags, clk *clock.Clock, pack *rules.Pack) *narrator {
	return &narrator{
		out: c.out, json: c.json, acts: f.remediation, goesOn: !f.once, clock: clk, pack: pack, started: time.Now(),
		hosts: map[inventory.ID]heat{}, ours: map[inventory.ID]inventory.ID{}, half: map[string]bool{}, plans: map[string]bool{},
	}
}

// line prints one event: the time since the start, a word that says what kind it is, and the sentence. Names in it may
// hold anything.
func (n *narrator) line(word, format string, args ...any) {
	since := time.Since(n.started)
	fmt.Fprintf(n.out, "%02d:%02d  %-8s  %s\n", int(since.Minutes()), int(since.Seconds())%60, word, printable(fmt.Sprintf(format, args...)))
}

// more adds to the line before.
func (n *narrator) more(format string, args ...any) {
	fmt.Fprintf(n.out, "%17s%s\n", "", printable(fmt.Sprintf(format, args...)))
}

// event tells one event of the agent.
func (n *narrator) event(e app.Event, snap *inventory.Snapshot) {
	if n.json {
		_ = jsonTo(n.out).Encode(e)
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
	case e.Offer != nil:
		n.line("OFFER", "%s: %s", e.Offer.Tip.Name, e.Offer.Downtime)
		n.more("next    if you agree to the downtime: protip tips implement %s --downtime", e.Offer.Tip.ID)
	}
}

func (n *narrator) source(s inventory.Source, snap *inventory.Snapshot) {
	if !s.Up {
		n.line("DOWN", "%s: %s", s.Name, s.Error)
		return
	}
	n.line("UP", "%s: %s, %s, %s", s.Name, count(snap.ClusterTable(s.Name).Facts, "cluster"),
		count(snap.HostTable(s.Name).Facts, "host"), count(snap.VMTable(s.Name).Facts, "VM"))
}

// count is how many objects of a table are there, in words.
func count[T any](objects []*T, noun string) string {
	n := 0
	for _, obj := range objects {
		if obj != nil {
			n++
		}
	}
	return plural(n, noun)
}

// change tells what others did: protip's own moves are told as actions.
func (n *narrator) change(c inventory.Change, snap *inventory.Snapshot) {
	if c.Kind != inventory.Moved || n.ours[c.ID] == c.To {
		return
	}
	n.line("SEEN", "somebody else moved %s to %s", c.Name, hostName(snap, c.To))
}

func (n *narrator) tip(c rules.Change) {
	t := c.Tip
	switch {
	case c.Dropped:
		n.line("OVER", "%s on %s came to nothing", t.Rule, t.Name)
	case t.State == rules.Pending:
		n.line("WATCH", "%s holds for %s%s", t.Rule, t.Name, n.patience(t.Rule))
	case t.State == rules.Active && c.From == rules.Unknown:
		n.line("KNOWN", "%s on %s: there are numbers again", t.Rule, t.Name)
	case t.State == rules.Active && c.From != rules.InProgress:
		n.line("TIP", "%s", t.Summary)
		n.more("rule    %s of pack %s, %s", t.Rule, t.Pack, t.Severity)
		n.more("cause   %s", t.Cause)
		n.more("seen    %s", seen(t.Evidence))
		n.more("remedy  %s", t.Remedy.Words())
		n.more("next    %s", n.next(t))
	case t.State == rules.Resolved:
		n.line("RESOLVED", "%s on %s: %s", t.Rule, t.Name, t.ResolvedWhy)
	case t.State == rules.Unknown:
		n.line("UNKNOWN", "%s on %s: no data since %s", t.Rule, t.Name, t.NoDataSince.Format(time.TimeOnly))
	}
}

func seen(evidence []rules.Evidence) string {
	texts := make([]string, len(evidence))
	for i, e := range evidence {
		texts[i] = e.Name + " = " + quantity(e.Value, e.Unit)
	}
	return strings.Join(texts, ", ")
}

// patience says how long a rule's condition must hold.
func (n *narrator) patience(rule string) string {
	for _, r := range n.pack.Rules {
		if r.Name == rule {
			return fmt.Sprintf(": a tip if it lasts %s (%s here)", model.Duration(r.For), n.clock.Real(r.For).Round(100*time.Millisecond))
		}
	}
	return ""
}

// next is what happens to a new tip, or what has to.
func (n *narrator) next(t rules.Tip) string {
	if t.Remedy.Action == rules.NoRemedy {
		return "protip tips show " + t.ID
	}
	switch n.acts {
	case "automatic":
		return "the configuration lets this rule act by itself in this cluster"
	case "manual":
		return "protip tips implement " + t.ID
	}
	return "nothing moves: remediation is off; protip tips show " + t.ID
}

func (n *narrator) action(a remediation.Action, snap *inventory.Snapshot) {
	switch {
	case a.Outcome != "":
		n.outcome(a, snap)
	case a.State == remediation.Approved:
		n.ours[a.VM] = a.To
		n.line("PLAN", "%s to %s, %s", a.VMName, a.ToName, a.Why)
	case a.State == remediation.Started && a.Progress == 0:
		n.line("MOVE", "%-18s %s  %s in %s", printable(a.VMName), bar(0, 20), a.TaskRef, a.VM.Source)
	case a.State == remediation.Started && a.Progress >= 0.5 && a.Progress < 1 && !n.half[a.ID]:
		n.half[a.ID] = true
		n.line("MOVE", "%-18s %s %3.0f %%", printable(a.VMName), bar(a.Progress, 20), a.Progress*100)
	case a.State == remediation.Done:
		n.line("DONE", "%-18s %s  %s shows it on %s", printable(a.VMName), bar(1, 20), a.VM.Source, a.ToName)
	case a.State == remediation.Withdrawn:
		n.line("STAYS", "%s: %s", a.VMName, a.Error)
	case a.State.Final():
		n.line("FAILED", "%s: %s: %s", a.VMName, words(a.State), a.Error)
		delete(n.ours, a.VM)
	}
}

// outcome tells a plan's outcome once: its actions share it.
func (n *narrator) outcome(a remediation.Action, snap *inventory.Snapshot) {
	if n.plans[a.PlanID] {
		return
	}
	n.plans[a.PlanID] = true
	n.line("OUTCOME", "%s: %s", words(a.Outcome), hostLoad(snap, a.From))
	if n.goesOn {
		n.more("the agent goes on watching; Ctrl-C ends the demo")
	}
}

func words[T ~string](s T) string { return strings.ReplaceAll(string(s), "_", " ") }

// watch tells when a host becomes warm, hot, or calm again, by the pack's own thresholds.
func (n *narrator) watch(snap *inventory.Snapshot) {
	if n.json {
		return
	}
	hotAbove, _ := n.pack.Config["hot"].(float64)
	calmBelow, _ := n.pack.Config["calm"].(float64)
	for h := range snap.Hosts() {
		cpu, ok := h.Samples.Value(inventory.HostCPUUsageRatio)
		if !ok {
			continue
		}
		was, told := n.hosts[h.ID]
		is := was
		switch {
		case cpu > hotAbove:
			is = hot
		case cpu < calmBelow:
			is = calm
		case cpu > (hotAbove+calmBelow)/2 && was != hot:
			is = warm
		}
		if is == was {
			continue
		}
		n.hosts[h.ID] = is
		if told || is != calm { // a host that is calm at first is no news
			n.line(string(is), "%s", hostLoad(snap, h.ID))
		}
	}
}

// ending is the last line: what became of the tip.
func (n *narrator) ending(t *thread) {
	switch {
	case t == nil:
		n.line("END", "no host ran hot")
	case t.closing() != nil && t.before != nil && t.latest != nil:
		n.line("END", "%s: CPU %.0f %% -> %.0f %% by %s", t.tip.Name, *t.before*100, *t.latest*100, moves(t.actions))
	case t.lowest != nil:
		n.line("END", "%s: CPU never below %.0f %% since the tip; %s", t.tip.Name, *t.lowest*100, moves(t.actions))
	}
}

func moves(actions []remediation.Action) string {
	n := 0
	for _, a := range actions {
		if a.State == remediation.Done {
			n++
		}
	}
	return plural(n, "move")
}

// hostLoad is a host's name and load in a line.
func hostLoad(snap *inventory.Snapshot, id inventory.ID) string {
	h, ok := snap.Host(id)
	if !ok {
		return id.String()
	}
	text := h.Name
	if cpu, ok := h.Samples.Value(inventory.HostCPUUsageRatio); ok {
		text += fmt.Sprintf("  CPU %s %3.0f %%", bar(cpu, 20), cpu*100)
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
