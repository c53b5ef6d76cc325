package rules

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/protip/protip/internal/inventory"
)

// life drives the tip of one rule on one host, a minute at a time.
type life struct {
	*testing.T
	set  *Set
	snap *inventory.Snapshot
	now  time.Time
	tips []Tip
	last []Change
}

func newLife(t *testing.T) *life {
	set := mustLoad(t, hostRule("host.cpu_usage_ratio > 0.85", "host.cpu_usage_ratio < 0.7")+"    for: 2m\n")
	return &life{T: t, set: set, snap: hotFleet(t), now: noon}
}

// What a rule can say of its object.
var (
	hot     = Finding{When: True, Clear: False, Summary: "hot", Evidence: []Evidence{}}
	between = Finding{When: False, Clear: False, Summary: "warm"}
	calm    = Finding{When: False, Clear: True}
	both    = Finding{When: True, Clear: True, Summary: "both"}
	nodata  = Finding{NoDataSince: noon.Add(-time.Minute)}
	failed  = Finding{Err: errors.New("failed")}
	off5    = Finding{When: False, Clear: True, Why: "the host is powered off"}
)

// step lets a minute pass, then the rule say something; nil: it says nothing.
func (l *life) step(f *Finding) {
	l.now = l.now.Add(time.Minute)
	turn := Turn{Set: l.set, Snapshot: l.snap, Now: l.now, MaxGap: 90 * time.Second}
	if f != nil {
		said := *f
		rule := l.set.rules[0]
		said.Rule, said.Object, said.Name = rule, id(inventory.KindHost, "h"), "h"
		said.Cause, said.Remedy = rule.cause(&subject{}), rule.Remedy
		turn.Findings = []Finding{said}
	}
	l.tips, l.last = Step(l.tips, turn)
}

func (l *life) tip() Tip {
	l.Helper()
	if len(l.tips) != 1 {
		l.Fatalf("%d tips", len(l.tips))
	}
	return l.tips[0]
}

// state is the tip's state, empty if there is none.
func (l *life) state() State {
	if len(l.tips) == 0 {
		return ""
	}
	return l.tip().State
}

// TestLifecycle walks every transition. A script is a list of what happens, a minute after what was before, and the state
// that follows.
func TestLifecycle(t *testing.T) {
	type step struct {
		does string
		want State
	}
	active := []step{{"hot", Pending}, {"hot", Pending}, {"hot", Active}}
	then := func(first []step, more ...step) []step { return append(append([]step{}, first...), more...) }
	for name, script := range map[string][]step{
		"calm is no tip":                        {{"calm", ""}, {"between", ""}, {"nodata", ""}, {"failed", ""}, {"off", ""}, {"gone", ""}},
		"pending, then active":                  active,
		"pending, then nothing":                 {{"hot", Pending}, {"between", ""}},
		"pending, then calm":                    {{"hot", Pending}, {"calm", ""}},
		"pending, then gone":                    {{"hot", Pending}, {"gone", ""}},
		"pending, then off":                     {{"hot", Pending}, {"off", ""}},
		"pending over missing data starts anew": {{"hot", Pending}, {"hot", Pending}, {"nodata", Unknown}, {"hot", Pending}, {"hot", Pending}, {"hot", Active}},
		"pending over a gap starts anew":        {{"hot", Pending}, {"hot", Pending}, {"pause", Pending}, {"hot", Pending}, {"hot", Pending}, {"hot", Active}},
		"pending, unknown, calm":                {{"hot", Pending}, {"nodata", Unknown}, {"calm", ""}},
		"pending, unknown, gone":                {{"hot", Pending}, {"nodata", Unknown}, {"gone", ""}},
		"hysteresis":                            then(active, step{"between", Active}, step{"between", Active}, step{"hot", Active}, step{"calm", Resolved}),
		"when wins over clear":                  then(active, step{"both", Active}),
		"unknown and back":                      then(active, step{"nodata", Unknown}, step{"nodata", Unknown}, step{"hot", Active}),
		"unknown and back between":              then(active, step{"nodata", Unknown}, step{"between", Active}),
		"unknown, then calm":                    then(active, step{"nodata", Unknown}, step{"calm", Resolved}),
		"failed is unknown":                     then(active, step{"failed", Unknown}, step{"hot", Active}),
		"active over a gap stays":               then(active, step{"pause", Active}, step{"hot", Active}),
		"gone":                                  then(active, step{"gone", Resolved}),
		"gone while unknown":                    then(active, step{"nodata", Unknown}, step{"gone", Resolved}),
		"rule unloaded":                         then(active, step{"unload", Resolved}),
		"source not watched":                    then(active, step{"unwatch", Resolved}),
		"source not in sync":                    then(active, step{"resync", Unknown}, step{"hot", Active}),
		"powered off":                           then(active, step{"off", Resolved}),
		"in progress":                           then(active, step{"begin", InProgress}, step{"hot", InProgress}, step{"between", InProgress}, step{"end", Active}),
		"in progress, then calm":                then(active, step{"begin", InProgress}, step{"calm", Resolved}, step{"end", Resolved}),
		"in progress, unknown and back":         then(active, step{"begin", InProgress}, step{"nodata", Unknown}, step{"hot", InProgress}),
		"in progress ends while unknown":        then(active, step{"begin", InProgress}, step{"nodata", Unknown}, step{"end", Unknown}, step{"hot", Active}),
		"dismissed, then active again":          then(active, step{"dismiss", Dismissed}, step{"hot", Dismissed}, step{"hot", Dismissed}, step{"hot", Active}),
		"dismissed, between, then active again": then(active, step{"dismiss", Dismissed}, step{"between", Dismissed}, step{"between", Dismissed}, step{"between", Active}),
		"dismissed, then calm":                  then(active, step{"dismiss", Dismissed}, step{"calm", Resolved}),
		"dismissed, then gone":                  then(active, step{"dismiss", Dismissed}, step{"gone", Resolved}),
		"dismissed over missing data":           then(active, step{"dismiss", Dismissed}, step{"nodata", Dismissed}, step{"nodata", Dismissed}, step{"nodata", Unknown}, step{"hot", Active}),
		"undismissed":                           then(active, step{"dismiss", Dismissed}, step{"undismiss", Active}, step{"hot", Active}),
		"undismissed without data":              then(active, step{"dismiss", Dismissed}, step{"nodata", Dismissed}, step{"undismiss", Unknown}, step{"hot", Active}),
		"dismissed while unknown":               then(active, step{"nodata", Unknown}, step{"dismiss", Dismissed}, step{"hot", Dismissed}),
		"comes back within the dismissal":       then(active, step{"dismiss", Dismissed}, step{"calm", Resolved}, step{"hot", Pending}, step{"calm", Resolved}),
		"a second episode":                      then(active, step{"calm", Resolved}, step{"calm", Resolved}, step{"nodata", Resolved}, step{"hot", Pending}, step{"hot", Pending}, step{"hot", Active}),
		"a second that comes to nothing":        then(active, step{"calm", Resolved}, step{"hot", Pending}, step{"calm", Resolved}),
		"a second, unknown, that does so":       then(active, step{"calm", Resolved}, step{"hot", Pending}, step{"nodata", Unknown}, step{"gone", Resolved}),
	} {
		t.Run(name, func(t *testing.T) {
			l := newLife(t)
			for i, s := range script {
				l.do(s.does)
				if got := l.state(); got != s.want {
					t.Fatalf("step %d, %s: %q, want %q", i+1, s.does, got, s.want)
				}
				l.check()
			}
		})
	}
}

func (l *life) do(what string) {
	l.Helper()
	switch what {
	case "hot":
		l.step(&hot)
	case "between":
		l.step(&between)
	case "calm":
		l.step(&calm)
	case "both":
		l.step(&both)
	case "nodata":
		l.step(&nodata)
	case "failed":
		l.step(&failed)
	case "off":
		l.step(&off5)
	case "gone":
		l.step(nil)
	case "pause":
		l.now = l.now.Add(time.Hour)
	case "unload":
		set := l.set
		l.set = mustLoad(l, strings.Replace(hostRule("host.cores > 1", ""), "name: R", "name: Other", 1))
		l.step(nil)
		l.set = set
	case "unwatch", "resync":
		snap := l.snap
		l.snap = inventory.NewFleet().Snapshot()
		if what == "resync" {
			l.snap = newWorld(l).Snapshot()
		}
		l.step(nil)
		l.snap = snap
	case "begin":
		l.mark(l.tip().Begin())
	case "end":
		l.mark(l.tip().End(), nil)
	case "undismiss":
		l.mark(l.tip().Undismiss())
	case "dismiss":
		l.mark(l.tip().Dismiss(l.now.Add(150*time.Second), l.now))
	default:
		l.Fatalf("unknown event %s", what)
	}
}

func (l *life) mark(tip Tip, err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
	l.tips[0] = tip
}

// check holds what is true of any tip at any time.
func (l *life) check() {
	l.Helper()
	for _, tip := range l.tips {
		for what, bad := range map[string]bool{
			"was":          (tip.State == Unknown) != (tip.Was != ""),
			"no data":      tip.State == Unknown && tip.NoDataSince.IsZero(),
			"active at":    tip.State != Pending && tip.Was != Pending && tip.ActiveAt.Before(tip.Since),
			"resolved":     tip.State == Resolved && (tip.ResolvedAt.IsZero() || tip.ResolvedWhy == ""),
			"not resolved": tip.State != Resolved && (!tip.ResolvedAt.IsZero() || tip.ResolvedWhy != ""),
			"dismissed":    tip.State == Dismissed && !l.now.Before(tip.DismissedUntil),
			"previous":     tip.Previous != nil && (tip.Previous.State != Resolved || tip.Previous.Previous != nil || tip.State != Pending && tip.Was != Pending),
			"acting blind": tip.State == Active && !tip.NoDataSince.IsZero(),
			"identity":     tip.ID != TipID("p", "R", id(inventory.KindHost, "h")) || tip.Episode < 1,
		} {
			if bad {
				l.Errorf("%s does not hold of %+v", what, tip)
			}
		}
	}
}

// TestLifecycleHolds walks at random; check finds what no script thought of.
func TestLifecycleHolds(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	events := []string{"hot", "hot", "hot", "hot", "between", "calm", "both", "nodata", "failed", "off", "gone", "pause", "unload", "unwatch", "resync", "begin", "end", "dismiss", "undismiss"}
	seen := map[State]int{}
	l := newLife(t)
	for range 20_000 {
		event := events[rng.IntN(len(events))]
		s := l.state()
		switch {
		case event == "begin" && s != Active, event == "end" && s == "", event == "dismiss" && s != Active, event == "undismiss" && s != Dismissed:
			continue
		case event == "pause" && s == Dismissed:
			continue // check would meet a dismissal that has run out before Step does
		}
		before := l.tips
		l.do(event)
		l.check()
		seen[l.state()]++
		if s != "" && s != l.state() && len(l.last) == 0 && event != "begin" && event != "end" && event != "dismiss" && event != "undismiss" {
			t.Fatalf("%s: from %s to %s without a change", event, s, l.state())
		}
		if len(before) == 1 && len(l.tips) == 1 && l.tips[0].Episode < before[0].Episode-1 {
			t.Fatal("an episode was lost")
		}
	}
	for _, s := range []State{Pending, Active, InProgress, Resolved, Dismissed, Unknown} {
		if seen[s] == 0 {
			t.Errorf("never %s", s)
		}
	}
}

func TestEpisodes(t *testing.T) {
	l := newLife(t)
	for _, event := range []string{"hot", "hot", "hot", "calm", "hot"} {
		l.do(event)
	}
	tip := l.tip()
	if tip.Episode != 2 || !tip.Since.Equal(l.now) || tip.Previous == nil || tip.Previous.Episode != 1 {
		t.Fatalf("%+v", tip)
	}
	first := *tip.Previous
	l.do("calm")
	if !reflect.DeepEqual(l.tip(), first) || len(l.last) != 1 || !l.last[0].Dropped || l.last[0].Tip.State != Resolved {
		t.Errorf("%+v, changes %+v", l.tip(), l.last)
	}
	for range 3 {
		l.do("hot")
	}
	if tip := l.tip(); tip.Episode != 2 || tip.State != Active || tip.Previous != nil {
		t.Errorf("%+v", tip)
	}
}

func TestDroppedIsTold(t *testing.T) {
	l := newLife(t)
	l.do("hot")
	if len(l.last) != 1 || l.last[0].From != "" || l.last[0].Tip.State != Pending {
		t.Errorf("%+v", l.last)
	}
	l.do("hot")
	if len(l.last) != 0 {
		t.Errorf("a repeat is a change: %+v", l.last)
	}
	l.do("calm")
	if len(l.last) != 1 || !l.last[0].Dropped || l.last[0].From != Pending || l.last[0].Tip.State != Pending {
		t.Errorf("%+v", l.last)
	}
}

func TestRepeatUpdates(t *testing.T) {
	l := newLife(t)
	for range 3 {
		l.do("hot")
	}
	since, activeAt := l.tip().Since, l.tip().ActiveAt
	l.step(&Finding{When: True, Clear: False, Summary: "hotter", Evidence: []Evidence{{Name: "x", Value: 2}}})
	tip := l.tip()
	if tip.Summary != "hotter" || len(tip.Evidence) != 1 || !tip.UpdatedAt.Equal(l.now) || !tip.Since.Equal(since) || !tip.ActiveAt.Equal(activeAt) {
		t.Errorf("%+v", tip)
	}
	l.do("nodata")
	if tip := l.tip(); tip.Summary != "hotter" || !tip.UpdatedAt.Equal(l.now.Add(-time.Minute)) || !tip.NoDataSince.Equal(nodata.NoDataSince) {
		t.Errorf("while unknown: %+v", tip)
	}
}

func TestDismissalOutlastsTheEpisode(t *testing.T) {
	l := newLife(t)
	for range 3 {
		l.do("hot")
	}
	until := l.now.Add(10 * time.Minute)
	l.mark(l.tip().Dismiss(until, l.now))
	for _, event := range []string{"calm", "hot", "hot", "hot"} {
		l.do(event)
	}
	if tip := l.tip(); tip.State != Dismissed || tip.Episode != 2 || !tip.DismissedUntil.Equal(until) {
		t.Errorf("%+v", tip)
	}
}

func TestWhyResolved(t *testing.T) {
	for event, want := range map[string]string{
		"calm": "host.cpu_usage_ratio < 0.7", "gone": "the host is gone", "off": "the host is powered off",
		"unload": "the rule p/R is no longer loaded", "unwatch": "the source vc is no longer watched",
	} {
		l := newLife(t)
		for range 3 {
			l.do("hot")
		}
		l.do(event)
		if got := l.tip().ResolvedWhy; got != want {
			t.Errorf("%s: %q, want %q", event, got, want)
		}
	}
}

func TestMarksAreRefused(t *testing.T) {
	for _, s := range []State{Pending, Resolved, Unknown, Dismissed} {
		if _, err := (Tip{ID: "x", State: s, Was: Active}).Begin(); err == nil {
			t.Errorf("began a tip that is %s", s)
		}
	}
	for _, s := range []State{Pending, Resolved, InProgress} {
		if _, err := (Tip{ID: "x", State: s}).Dismiss(noon.Add(1), noon); err == nil {
			t.Errorf("dismissed a tip that is %s", s)
		}
	}
	if _, err := (Tip{ID: "x", State: Active}).Dismiss(noon, noon); err == nil {
		t.Error("dismissed until now")
	}
}

func TestRuleWithoutFor(t *testing.T) {
	l := newLife(t)
	l.set = mustLoad(t, hostRule("host.cpu_usage_ratio > 0.85", ""))
	l.do("hot")
	if l.state() != Active {
		t.Errorf("%s", l.state())
	}
}

// TestOutage goes the whole way from a fleet: no tip resolves because nobody looked.
func TestOutage(t *testing.T) {
	set := mustLoad(t, hostRule("host.cpu_usage_ratio > 0.85", ""))
	w := newWorld(t)
	w.apply(inventory.Delta{Begin: true, Synced: true, Hosts: []inventory.Host{host("h", "")}, Samples: []inventory.SampleSet{hostLoad("h", noon, 0.9, 0)}}, noon)
	var tips []Tip
	turn := func(now time.Time) Tip {
		t.Helper()
		w.Expire(now)
		findings, _ := set.Eval(Input{Snapshot: w.Snapshot(), Now: now})
		tips, _ = Step(tips, Turn{Set: set, Snapshot: w.Snapshot(), Findings: findings, Now: now})
		if len(tips) != 1 {
			t.Fatalf("%d tips", len(tips))
		}
		return tips[0]
	}
	if tip := turn(noon); tip.State != Active {
		t.Fatal(tip.State)
	}
	w.Down("vc", errors.New("refused"))
	if tip := turn(noon.Add(time.Hour)); tip.State != Unknown || !tip.NoDataSince.Equal(noon) {
		t.Fatalf("%+v", tip)
	}
	later := noon.Add(2 * time.Hour)
	w.apply(inventory.Delta{Begin: true, Hosts: []inventory.Host{host("h", "")}}, later)
	if tip := turn(later); tip.State != Unknown {
		t.Fatalf("reconnecting: %s", tip.State)
	}
	w.apply(inventory.Delta{Synced: true, Samples: []inventory.SampleSet{hostLoad("h", later, 0.9, 0)}}, later)
	if tip := turn(later); tip.State != Active || !tip.NoDataSince.IsZero() {
		t.Fatalf("back: %+v", tip)
	}
	w.apply(inventory.Delta{Removed: []inventory.ID{id(inventory.KindHost, "h")}}, later)
	if tip := turn(later); tip.State != Resolved || tip.ResolvedWhy != "the host is gone" {
		t.Fatalf("removed: %+v", tip)
	}
}

func TestTipJSON(t *testing.T) {
	l := newLife(t)
	for range 3 {
		l.do("hot")
	}
	tip := l.tip()
	tip.PackSHA256 = "…"
	got, err := json.MarshalIndent(tip, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	want := `{
 "id": "8be89d1da278",
 "episode": 1,
 "pack": "p",
 "pack_sha256": "…",
 "rule": "R",
 "severity": "warning",
 "object": "vc/host/h",
 "name": "h",
 "state": "active",
 "summary": "hot",
 "cause": "host.cpu_usage_ratio \u003e 0.85 for 2m",
 "evidence": [],
 "remedy": {
  "action": "rebalance-host",
  "cpu_below": 0.6
 },
 "since": "2026-03-01T12:01:00Z",
 "active_at": "2026-03-01T12:03:00Z",
 "updated_at": "2026-03-01T12:03:00Z"
}`
	if string(got) != want {
		t.Errorf("got %s", got)
	}
	var back Tip
	if err := json.Unmarshal(got, &back); err != nil || !reflect.DeepEqual(back, tip) {
		t.Errorf("does not round-trip: %v", err)
	}
}
