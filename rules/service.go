package rules

import (
	"github.com/protip/protip/internal/inventory"
)

// A rule on a service is judged by two sources: the one that sees the service, and the one that its VM is of. What they tell
// grows old apart: a source of guests that answers says nothing of a vCenter that does not.

// serviceFacts are what packs can read of a service besides its samples. Its state is missing while nobody knows it.
func serviceFacts() []field {
	const service = inventory.KindService
	txt := func(name, help string, at func(*subject) *string) field {
		return field{
			object: service, name: name, typ: text, help: help,
			get: func(s *subject) any { return clip(*at(s)) }, set: func(s *subject, v any) { *at(s) = v.(string) },
		}
	}
	is := func(name, help string, state, other inventory.ServiceState) field {
		return field{
			object: service, name: name, typ: truth, help: help,
			get: func(s *subject) any {
				if s.service.State == "" {
					return nil
				}
				return s.service.State == state
			},
			set: func(s *subject, v any) {
				s.service.State = other
				if v.(bool) {
					s.service.State = state
				}
			},
		}
	}
	return []field{
		txt("name", "its name", func(s *subject) *string { return &s.service.Name }),
		txt("type", "how it is seen: systemd, windows, performance, http, tcp, metric", func(s *subject) *string { return &s.service.Type }),
		is("running", "it runs, and answers as far as that is looked at", inventory.ServiceRunning, inventory.ServiceStopped),
		is("failed", "it should run and does not, or does not answer", inventory.ServiceFailed, inventory.ServiceRunning),
	}
}

func (e *evaluator) services(source string) {
	t := e.snapshot.ServiceTable(source)
	e.grow(len(t.Facts))
	for i, svc := range t.Facts {
		if svc == nil {
			continue
		}
		s := subject{service: svc, serviceSamples: t.Samples[i]}
		s.standOn(e.snapshot, svc.VM)
		if src, ok := e.snapshot.Source(svc.VM.Source); ok {
			s.around = horizonOf(src, e.now)
		}
		e.judge(svc.ID, svc.Name, &s)
	}
}

// standOn puts a VM, its host and their cluster under the subject, as far as they are known.
func (s *subject) standOn(snap *inventory.Snapshot, id inventory.ID) {
	v, ok := snap.VM(id)
	if !ok {
		return
	}
	s.vm, s.vmSamples = v.VM, v.Samples
	if h, ok := snap.Host(v.Host); ok {
		s.host, s.hostSamples = h.Host, h.Samples
		s.cluster, _ = snap.Cluster(h.Cluster)
		s.clusterSamples = snap.ClusterSamples(h.Cluster)
	}
}

// placeOf is where a service runs, of a subject that is one.
func placeOf(s *subject) *Place {
	if s.service == nil || s.vm == nil {
		return nil
	}
	p := &Place{VM: s.vm.ID, VMName: s.vm.Name, Host: s.vm.Host}
	if s.host != nil {
		p.HostName = s.host.Name
	}
	return p
}

// besideService says why there is nothing to judge of a service: it or its VM was switched off.
func (e *evaluator) besideService(s *subject) string {
	if s.vm != nil && s.around.facts && off(s.vm.Power) {
		return "the VM is " + powerWord(s.vm.Power)
	}
	if s.service.State != inventory.ServiceStopped {
		return ""
	}
	for _, f := range e.rule.inputs {
		if f.sample && f.object == inventory.KindService {
			return "the service is stopped"
		}
	}
	return ""
}
