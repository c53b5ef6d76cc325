package rules

import (
	"fmt"
	"time"

	"github.com/expr-lang/expr/vm"

	"github.com/protip/protip/internal/inventory"
)

// Verdict is what a condition says. Its zero value is Undecided.
type Verdict uint8

// Verdicts. Undecided: an input is missing or stale, or the rule failed; it is neither true nor false.
const (
	Undecided Verdict = iota
	False
	True
)

// String is unknown, false or true.
func (v Verdict) String() string { return [...]string{"unknown", "false", "true"}[v] }

// MarshalText is String.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// Input is what rules judge.
type Input struct {
	Snapshot *inventory.Snapshot
	// Answers are what history said to Set.Queries at Now. A query without an answer makes its rules undecided.
	Answers map[Query]Answer
	// Alerts are those of other systems that fire at Now, each of an object.
	Alerts []Alert
	Now    time.Time
	// Followed are the objects that there are tips of. Of the others only those are told where the condition holds: a fleet that
	// is calm costs no memory. Nil: every object is told.
	Followed Followed
}

// Followed are objects, by the rule that has a tip of them, as pack/rule.
type Followed map[string]map[inventory.ID]bool

// Follow are the objects of tips.
func Follow(tips []Tip) Followed {
	out := Followed{}
	for _, tip := range tips {
		name := tip.Pack + "/" + tip.Rule
		if out[name] == nil {
			out[name] = map[inventory.ID]bool{}
		}
		out[name][tip.Object] = true
	}
	return out
}

// Finding is what a rule says of one object at one time.
type Finding struct {
	Rule    *Rule        `json:"rule"`
	Object  inventory.ID `json:"object"`
	Name    string       `json:"name"`
	Cluster inventory.ID `json:"cluster,omitzero"`
	DRS     bool         `json:"drs,omitempty"`   // the cluster's own DRS is fully automatic
	Place   *Place       `json:"place,omitempty"` // of a service, where it runs; nil while that is not known
	When    Verdict      `json:"when"`
	Clear   Verdict      `json:"clear"` // of a rule without clear: the opposite of When
	// Why says why the rule has nothing to judge (a VM that is off). When is then false and Clear true.
	Why string `json:"why,omitempty"`
	// NoDataSince is when the oldest missing input was last seen, zero if it never was. Only of an undecided finding.
	NoDataSince time.Time `json:"no_data_since,omitzero"`
	// Summary and Evidence are empty while all is calm (When false and Clear true) or nothing is known.
	// So are Cause, the condition with the thresholds that hold for the object, and Remedy.
	Cause    string     `json:"cause,omitempty"`
	Remedy   Remedy     `json:"remedy,omitzero"`
	Summary  string     `json:"summary,omitempty"`
	Evidence []Evidence `json:"evidence,omitempty"`
	Err      error      `json:"-"` // the rule failed on this object; both verdicts are then undecided
}

// Stats count the objects that a rule judged.
type Stats struct {
	Findings, True, Undecided, Failed int
}

// Eval judges every object that the rule is on, and tells of them in the order of the snapshot. It is pure.
//
// A finding is undecided if any input that when or clear reads is missing or stale, even one that the logic would not
// have come to: "in maintenance, so not hot" must not clear a tip on the word of a source that no longer answers, and
// what a rule needs is plain to see in its text. A sample is stale when it is older than two intervals of its source, a
// fact when the source has not answered for as long. Sources that never were in sync, and templates, are passed over.
func (r *Rule) Eval(in Input) ([]Finding, Stats) { return r.eval(in, surroundings{}) }

func (r *Rule) eval(in Input, around surroundings) ([]Finding, Stats) {
	e := evaluator{rule: r, snapshot: in.Snapshot, around: around, now: in.Now, env: make(map[string]any, len(r.inputs)), all: in.Followed == nil}
	if !e.all {
		e.followed = in.Followed[r.String()]
	}
	for _, f := range r.with {
		answer := in.Answers[Query{f.query, r.On}]
		if answer.Err != nil && e.broken == nil {
			e.broken = fmt.Errorf("with.%s of %s: %w", f.name, r, answer.Err)
		}
		e.answers = append(e.answers, answer)
	}
	if r.alert != nil {
		e.firing = r.firing(in.Alerts)
	}
	for _, src := range in.Snapshot.Sources() {
		if !src.Synced || !r.Pack.appliesTo(src.Platform) {
			continue
		}
		e.horizon = horizonOf(src, in.Now)
		switch r.On {
		case inventory.KindCluster:
			e.clusters(src.Name)
		case inventory.KindHost:
			e.hosts(src.Name)
		case inventory.KindVM:
			e.vms(src.Name)
		case inventory.KindService:
			e.services(src.Name)
		case inventory.KindDatastore:
			e.datastores(src.Name)
		}
	}
	return e.findings, e.stats
}

// Eval judges with every rule of the set. A rule that fails fails alone.
func (s *Set) Eval(in Input) ([]Finding, map[*Rule]Stats) {
	var out []Finding
	stats := make(map[*Rule]Stats, len(s.rules))
	around := surroundings{}
	for _, r := range s.rules {
		found, st := r.eval(in, around)
		out, stats[r] = append(out, found...), st
	}
	return out, stats
}

// evaluator is one run of one rule: it keeps the machine and the environment that all objects share.
type evaluator struct {
	rule     *Rule
	snapshot *inventory.Snapshot
	around   surroundings
	now      time.Time
	answers  []Answer // by the slots of the rule's bound fields
	firing   map[inventory.ID]*Alert
	all      bool // tell every object
	followed map[inventory.ID]bool
	broken   error // why there is no answer to one of its queries
	horizon  horizon
	machine  vm.VM
	env      map[string]any
	findings []Finding
	stats    Stats
}

func (e *evaluator) clusters(source string) {
	t := e.snapshot.ClusterTable(source)
	for i, c := range t.Facts {
		if c != nil {
			e.judge(c.ID, c.Name, &subject{cluster: c, clusterSamples: t.Samples[i]})
		}
	}
}

func (e *evaluator) hosts(source string) {
	t := e.snapshot.HostTable(source)
	e.grow(len(t.Facts))
	var s subject
	for i, h := range t.Facts {
		if h == nil {
			continue
		}
		s = subject{host: h, hostSamples: t.Samples[i]}
		s.cluster, _ = e.snapshot.Cluster(h.Cluster)
		s.clusterSamples = e.snapshot.ClusterSamples(h.Cluster)
		e.judge(h.ID, h.Name, &s)
	}
}

func (e *evaluator) vms(source string) {
	t, around := e.snapshot.VMTable(source), e.around.vms(e.snapshot, source)
	e.grow(len(t.Facts))
	var s subject
	for i, vm := range t.Facts {
		if vm == nil || vm.Template {
			continue
		}
		s = subject{vm: vm, vmSamples: t.Samples[i], host: around[i].Host, hostSamples: around[i].Samples, cluster: around[i].cluster, clusterSamples: around[i].clusterSamples}
		e.judge(vm.ID, vm.Name, &s)
	}
}

// surroundings are the hosts and clusters of VMs, looked up once for all rules.
type surroundings map[string][]around

// around is what is around one VM; nil where protip does not know it.
type around struct {
	inventory.HostView
	cluster        *inventory.Cluster
	clusterSamples inventory.Samples
}

// vms are the surroundings of a source's VMs, by slot.
func (s surroundings) vms(snap *inventory.Snapshot, source string) []around {
	if known, ok := s[source]; ok {
		return known
	}
	facts := snap.VMTable(source).Facts
	out := make([]around, len(facts))
	for i, vm := range facts {
		if vm == nil {
			continue
		}
		if h, ok := snap.Host(vm.Host); ok {
			out[i].HostView = h
			out[i].cluster, _ = snap.Cluster(h.Cluster)
			out[i].clusterSamples = snap.ClusterSamples(h.Cluster)
		}
	}
	s[source] = out
	return out
}

func (e *evaluator) grow(n int) {
	if e.all && e.findings == nil {
		e.findings = make([]Finding, 0, n)
	}
}

// judge appends the finding of one object.
func (e *evaluator) judge(id inventory.ID, name string, s *subject) {
	s.id, s.pack, s.answers, s.alert = id, e.rule.Pack, e.answers, nil
	if e.firing != nil {
		s.alert = e.firing[id]
	}
	f := Finding{Rule: e.rule, Object: id, Name: name}
	if s.cluster != nil {
		f.Cluster, f.DRS = s.cluster.ID, drivenByDRS(s.cluster)
	}
	told := e.all || len(e.followed) > 0 && e.followed[id]
	f.Place = placeOf(s)
	switch why := e.beside(s); {
	case e.broken != nil:
		f.Err = e.broken
		e.stats.Undecided++
		e.stats.Failed++
	case why != "":
		f.When, f.Clear, f.Why = False, True, why
	case !e.load(s, &f):
		e.stats.Undecided++
	default:
		e.decide(s, &f, told)
	}
	e.stats.Findings++
	if f.When == True || told {
		e.findings = append(e.findings, f)
	}
}

// beside says why the rule has nothing to judge here: what is off uses nothing, and a host of no cluster has no cluster's
// facts. It does not say so on the word of a source that no longer answers.
func (e *evaluator) beside(s *subject) string {
	if !e.horizon.facts {
		return ""
	}
	if s.service != nil {
		return e.besideService(s)
	}
	for _, f := range e.rule.inputs {
		switch {
		case f.object == inventory.KindCluster && s.host != nil && s.host.Cluster.IsZero():
			return "the host is in no cluster"
		case f.query != "" && has(e.answers[f.slot], s.id):
		case (f.sample || f.query != "") && f.object == inventory.KindVM && off(s.vm.Power):
			return "the VM is " + powerWord(s.vm.Power)
		case (f.sample || f.query != "") && f.object == inventory.KindHost && e.rule.On == inventory.KindHost && off(s.host.Power):
			return "the host is " + powerWord(s.host.Power)
		}
	}
	return ""
}

func has(a Answer, id inventory.ID) bool {
	_, ok := a.Values[id]
	return ok
}

func off(p inventory.Power) bool {
	return p == inventory.PowerOff || p == inventory.PowerSuspended || p == inventory.PowerStandby
}

func powerWord(p inventory.Power) string {
	switch p {
	case inventory.PowerSuspended:
		return "suspended"
	case inventory.PowerStandby:
		return "in standby"
	}
	return "powered off"
}

// load puts the rule's inputs into the environment and reports whether all are known.
func (e *evaluator) load(s *subject, f *Finding) bool {
	complete := true
	for _, in := range e.rule.inputs {
		v, seen, ok := in.read(s, e.horizon)
		if ok {
			e.env[in.path] = v
			continue
		}
		if complete || seen.Before(f.NoDataSince) {
			f.NoDataSince = seen
		}
		complete = false
	}
	return complete
}

// decide runs the conditions, and renders what a person would want to see unless all is calm. told says that the finding is
// told even if the condition does not hold: else nobody asks whether it is clear.
func (e *evaluator) decide(s *subject, f *Finding, told bool) {
	when, err := s.alert != nil, error(nil)
	if e.rule.alert == nil {
		when, err = e.run(e.rule.when)
	}
	if err != nil {
		e.failed(f, "when", err)
		return
	}
	if !when && !told {
		f.When = False
		return
	}
	clear := !when
	if e.rule.clear.code != nil {
		if clear, err = e.run(e.rule.clear); err != nil {
			e.failed(f, "clear", err)
			return
		}
	}
	if when || !clear {
		if f.Summary, err = e.rule.summary.render(&e.machine, e.env, s, e.horizon); err != nil {
			e.failed(f, "summary", err)
			return
		}
		if f.Remedy, err = e.remedy(s); err != nil {
			e.failed(f, "remedy", err)
			return
		}
		f.Evidence, f.Cause = e.evidence(s), e.rule.cause(s)
	}
	f.When, f.Clear = verdict(when), verdict(clear)
	if when {
		e.stats.True++
	}
}

func (e *evaluator) run(p program) (bool, error) {
	v, err := e.machine.Run(p.code, e.env)
	if err != nil {
		return false, err
	}
	b, ok := v.(bool)
	if !ok {
		return false, fmt.Errorf("gave a %T", v)
	}
	return b, nil
}

func (e *evaluator) failed(f *Finding, what string, err error) {
	f.When, f.Clear, f.Summary = Undecided, Undecided, ""
	f.Err = fmt.Errorf("evaluate %s of %s for %s: %w", what, e.rule, f.Object, err)
	e.stats.Undecided++
	e.stats.Failed++
}

// evidence are the numbers that were measured, of those that when reads.
func (e *evaluator) evidence(s *subject) []Evidence {
	out := []Evidence{}
	for _, f := range e.rule.when.reads {
		v, at, ok := f.read(s, e.horizon)
		switch {
		case !ok:
		case f.query != "":
			out = append(out, Evidence{Name: f.path, Value: v.(float64), At: e.now, Query: f.query})
		case f.sample:
			out = append(out, Evidence{Name: f.path, Value: v.(float64), Unit: f.metric.Desc().Unit, At: at})
		}
	}
	return out
}

func verdict(b bool) Verdict {
	if b {
		return True
	}
	return False
}
