package rules

import (
	"cmp"
	"fmt"
	"math"
	"regexp"
	"slices"

	"github.com/expr-lang/expr/vm"
	"go.yaml.in/yaml/v3"

	"github.com/protip/protip/internal/inventory"
)

// RemedyAction is a kind of remedy.
type RemedyAction string

// Remedies. What each does is the agent's; a pack only names it, and none makes itself automatic.
const (
	RebalanceHost    RemedyAction = "rebalance-host"    // move VMs off the host until its condition is gone
	RebalanceCluster RemedyAction = "rebalance-cluster" // move VMs until its hosts are close enough, or, to fill, as few as serve
	Migrate          RemedyAction = "migrate"           // move the VM (of a service, the one it runs in) to a better host
	Evacuate         RemedyAction = "evacuate"          // move every VM off the host, and let it take nothing new
	Restrict         RemedyAction = "restrict"          // let the host take nothing new while the tip lasts
	RightSize        RemedyAction = "right-size"        // advice: what size the VM should have
	Webhook          RemedyAction = "webhook"           // call a webhook that the agent's configuration names
	NoRemedy         RemedyAction = "none"
)

// Remedy is what a rule proposes.
type Remedy struct {
	Action RemedyAction `json:"action"`
	// CPUBelow and MemoryBelow are the utilisation, 0..1, that rebalance-host brings the host down to; 0 is not asked for.
	CPUBelow    float64 `json:"cpu_below,omitempty"`
	MemoryBelow float64 `json:"memory_below,omitempty"`
	// ApartBelow is how far, as a share of its CPU, rebalance-cluster lets the busiest host be from the idlest.
	ApartBelow float64 `json:"apart_below,omitempty"`
	// VCPUs and MemoryBytes are the size that right-size advises; 0 is as it is, or not known.
	VCPUs       int     `json:"vcpus,omitempty"`
	MemoryBytes float64 `json:"memory_bytes,omitempty"`
	// Webhook is the name that the agent's configuration gives to what webhook calls.
	Webhook string `json:"webhook,omitempty"`
}

// Words is the remedy as a person would say it.
func (r Remedy) Words() string {
	switch r.Action {
	case RebalanceHost:
		return "move VMs from this host to hosts with room, until it is calm"
	case RebalanceCluster:
		return "move VMs between the hosts of this cluster, until their load is close enough"
	case Migrate:
		return "move this VM to a host with room"
	case Evacuate:
		return "move every VM off this host; while the tip lasts protip places nothing there"
	case Restrict:
		return "while the tip lasts protip places nothing new on this host; dismiss the tip to lift that"
	case RightSize:
		return r.size()
	case Webhook:
		return "call the webhook " + r.Webhook + " of the agent's configuration"
	}
	return "no action of protip; look at it"
}

func (r Remedy) size() string {
	cpu, memory := "", ""
	if r.VCPUs > 0 {
		cpu = fmt.Sprintf("%d vCPU", r.VCPUs)
		if r.VCPUs > 1 {
			cpu += "s"
		}
	}
	if r.MemoryBytes > 0 {
		memory = scaled(r.MemoryBytes, 1024, "B", "KiB", "MiB", "GiB", "TiB", "PiB") + " of memory"
	}
	switch {
	case cpu != "" && memory != "":
		cpu += " and " + memory
	case cpu == "" && memory == "":
		return "change its size; to what is not known now"
	}
	return "give this VM " + cmp.Or(cpu, memory) + "; protip changes no VM's size"
}

// Moves reports whether the remedy moves VMs.
func (r Remedy) Moves() bool {
	return slices.Contains([]RemedyAction{RebalanceHost, RebalanceCluster, Migrate, Evacuate}, r.Action)
}

// Acts reports whether the remedy is something that can be implemented.
func (r Remedy) Acts() bool { return r.Moves() || r.Action == Webhook }

// Restricts reports whether its host takes nothing new while the tip lasts.
func (r Remedy) Restricts() bool { return r.Action == Restrict || r.Action == Evacuate }

// remedyKinds are what each remedy can be for. Those that are not listed are for anything.
func remedyKinds() map[RemedyAction][]inventory.Kind {
	return map[RemedyAction][]inventory.Kind{
		RebalanceHost:    {inventory.KindHost, inventory.KindService},
		RebalanceCluster: {inventory.KindCluster},
		Migrate:          {inventory.KindVM, inventory.KindService},
		Evacuate:         {inventory.KindHost},
		Restrict:         {inventory.KindHost},
		RightSize:        {inventory.KindVM},
	}
}

// remedies are the actions that a remedy can be.
func remedies() []string {
	return []string{
		string(RebalanceHost), string(RebalanceCluster), string(Migrate), string(Evacuate), string(Restrict), string(RightSize),
		string(Webhook), string(NoRemedy),
	}
}

var webhookName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$`)

// remedyKey is a key beside action, and what it takes.
type remedyKey struct {
	name string
	of   RemedyAction // which cannot do without all of its keys: one at least is given
	what string       // it says
	cure string
	read func(n *yaml.Node)
}

// readRemedy reads what is to be done. A host is brought down to something, and a cluster to something, or nobody could say when to stop
// moving.
func (p *packParser) readRemedy(rule *Rule, n *yaml.Node, sc scope) {
	r := &rule.Remedy
	keys := []remedyKey{
		{"cpu_below", RebalanceHost, "how far", "add cpu_below or memory_below, lower than where the rule clears", func(n *yaml.Node) {
			r.CPUBelow, rule.cpuBelow = p.goal(rule, n, "cpu_below")
		}},
		{"memory_below", RebalanceHost, "how far", "", func(n *yaml.Node) { r.MemoryBelow, rule.memoryBelow = p.goal(rule, n, "memory_below") }},
		{"apart_below", RebalanceCluster, "how far", "add apart_below, lower than where the rule clears", func(n *yaml.Node) {
			r.ApartBelow, rule.apartBelow = p.goal(rule, n, "apart_below")
		}},
		{"vcpus", RightSize, "which size", "add vcpus, memory or both: expressions over what the rule reads", func(n *yaml.Node) { rule.vcpus = p.sizing(n, "vcpus", sc) }},
		{"memory", RightSize, "which size", "", func(n *yaml.Node) { rule.memory = p.sizing(n, "memory", sc) }},
		{"webhook", Webhook, "which one", "add webhook, the name of one of remediation.webhooks in the agent's configuration", func(n *yaml.Node) {
			r.Webhook = p.matching(n, "webhook", webhookName, "use the name that the agent's configuration gives to it; the address stands there only")
		}},
	}
	given := map[string]*yaml.Node{}
	all := []key{{"action", true, func(n *yaml.Node) { r.Action = RemedyAction(p.oneOf(n, "action", remedies()...)) }}}
	for _, k := range keys {
		all = append(all, key{k.name, false, func(n *yaml.Node) { given[k.name] = n; k.read(n) }})
	}
	p.mapping(n, "a remedy", all...)
	var lacks *remedyKey
	complete := false
	for i, k := range keys {
		at, ok := given[k.name]
		switch {
		case ok && k.of != r.Action && r.Action != "":
			p.failNode(at, "remove it", "remedy %s has no %s", r.Action, k.name)
		case k.of == r.Action && ok:
			complete = true
		case k.of == r.Action && lacks == nil:
			lacks = &keys[i]
		}
	}
	if lacks != nil && !complete {
		p.failNode(n, lacks.cure, "remedy %s does not say %s", r.Action, lacks.what)
	}
}

// goal is a share of a host's capacity, 0..1, made of numbers and the config alone: it is the same for every object that has the same config.
func (p *packParser) goal(r *Rule, n *yaml.Node, what string) (float64, program) {
	if !p.scalar(n, what) {
		return 0, program{}
	}
	prog, faults := compile(n.Value, scope{config: p.pack.Config, varying: p.pack.varying, settings: r.settings}, wantNumber)
	p.failFaults(n, what, faults)
	if len(faults) > 0 {
		return 0, program{}
	}
	env := map[string]any{}
	for _, f := range prog.reads {
		env[f.path] = p.pack.Config[f.name]
	}
	ratio, err := goal(&vm.VM{}, prog, env)
	if err != nil {
		p.failNode(n, "it is a share of the host's capacity", "%s %v", what, err)
	}
	return ratio, prog
}

// goal runs a program that makes a share of a host's capacity.
func goal(machine *vm.VM, prog program, env map[string]any) (float64, error) {
	v, err := machine.Run(prog.code, env)
	ratio, ok := v.(float64)
	if err != nil || !ok || !(ratio > 0 && ratio <= 1) {
		return 0, fmt.Errorf("is %v, and must be above 0 and at most 1", v)
	}
	return ratio, nil
}

// sizing is a size that is advised, worked out for each object from what the rule reads.
func (p *packParser) sizing(n *yaml.Node, what string, sc scope) program {
	if !p.scalar(n, what) {
		return program{}
	}
	prog, faults := compile(n.Value, sc, wantNumber)
	p.failFaults(n, what, faults)
	return prog
}

// checkRemedy refuses a remedy that has no meaning for what the rule is on.
func (p *packParser) checkRemedy(r *Rule, n *yaml.Node) {
	if kinds, ok := remedyKinds()[r.Remedy.Action]; ok && !slices.Contains(kinds, r.On) {
		p.failNode(n, "", "remedy %s is for a rule on a %s, and %s is on a %s", r.Remedy.Action, kinds[0], r.Name, r.On)
	}
}

// remedy is the rule's, brought to what the object's own config and numbers say.
func (e *evaluator) remedy(s *subject) (r Remedy, err error) {
	r = e.rule.Remedy
	for _, g := range []struct {
		prog program
		into *float64
	}{{e.rule.cpuBelow, &r.CPUBelow}, {e.rule.memoryBelow, &r.MemoryBelow}, {e.rule.apartBelow, &r.ApartBelow}} {
		if len(g.prog.reads) == 0 {
			continue
		}
		load(g.prog.reads, e.env, s, e.horizon)
		if *g.into, err = goal(&e.machine, g.prog, e.env); err != nil {
			return r, err
		}
	}
	vcpus, err := e.sized(e.rule.vcpus, s, 1, 4096)
	if err != nil {
		return r, err
	}
	r.VCPUs = int(math.Ceil(vcpus))
	r.MemoryBytes, err = e.sized(e.rule.memory, s, 1<<20, 1<<50)
	return r, err
}

// sized runs a program that makes a size; 0 is not known, or no size.
func (e *evaluator) sized(prog program, s *subject, least, most float64) (float64, error) {
	if prog.code == nil || !load(prog.reads, e.env, s, e.horizon) {
		return 0, nil
	}
	v, err := e.machine.Run(prog.code, e.env)
	if err != nil {
		return 0, err
	}
	size, ok := v.(float64)
	if !ok || !(size >= least && size <= most) {
		return 0, nil
	}
	return size, nil
}
