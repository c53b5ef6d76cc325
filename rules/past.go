package rules

import (
	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/inventory"
)

// anyPlatform is a source's platform where nobody says which it is: every pack judges it.
const anyPlatform = ""

// factFamilies are the series that an object's facts are read from.
var factFamilies = []string{
	"virt_cluster_info", "virt_cluster_ha_admission_control",
	"virt_host_info", "virt_host_connected", "virt_host_powered_on", "virt_host_maintenance", "virt_host_cpu_capacity_hertz",
	"virt_host_cpu_cores", "virt_host_memory_capacity_bytes",
	"virt_vm_info", "virt_vm_connected", "virt_vm_powered_on", "virt_vm_template", "virt_vm_vcpus", "virt_vm_memory_capacity_bytes", "virt_vm_tag_info",
	"virt_datastore_info", "virt_datastore_accessible", "virt_datastore_maintenance", "virt_datastore_capacity_bytes",
	"virt_service_info", "virt_service_running", "virt_service_failed",
}

// idOf is the object that a series of protip's own is of.
func idOf(labels history.Labels, kind inventory.Kind) (inventory.ID, bool) {
	id := inventory.ID{Source: labels.Get("source"), Kind: kind, Ref: labels.Get(idLabels[kind])}
	return id, id.Source != "" && id.Ref != ""
}

// objectsOf puts a moment's objects together from the series of their facts, by source. An object is there while its info series
// is; what no series tells of it is not known.
func objectsOf(told map[string]history.Vector) map[string]objects {
	p := past{told: told, out: map[string]objects{}}
	p.readClusters()
	p.readHosts()
	p.readVMs()
	p.readDatastores()
	p.readServices()
	return p.out
}

// past is one moment, being put together.
type past struct {
	told map[string]history.Vector
	out  map[string]objects
}

func (p *past) add(id inventory.ID, obj any) {
	if p.out[id.Source] == nil {
		p.out[id.Source] = objects{}
	}
	p.out[id.Source][id] = obj
}

// values are the values of a family, by object.
func (p *past) values(family string, kind inventory.Kind) map[inventory.ID]float64 {
	out := make(map[inventory.ID]float64, len(p.told[family]))
	for _, s := range p.told[family] {
		if id, ok := idOf(s.Labels, kind); ok {
			out[id] = s.Value
		}
	}
	return out
}

func (p *past) readClusters() {
	control := p.values("virt_cluster_ha_admission_control", inventory.KindCluster)
	for _, s := range p.told["virt_cluster_info"] {
		id, ok := idOf(s.Labels, inventory.KindCluster)
		if !ok {
			continue
		}
		name, drs := s.Labels.Get("virt_cluster"), s.Labels.Get("drs")
		p.add(id, inventory.Cluster{
			ID: id, Name: name, Unread: drs == "",
			DRS: inventory.DRS{Enabled: drs == "true", Automation: inventory.Automation(s.Labels.Get("drs_automation"))},
			HA: inventory.HA{
				Enabled: s.Labels.Get("ha") == "true", AdmissionControl: control[id] == 1, Policy: s.Labels.Get("ha_policy"),
			},
			EVC: s.Labels.Get("evc"),
		})
	}
}

func (p *past) readHosts() {
	const kind = inventory.KindHost
	connected, on := p.values("virt_host_connected", kind), p.values("virt_host_powered_on", kind)
	maintenance, cores := p.values("virt_host_maintenance", kind), p.values("virt_host_cpu_cores", kind)
	hertz, memory := p.values("virt_host_cpu_capacity_hertz", kind), p.values("virt_host_memory_capacity_bytes", kind)
	for _, s := range p.told["virt_host_info"] {
		id, ok := idOf(s.Labels, kind)
		if !ok {
			continue
		}
		var cluster inventory.ID
		if ref := s.Labels.Get("cluster_id"); ref != "" {
			cluster = inventory.ID{Source: id.Source, Kind: inventory.KindCluster, Ref: ref}
		}
		p.add(id, inventory.Host{
			ID: id, Name: s.Labels.Get("host"), Cluster: cluster, UUID: s.Labels.Get("uuid"),
			Connection: connectionOf(connected, id), Power: powerOf(on, id), Maintenance: maintenance[id] == 1,
			Cores: int(cores[id]), CPUHertz: hertz[id], MemoryBytes: memory[id],
			Model: s.Labels.Get("model"), CPUModel: s.Labels.Get("cpu_model"), Version: s.Labels.Get("version"),
			EVC: s.Labels.Get("evc"), MaxEVC: s.Labels.Get("max_evc"),
		})
	}
}

func (p *past) readVMs() {
	const kind = inventory.KindVM
	connected, on := p.values("virt_vm_connected", kind), p.values("virt_vm_powered_on", kind)
	template, vcpus := p.values("virt_vm_template", kind), p.values("virt_vm_vcpus", kind)
	memory := p.values("virt_vm_memory_capacity_bytes", kind)
	tags := map[inventory.ID][]inventory.Tag{}
	for _, s := range p.told["virt_vm_tag_info"] {
		if id, ok := idOf(s.Labels, kind); ok {
			tags[id] = append(tags[id], inventory.Tag{Category: s.Labels.Get("category"), Name: s.Labels.Get("tag")})
		}
	}
	for _, s := range p.told["virt_vm_info"] {
		id, ok := idOf(s.Labels, kind)
		if !ok {
			continue
		}
		vm := inventory.VM{
			ID: id, Name: s.Labels.Get("vm"), UUID: s.Labels.Get("uuid"), GuestOS: s.Labels.Get("guest_os"),
			Connection: connectionOf(connected, id), Power: powerOf(on, id), Template: template[id] == 1,
			VCPUs: int(vcpus[id]), MemoryBytes: memory[id], Tags: tags[id],
		}
		if ref := s.Labels.Get("host_id"); ref != "" {
			vm.Host = inventory.ID{Source: id.Source, Kind: inventory.KindHost, Ref: ref}
		}
		p.add(id, vm)
	}
}

func (p *past) readDatastores() {
	const kind = inventory.KindDatastore
	accessible, maintenance := p.values("virt_datastore_accessible", kind), p.values("virt_datastore_maintenance", kind)
	capacity := p.values("virt_datastore_capacity_bytes", kind)
	for _, s := range p.told["virt_datastore_info"] {
		if id, ok := idOf(s.Labels, kind); ok {
			p.add(id, inventory.Datastore{
				ID: id, Name: s.Labels.Get("datastore"), Type: s.Labels.Get("type"), CapacityBytes: capacity[id],
				Accessible: accessible[id] == 1, Maintenance: maintenance[id] == 1,
			})
		}
	}
}

func (p *past) readServices() {
	const kind = inventory.KindService
	running, failed := p.values("virt_service_running", kind), p.values("virt_service_failed", kind)
	for _, s := range p.told["virt_service_info"] {
		id, ok := idOf(s.Labels, kind)
		if !ok {
			continue
		}
		svc := inventory.Service{ID: id, Name: s.Labels.Get("service"), Type: s.Labels.Get("type")}
		if source, ref := s.Labels.Get("vm_source"), s.Labels.Get("vm_id"); source != "" && ref != "" {
			svc.VM = inventory.ID{Source: source, Kind: inventory.KindVM, Ref: ref}
		}
		if _, known := running[id]; known {
			svc.State = inventory.ServiceStopped
			switch {
			case running[id] == 1:
				svc.State = inventory.ServiceRunning
			case failed[id] == 1:
				svc.State = inventory.ServiceFailed
			}
		}
		p.add(id, svc)
	}
}

func connectionOf(values map[inventory.ID]float64, id inventory.ID) inventory.Connection {
	if v, known := values[id]; known {
		return connection(v == 1)
	}
	return ""
}

func powerOf(values map[inventory.ID]float64, id inventory.ID) inventory.Power {
	if v, known := values[id]; known {
		return power(v == 1)
	}
	return inventory.PowerUnknown
}
