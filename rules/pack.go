package rules

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"

	"github.com/protip/protip/internal/inventory"
)

// Bounds of a pack.
const (
	maxPackBytes   = 1 << 20
	maxRules       = 100
	maxConfigKeys  = 100
	maxTests       = 100
	maxEvery       = 24 * time.Hour
	maxFor         = 30 * 24 * time.Hour
	maxDescription = 4096
	maxWith        = 10
	maxReach       = 400 * 24 * time.Hour // as long as roll-ups are kept
)

// Pack is one file of rules with their thresholds and tests.
type Pack struct {
	Name        string   `json:"pack"`
	Version     string   `json:"version"`
	Description string   `json:"description"`
	Platforms   []string `json:"platforms,omitempty"` // of the sources it judges; empty: all
	MinProtip   string   `json:"min_protip,omitempty"`
	SHA256      string   `json:"sha256"` // of the file's exact bytes, in hex
	// Config is what the pack declares, with the agent's own values in place. Values are float64, bool or string.
	Config map[string]any `json:"config,omitempty"`
	Rules  []*Rule        `json:"rules"`

	file  string
	tests []packTest
	joins []Join

	overrides []Override
	varying   map[string]*field // keys of the config that overrides set
}

// Rule is a condition on one kind of object, ready to run. It does not change and may be used by many goroutines.
type Rule struct {
	Pack     *Pack
	Name     string
	On       inventory.Kind
	When     string
	For      time.Duration // how long when must hold
	Every    time.Duration // how old the answers to its PromQL may be; 0: as new as the evaluation
	Clear    string        // empty: when no longer holds
	Severity Severity
	Summary  string
	Remedy   Remedy

	when, clear           program
	cpuBelow, memoryBelow program // of the remedy, and the two below
	apartBelow            program
	vcpus, memory         program
	summary               template
	inputs                []*field          // what when and clear read
	alert                 map[string]string // labels of the alert that it waits for, instead of when; nil: none
	told                  []*field          // what that alert says
	with                  []*field          // names that are bound to PromQL
	settings              map[string]bool   // keys of the config that its expressions read
	line, column          int               // of the rule
	reach                 time.Duration     // how far back they read
}

// MarshalText is pack/rule: in JSON a rule is its name.
func (r *Rule) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// String is pack/rule.
func (r *Rule) String() string { return r.Pack.Name + "/" + r.Name }

// NeedsHistory reports whether the rule reads more than the fleet as it is now.
func (r *Rule) NeedsHistory() bool { return len(r.with) > 0 }

// SettleRange is how long after a change the rule still judges what was before it: the longest range in with, every, and for.
func (r *Rule) SettleRange() time.Duration { return r.reach + r.Every + r.For }

// cause is the rule's condition in words, with the thresholds that hold for an object in place.
func (r *Rule) cause(s *subject) string {
	words := r.Pack.spell(r.when.words, s)
	if r.For == 0 {
		return words
	}
	return words + " for " + model.Duration(r.For).String()
}

// appliesTo reports whether the pack judges what a source of that platform shows.
func (p *Pack) appliesTo(platform string) bool {
	return len(p.Platforms) == 0 || platform == anyPlatform || slices.Contains(p.Platforms, platform)
}

var (
	packName   = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)
	ruleName   = regexp.MustCompile(`^[A-Z][A-Za-z0-9]{0,63}$`)
	configName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)
	semver     = regexp.MustCompile(`^(\d{1,6})\.(\d{1,6})\.(\d{1,6})$`)
)

// platforms a pack may name.
var platforms = []string{"vsphere", "hyperv", "virtualserver", "libvirt", "guest"}

// packParser reads one pack. Rules are compiled after everything else is read, for they need the config wherever it stands.
type packParser struct {
	*reader
	options    Options
	vocabulary map[string]*field
	pack       *Pack
	ruleNodes  []*yaml.Node
	testNodes  []*yaml.Node
}

// parse reads a pack. The pack is only good if there are no problems.
func parse(f File, o Options) (*Pack, Problems) {
	sum := sha256.Sum256(f.Text)
	p := packParser{
		reader:     newReader(f.Name, nil),
		options:    o,
		vocabulary: vocabulary(),
		pack: &Pack{
			SHA256: hex.EncodeToString(sum[:]), Config: map[string]any{}, file: f.Name, varying: map[string]*field{},
		},
	}
	if len(f.Text) > maxPackBytes {
		p.fail(0, 0, "", "larger than %d bytes", maxPackBytes)
		return p.pack, p.problems
	}
	p.reader = newReader(f.Name, f.Text)
	if p.validUTF8(f.Text) {
		if doc := p.document(f.Text); doc != nil {
			p.read(doc)
		}
	}
	return p.pack, p.problems
}

func (p *packParser) read(doc *yaml.Node) {
	pack := p.pack
	p.mapping(doc, "a pack",
		key{"pack", true, func(n *yaml.Node) {
			pack.Name = p.matching(n, "pack", packName, "use lower case words with - between them")
		}},
		key{"version", true, func(n *yaml.Node) { pack.Version = p.matching(n, "version", semver, "write it as 1.0.0") }},
		key{"description", true, func(n *yaml.Node) { pack.Description = p.text(n, "description", maxDescription) }},
		key{"platforms", false, p.readPlatforms},
		key{"min_protip", false, p.readMinProtip},
		key{"config", false, p.readConfig},
		key{"join", false, p.readJoins},
		key{"rules", true, func(n *yaml.Node) {
			p.list(n, "rules", maxRules, func(_ int, v *yaml.Node) { p.ruleNodes = append(p.ruleNodes, v) })
			if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
				p.failNode(n, "", "a pack needs at least one rule")
			}
		}},
		key{"tests", false, func(n *yaml.Node) {
			p.list(n, "tests", maxTests, func(_ int, v *yaml.Node) { p.testNodes = append(p.testNodes, v) })
		}},
	)
	p.override()
	names := map[string]bool{}
	for _, n := range p.ruleNodes {
		if r := p.readRule(n); r.Name != "" {
			if names[r.Name] {
				p.failNode(n, "", "a second rule %s", r.Name)
			}
			names[r.Name] = true
			pack.Rules = append(pack.Rules, r)
		}
	}
	for _, n := range p.testNodes {
		pack.tests = append(pack.tests, p.readTest(n))
	}
}

func (p *packParser) readPlatforms(n *yaml.Node) {
	p.list(n, "platforms", len(platforms), func(_ int, v *yaml.Node) {
		if name := p.oneOf(v, "platform", platforms...); name != "" {
			p.pack.Platforms = append(p.pack.Platforms, name)
		}
	})
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		p.failNode(n, "leave it out for all platforms", "platforms is empty")
	}
}

func (p *packParser) readMinProtip(n *yaml.Node) {
	p.pack.MinProtip = p.matching(n, "min_protip", semver, "write it as 1.0.0")
	if p.pack.MinProtip != "" && older(p.options.Version, p.pack.MinProtip) {
		p.failNode(n, "", "the pack needs protip %s, and this is %s", p.pack.MinProtip, p.options.Version)
	}
}

// older reports whether version a comes before b. What is no release (a development build) is older than nothing.
func older(a, b string) bool {
	x, y := semver.FindStringSubmatch(strings.TrimPrefix(a, "v")), semver.FindStringSubmatch(b)
	if x == nil || y == nil {
		return false
	}
	for i := 1; i <= 3; i++ {
		m, _ := strconv.Atoi(x[i])
		n, _ := strconv.Atoi(y[i])
		if m != n {
			return m < n
		}
	}
	return false
}

func (p *packParser) readConfig(n *yaml.Node) {
	p.pairs(n, "config", func(k, v *yaml.Node) {
		if len(p.pack.Config) >= maxConfigKeys {
			p.failNode(k, "", "config has more than %d keys", maxConfigKeys)
			return
		}
		if !configName.MatchString(k.Value) {
			p.failNode(k, "use lower case letters, digits and _", "config key %s is not well formed", quoted(k.Value))
			return
		}
		if value := p.value(v, "config."+k.Value); value != nil {
			p.pack.Config[k.Value] = value
		}
	})
}

// override puts the agent's own values in the place of the pack's defaults.
func (p *packParser) override() {
	own := p.options.Config[p.pack.Name]
	for _, name := range slices.Sorted(maps.Keys(own)) {
		if value, ok := p.overriding("the agent's config", "packs.config."+p.pack.Name+"."+name, own[name]); ok {
			p.pack.Config[name] = value
		}
	}
	p.readOverrides()
}

// asScalar is a decoded YAML value as a pack knows it.
func asScalar(v any) (any, bool) {
	switch v := v.(type) {
	case bool:
		return v, true
	case string:
		return v, len(v) <= maxText
	case int:
		return float64(v), true
	case int64:
		return float64(v), true
	case uint64:
		return float64(v), true
	case float64:
		return v, finite(v)
	}
	return nil, false
}

func (p *packParser) readRule(n *yaml.Node) *Rule {
	r := &Rule{Pack: p.pack, settings: map[string]bool{}, line: n.Line, column: n.Column}
	var when, clear, summary, remedy, with, alert, every *yaml.Node
	p.mapping(n, "a rule",
		key{"name", true, func(n *yaml.Node) { r.Name = p.matching(n, "name", ruleName, "use CamelCase, as in HostCPUOverload") }},
		key{"on", true, func(n *yaml.Node) {
			r.On, _ = inventory.ParseKind(p.oneOf(n, "on", kindsOfRules()...))
		}},
		key{"with", false, func(n *yaml.Node) { with = n }},
		key{"when", false, func(n *yaml.Node) { when = n }},
		key{"on_alert", false, func(n *yaml.Node) { alert = n }},
		key{"for", false, func(n *yaml.Node) { r.For = p.duration(n, "for", maxFor) }},
		key{"every", false, func(n *yaml.Node) { every, r.Every = n, p.duration(n, "every", maxEvery) }},
		key{"clear", false, func(n *yaml.Node) { clear = n }},
		key{"severity", true, func(n *yaml.Node) { r.Severity = Severity(p.oneOf(n, "severity", "critical", "warning", "info")) }},
		key{"summary", true, func(n *yaml.Node) { summary = n }},
		key{"remedy", true, func(n *yaml.Node) { remedy = n }},
	)
	if r.On == 0 { // no names to check expressions against
		for what, n := range map[string]*yaml.Node{"when": when, "clear": clear, "summary": summary} {
			if n != nil {
				p.scalar(n, what)
			}
		}
		return r
	}
	switch {
	case alert == nil && when == nil:
		p.failNode(n, "", "a rule needs when, or on_alert")
	case alert != nil && (when != nil || clear != nil || with != nil):
		p.failNode(alert, "remove the one or the other", "on_alert is beside when, clear or with")
	}
	if every != nil && with == nil {
		p.failNode(every, "remove it", "every is for rules that bind PromQL")
	}
	if alert != nil {
		p.readAlert(r, alert)
		r.when.words = r.waitsFor()
	}
	if with != nil {
		p.readWith(r, with)
	}
	sc := scope{on: r.On, config: p.pack.Config, vocabulary: p.vocabulary, with: slices.Concat(r.with, r.told), varying: p.pack.varying, settings: r.settings}
	if when != nil {
		r.When, r.when = p.condition(when, "when", sc)
		r.inputs = slices.Clone(r.when.reads)
	}
	if clear != nil {
		r.Clear, r.clear = p.condition(clear, "clear", sc)
		for _, f := range r.clear.reads {
			if !slices.Contains(r.inputs, f) {
				r.inputs = append(r.inputs, f)
			}
		}
	}
	if remedy != nil {
		p.readRemedy(r, remedy, sc)
		p.checkRemedy(r, remedy)
	}
	if summary != nil && p.scalar(summary, "summary") {
		var faults []fault
		r.Summary = summary.Value
		r.summary, faults = parseTemplate(summary.Value, sc)
		p.failFaults(summary, "summary", faults)
	}
	return r
}

// condition compiles when or clear.
func (p *packParser) condition(n *yaml.Node, what string, sc scope) (string, program) {
	if !p.scalar(n, what) {
		return "", program{}
	}
	prog, faults := compile(n.Value, sc, wantBool)
	p.failFaults(n, what, faults)
	if len(faults) == 0 && len(prog.reads) == 0 {
		p.failNode(n, "", "%s reads nothing of the %s: it would always be the same", what, sc.on)
	}
	return n.Value, prog
}

func (p *packParser) failFaults(n *yaml.Node, what string, faults []fault) {
	for _, f := range faults {
		line, column := p.place(n, f.at)
		p.fail(line, column, f.hint, "%s: %s", what, f.message)
	}
}

// kindsOfRules are the kinds of object that a rule can be on.
func kindsOfRules() []string { return []string{"host", "vm", "cluster", "datastore", "service"} }

// readKind reads a kind of object.
func (p *packParser) readKind(n *yaml.Node) inventory.Kind {
	kind, _ := inventory.ParseKind(p.oneOf(n, "on", kindsOfRules()...))
	return kind
}
