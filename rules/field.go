package rules

import (
	"slices"
	"time"

	"github.com/protip/protip/internal/inventory"
)

// subject is one object under a rule, and the objects around it that the rule may read: for a VM its host and its
// host's cluster, for a host its cluster, for a service its VM and all of these. A nil object is one that protip does not know.
type subject struct {
	service          *inventory.Service
	serviceSamples   inventory.Samples
	around           horizon // of a service's VM, its host and cluster, which are of another source
	cluster          *inventory.Cluster
	host             *inventory.Host
	vm               *inventory.VM
	hostSamples      inventory.Samples
	vmSamples        inventory.Samples
	id               inventory.ID // of the object that the rule is on
	datastore        *inventory.Datastore
	datastoreSamples inventory.Samples
	clusterSamples   inventory.Samples
	pack             *Pack
	alert            *Alert
	answers          []Answer // to the rule's queries, by the slots of its bound fields
}

// fieldType is the type of a scalar in an expression. All numbers are float64.
type fieldType uint8

const (
	number fieldType = iota
	text
	truth
)

// field is one thing an expression can read: a fact of an object, its last sample of a metric, or what PromQL says of it.
type field struct {
	object inventory.Kind
	name   string
	path   string // object.name, as packs write it
	typ    fieldType
	metric inventory.Metric
	sample bool
	help   string
	get    func(*subject) any  // of a fact; the object is there
	set    func(*subject, any) // of a fact; for pack tests
	query  string              // PromQL, of a name that the rule binds
	slot   int                 // of its answer
	told   string              // what the alert says, of a rule that waits for one
	config bool                // a key of the pack's config that overrides set
}

// maxText is how much of a name an expression sees, in bytes: platforms answer what they like.
const maxText = 256

func clip(s string) string { return s[:min(len(s), maxText)] }

// facts are what packs can read of an object besides its samples. A number that is 0 here is one the platform did not
// tell: it counts as missing.
func facts() []field {
	num := func(k inventory.Kind, name, help string, get func(*subject) float64, set func(*subject, float64)) field {
		return field{
			object: k, name: name, typ: number, help: help,
			get: func(s *subject) any { return get(s) }, set: func(s *subject, v any) { set(s, v.(float64)) },
		}
	}
	txt := func(k inventory.Kind, name, help string, at func(*subject) *string) field {
		return field{
			object: k, name: name, typ: text, help: help,
			get: func(s *subject) any { return clip(*at(s)) }, set: func(s *subject, v any) { *at(s) = v.(string) },
		}
	}
	is := func(k inventory.Kind, name, help string, get func(*subject) bool, set func(*subject, bool)) field {
		return field{
			object: k, name: name, typ: truth, help: help,
			get: func(s *subject) any { return get(s) }, set: func(s *subject, v any) { set(s, v.(bool)) },
		}
	}
	const cluster, host, vm = inventory.KindCluster, inventory.KindHost, inventory.KindVM
	return []field{
		txt(cluster, "name", "its name", func(s *subject) *string { return &s.cluster.Name }),
		is(cluster, "drs_enabled", "its own balancer is on",
			func(s *subject) bool { return s.cluster.DRS.Enabled },
			func(s *subject, v bool) { s.cluster.DRS.Enabled = v }),
		is(cluster, "drs_automatic", "its own balancer moves VMs by itself",
			func(s *subject) bool { return drivenByDRS(s.cluster) },
			func(s *subject, v bool) { setDRSAutomatic(s.cluster, v) }),
		is(cluster, "ha_enabled", "it restarts VMs after a host failure",
			func(s *subject) bool { return s.cluster.HA.Enabled },
			func(s *subject, v bool) { s.cluster.HA.Enabled = v }),
		is(cluster, "ha_admission_control", "it refuses VMs that it could not restart",
			func(s *subject) bool { return s.cluster.HA.AdmissionControl },
			func(s *subject, v bool) { s.cluster.HA.AdmissionControl = v }),

		txt(host, "name", "its name", func(s *subject) *string { return &s.host.Name }),
		is(host, "connected", "the management server reaches it",
			func(s *subject) bool { return s.host.Connection == inventory.Connected },
			func(s *subject, v bool) { s.host.Connection = connection(v) }),
		is(host, "powered_on", "it is on",
			func(s *subject) bool { return s.host.Power == inventory.PowerOn },
			func(s *subject, v bool) { s.host.Power = power(v) }),
		is(host, "maintenance", "it is in maintenance mode",
			func(s *subject) bool { return s.host.Maintenance },
			func(s *subject, v bool) { s.host.Maintenance = v }),
		num(host, "cores", "physical cores",
			func(s *subject) float64 { return float64(s.host.Cores) },
			func(s *subject, v float64) { s.host.Cores = int(v) }),
		num(host, "cpu_capacity_hertz", "all cores together",
			func(s *subject) float64 { return s.host.CPUHertz },
			func(s *subject, v float64) { s.host.CPUHertz = v }),
		num(host, "memory_capacity_bytes", "physical memory",
			func(s *subject) float64 { return s.host.MemoryBytes },
			func(s *subject, v float64) { s.host.MemoryBytes = v }),
		txt(host, "model", "hardware model", func(s *subject) *string { return &s.host.Model }),
		txt(host, "version", "hypervisor version", func(s *subject) *string { return &s.host.Version }),

		txt(vm, "name", "its name", func(s *subject) *string { return &s.vm.Name }),
		is(vm, "connected", "the management server reaches it",
			func(s *subject) bool { return s.vm.Connection == inventory.Connected },
			func(s *subject, v bool) { s.vm.Connection = connection(v) }),
		is(vm, "powered_on", "it is on",
			func(s *subject) bool { return s.vm.Power == inventory.PowerOn },
			func(s *subject, v bool) { s.vm.Power = power(v) }),
		num(vm, "vcpus", "virtual CPUs",
			func(s *subject) float64 { return float64(s.vm.VCPUs) },
			func(s *subject, v float64) { s.vm.VCPUs = int(v) }),
		num(vm, "memory_capacity_bytes", "configured memory",
			func(s *subject) float64 { return s.vm.MemoryBytes },
			func(s *subject, v float64) { s.vm.MemoryBytes = v }),
		txt(vm, "guest_os", "guest operating system", func(s *subject) *string { return &s.vm.GuestOS }),
	}
}

// vocabulary is every field a pack can read, by path.
func vocabulary() map[string]*field {
	out := map[string]*field{}
	add := func(f *field) {
		f.path = f.object.String() + "." + f.name
		out[f.path] = f
	}
	all := slices.Concat(facts(), serviceFacts(), datastoreFacts())
	for i := range all {
		add(&all[i])
	}
	for _, kind := range []inventory.Kind{
		inventory.KindCluster, inventory.KindHost, inventory.KindVM, inventory.KindDatastore, inventory.KindService,
	} {
		for _, m := range inventory.MetricsOf(kind) {
			add(&field{object: kind, name: m.Field(), typ: number, metric: m, sample: true, help: m.Desc().Help})
		}
	}
	return out
}

// visible are the kinds of object that a rule on a kind can read.
func visible(on inventory.Kind) []inventory.Kind {
	switch on {
	case inventory.KindService:
		return []inventory.Kind{inventory.KindService, inventory.KindVM, inventory.KindHost, inventory.KindCluster}
	case inventory.KindVM:
		return []inventory.Kind{inventory.KindVM, inventory.KindHost, inventory.KindCluster}
	case inventory.KindHost:
		return []inventory.Kind{inventory.KindHost, inventory.KindCluster}
	case inventory.KindCluster, inventory.KindDatastore:
		return []inventory.Kind{on}
	}
	return nil
}

// horizon says how old what a source told may be.
type horizon struct {
	oldest      int64     // Unix milliseconds; samples before it are stale
	slow        int64     // likewise, of metrics that are sampled slowly
	facts       bool      // its facts may be used
	lastSuccess time.Time // of the source
}

// horizonOf allows two intervals, to samples and, after a source stopped answering, to facts.
func horizonOf(src inventory.Source, now time.Time) horizon {
	oldest := now.Add(-2 * src.Interval)
	return horizon{
		oldest:      oldest.UnixMilli(),
		slow:        min(oldest.UnixMilli(), now.Add(-3*inventory.SlowInterval).UnixMilli()),
		facts:       src.Up || !src.LastSuccess.Before(oldest),
		lastSuccess: src.LastSuccess,
	}
}

// read is the field's value and true, or when it was last seen (zero: never, or not known) and false.
func (f *field) read(s *subject, h horizon) (value any, seen time.Time, ok bool) {
	if f.told != "" {
		if s.alert == nil {
			return nil, time.Time{}, false
		}
		return s.alert.say(f.told), time.Time{}, true
	}
	if f.config {
		return s.pack.setting(f.name, s), time.Time{}, true
	}
	if !s.has(f.object) {
		return nil, time.Time{}, false
	}
	if s.service != nil && f.object != inventory.KindService {
		h = s.around
	}
	if f.sample {
		sample, oldest := s.sample(f), h.oldest
		if f.metric.Slow() {
			oldest = h.slow
		}
		if !sample.OK() || sample.At < oldest {
			return nil, utc(sample), false
		}
		return sample.Value, utc(sample), true
	}
	if !h.facts {
		return nil, h.lastSuccess, false
	}
	if f.query != "" {
		v, ok := s.answers[f.slot].Values[s.id]
		return v, time.Time{}, ok && finite(v)
	}
	v := f.get(s)
	if v == nil || v == 0.0 {
		return nil, time.Time{}, false
	}
	return v, time.Time{}, true
}

func (s *subject) sample(f *field) inventory.Sample {
	switch f.object {
	case inventory.KindService:
		return s.serviceSamples.Of(f.metric)
	case inventory.KindVM:
		return s.vmSamples.Of(f.metric)
	case inventory.KindDatastore:
		return s.datastoreSamples.Of(f.metric)
	case inventory.KindCluster:
		return s.clusterSamples.Of(f.metric)
	}
	return s.hostSamples.Of(f.metric)
}

func (s *subject) has(k inventory.Kind) bool {
	switch k {
	case inventory.KindService:
		return s.service != nil
	case inventory.KindVM:
		return s.vm != nil
	case inventory.KindHost:
		return s.host != nil
	case inventory.KindDatastore:
		return s.datastore != nil
	}
	return s.cluster != nil
}

func utc(s inventory.Sample) time.Time {
	if s.At == 0 {
		return time.Time{}
	}
	return s.Time().UTC()
}

func drivenByDRS(c *inventory.Cluster) bool {
	return c != nil && c.DRS.Enabled && c.DRS.Automation == inventory.AutomationFull
}

func setDRSAutomatic(c *inventory.Cluster, v bool) {
	c.DRS.Automation = inventory.AutomationManual
	if v {
		c.DRS = inventory.DRS{Enabled: true, Automation: inventory.AutomationFull}
	}
}

func connection(v bool) inventory.Connection {
	if v {
		return inventory.Connected
	}
	return inventory.Disconnected
}

func power(v bool) inventory.Power {
	if v {
		return inventory.PowerOn
	}
	return inventory.PowerOff
}
