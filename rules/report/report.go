// Package report says what months of numbers mean: what VMs were given and what they use, how full hosts are, when they will be full, and
// which physical machines could be VMs. It promises that what is not known is absent and never zero, and that no VM's past is charged to
// the host that it moved to. It must not import what acts, stores or serves; it asks history alone.
package report

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/protip/protip/internal/history"
)

// Names are the reports there are.
var names = []string{"vm-allocation", "vm-utilization", "host-utilization", "growth", "candidates"}

// Request is what a report is asked for.
type Request struct {
	Past  history.Querier
	Range history.Range // its Step is filled in by StepOf if it is 0
	Scope Scope
	// Progress is told how far the report has come, 0..1; it may be nil.
	Progress func(done float64)

	// Of growth: utilisation to be reached, how many hosts of a cluster may fail, and what would be if there were more of hosts or VMs.
	Thresholds []float64
	Reserve    int
	MoreHosts  int
	MoreVMs    int

	// Of candidates: what they may fill a host to, 0..1.
	Ceiling float64
}

// Scope narrows a report. Names are compared as they are; empty is all.
type Scope struct {
	Source  string `json:"source,omitempty"`
	Cluster string `json:"cluster,omitempty"`
	Host    string `json:"host,omitempty"`
	Tag     string `json:"tag,omitempty"` // category=tag, or a tag of any category; VMs only
}

func (s Scope) String() string {
	var parts []string
	for _, p := range [][2]string{{"source", s.Source}, {"cluster", s.Cluster}, {"host", s.Host}, {"tag", s.Tag}} {
		if p[1] != "" {
			parts = append(parts, p[0]+" "+p[1])
		}
	}
	if len(parts) == 0 {
		return "everything"
	}
	return strings.Join(parts, ", ")
}

// Report is a finished report: tables for people and programs, charts for people.
type Report struct {
	Name   string
	Title  string
	Start  time.Time
	End    time.Time
	Step   time.Duration // what a single number is the mean of
	Scope  Scope
	Notes  []string
	Tables []Table
	Charts []Chart
}

// Table has a row for each object. A cell is a string, a float64 in the column's base unit, or nil: not known.
type Table struct {
	Name    string
	Title   string
	Columns []Column
	Rows    [][]any
}

// Column names a table's values.
type Column struct {
	Name  string // for programs; ends in its unit
	Title string // for people
	Unit  Unit
	For   Audience
}

// Audience is who gets to see a column.
type Audience uint8

// Audiences.
const (
	Everyone Audience = iota
	Programs          // JSON and CSV
	People            // text and page: it says in words what others have as numbers
)

// Unit is how a value is shown to people. Programs get base units.
type Unit string

// Units.
const (
	Text    Unit = ""
	Count   Unit = "count"
	Ratio   Unit = "ratio"
	Percent Unit = "percent" // a ratio that is shown as a percentage
	Hertz   Unit = "hertz"
	Bytes   Unit = "bytes"
	Days    Unit = "days"
	Stars   Unit = "stars"
)

// Chart is lines over time, all in one unit.
type Chart struct {
	Title string
	Unit  Unit
	Start time.Time
	Step  time.Duration
	Lines []Line
	Marks []Mark // levels
}

// Line is values at equal distances; NaN is a gap. Band, if any, is an interval around each.
type Line struct {
	Name      string
	Values    []float64
	Low, High []float64
	Expected  bool // a forecast
}

// Mark is a level that a line may reach.
type Mark struct {
	Name  string
	Value float64
}

// maxCharts bounds a page.
const maxCharts = 24

// Make makes a report.
func Make(ctx context.Context, name string, r Request) (Report, error) {
	if !slices.Contains(names, name) {
		return Report{}, fmt.Errorf("no report %s: there are %s", name, strings.Join(names, ", "))
	}
	if r.Range.Step == 0 {
		r.Range.Step = StepOf(name, r.Range)
	}
	if r.Range.Step <= 0 || r.Range.End.Sub(r.Range.Start) < 2*r.Range.Step {
		return Report{}, fmt.Errorf("report from %s to %s: that is too short", r.Range.Start, r.Range.End)
	}
	if r.Range.End.Sub(r.Range.Start)/r.Range.Step > maxSteps {
		return Report{}, fmt.Errorf("report from %s to %s: that is more than %d times %s", r.Range.Start, r.Range.End, maxSteps, r.Range.Step)
	}
	// A number at t is of the time before t: the first is of the range's first step.
	r.Range.End = r.Range.Start.Add(r.Range.End.Sub(r.Range.Start) / r.Range.Step * r.Range.Step)
	out := Report{Name: name, Start: r.Range.Start, End: r.Range.End, Step: r.Range.Step, Scope: r.Scope}
	r.Range.Start = r.Range.Start.Add(r.Range.Step)
	var err error
	switch name {
	case "vm-allocation":
		err = reportVMs(ctx, r, &out, vmAllocation)
	case "vm-utilization":
		err = reportVMs(ctx, r, &out, vmUtilization)
	case "host-utilization":
		err = reportHosts(ctx, r, &out, hostUtilization)
	case "growth":
		if r.Scope.Tag != "" {
			err = reportVMs(ctx, r, &out, growthOfTag)
		} else {
			err = reportHosts(ctx, r, &out, growth)
		}
	case "candidates":
		err = reportCandidates(ctx, r, &out)
	}
	if err != nil {
		return Report{}, fmt.Errorf("report %s: %w", name, err)
	}
	if r.Progress != nil {
		r.Progress(1)
	}
	return out, nil
}

// Names are the reports there are.
func Names() []string { return slices.Clone(names) }

const maxSteps = 11_000

// StepOf is what a report takes means over: five minutes of a day, hours of two months, more of more. Growth is judged by hours.
func StepOf(name string, r history.Range) time.Duration {
	length := r.End.Sub(r.Start)
	switch {
	case name == "growth":
		return time.Hour
	case length <= 24*time.Hour:
		return 5 * time.Minute
	case length <= 60*24*time.Hour:
		return time.Hour
	default:
		return (length/1440 + time.Hour - 1).Truncate(time.Hour)
	}
}
