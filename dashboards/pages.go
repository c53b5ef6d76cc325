package dashboards

import "strings"

// UIDs of the pages.
const (
	fleetUID, clusterUID, hostUID, vmUID = "protip-fleet", "protip-cluster", "protip-host", "protip-vm"
	tipsUID, growthUID, selfUID          = "protip-tips", "protip-growth", "protip-self"
)

// All are the shipped pages.
func All() []Dashboard {
	return []Dashboard{fleet(), cluster(), host(), vm(), tips(), growth(), self()}
}

var (
	sources = Variable{"source", "Source", "label_values(protip_source_up, source)", true}
	one     = Variable{"source", "Source", "label_values(protip_source_up, source)", false}

	toCluster = Link{"virt_cluster", clusterUID, []string{"source", "virt_cluster"}}
	toHost    = Link{"host", hostUID, []string{"source", "host"}}
	toVM      = Link{"vm", vmUID, []string{"source", "vm"}}
)

func lines(title, about, unit string, moves Scenario, targets ...Target) Panel {
	return Panel{Title: title, About: about, Kind: Lines, Unit: unit, Moves: moves, Targets: targets}
}

// states are conditions over time.
func states(title, about string, moves Scenario, targets ...Target) Panel {
	return Panel{Title: title, About: about, Kind: States, Unit: "bool_yes_no", Moves: moves, Targets: targets}
}

func stat(title, about, unit string, moves Scenario, expr string) Panel {
	return Panel{Title: title, About: about, Kind: Stat, Unit: unit, Moves: moves, Targets: []Target{{Expr: expr}}}
}

func table(title, about string, moves Scenario, link Link, columns ...Target) Panel {
	return Panel{Title: title, About: about, Kind: Table, Unit: "short", Moves: moves, Link: link, Targets: columns}
}

// many is a panel of as many lines as there are objects: wide, with a table for a legend.
func (p Panel) many(link Link) Panel {
	p.Wide, p.Link = 12, link
	return p
}

func (p Panel) wide(columns int) Panel {
	p.Wide = columns
	return p
}

func (p Panel) high(rows int) Panel {
	p.High = rows
	return p
}

// line is a query and the name of its series; column that of a table, with its unit.
func line(expr, legend string) Target { return Target{Expr: expr, Legend: legend} }

func column(name, unit, expr string) Target   { return Target{Expr: expr, Legend: name, Unit: unit} }
func by(labels, of string) string             { return "sum by (" + labels + ") (" + of + ")" }
func ratio(labels, over, under string) string { return by(labels, over) + " / " + by(labels, under) }

// share is what hosts use, over what those of them have whose use is known: a host that is lost takes its capacity along.
func share(labels, use, capacity string) string {
	return ratio(labels, use, capacity+" and on (source, host_id) "+use)
}

// with puts matchers into the query's empty braces.
func with(matchers, query string) string { return strings.ReplaceAll(query, "{}", "{"+matchers+"}") }

// inCluster gives a host's series the name of its cluster.
func inCluster(query string) string {
	return query + ` * on (source, host_id) group_left (virt_cluster) virt_host_info{virt_cluster!=""}`
}

func fleet() Dashboard {
	const all = `source=~"$source"`
	q := func(query string) string { return with(all, query) }
	perCluster := func(use, capacity string) string {
		return ratio("source, virt_cluster", inCluster(q(use+"{}")), inCluster("("+q(capacity+"{}")+" and on (source, host_id) "+use+")"))
	}
	return Dashboard{
		UID: fleetUID, Title: "protip / Fleet", About: "Every vCenter, failover cluster and libvirt cluster on one page.",
		Variables: []Variable{sources},
		Rows: []Row{
			{"Everything", []Panel{
				stat("Sources up", "Sources that answer.", "short", AtStart, q(`sum(protip_source_up{})`)),
				stat("Clusters", "Clusters known.", "short", AtStart, q(`count(virt_cluster_info{})`)),
				stat("Hosts", "Hosts known.", "short", AtStart, q(`count(virt_host_info{})`)),
				stat("VMs running", "VMs that are powered on.", "short", AtStart, q(`sum(virt_vm_powered_on{})`)),
				stat("Hosts lost", "Hosts that the management server does not reach.", "short", LostHost, q(`count(virt_host_connected{} == 0) or 0 * count(virt_host_connected{})`)),
				stat("Active tips", "Tips that somebody should act on, of all sources.", "short", Tip, tipsNow(`state=~"active|in_progress"`)),
			}},
			{"By source", []Panel{
				table("Sources now", "What each manager manages, and how loaded it is. The name leads to its clusters.", Heat, Link{"source", clusterUID, []string{"source"}},
					column("up", "bool_yes_no", q(`sum by (source) (protip_source_up{})`)),
					column("hosts", "short", q(`count by (source) (virt_host_info{})`)),
					column("VMs on", "short", q(`sum by (source) (virt_vm_powered_on{})`)),
					column("CPU", Share, share("source", q(`virt_host_cpu_usage_hertz{}`), q(`virt_host_cpu_capacity_hertz{}`))),
					column("memory", Share, share("source", q(`virt_host_memory_usage_bytes{}`), q(`virt_host_memory_capacity_bytes{}`))),
					column("VMs wait, worst host", Share, q(`max by (source) (virt_host_cpu_contention_ratio{})`)),
					column("objects without news", "short", q(`sum by (source) (protip_source_stale_objects{})`)),
				).high(6),
				lines("CPU by source", "CPU used on all hosts, over their capacity.", "percentunit", Load,
					line(share("source", q(`virt_host_cpu_usage_hertz{}`), q(`virt_host_cpu_capacity_hertz{}`)), "{{source}}")),
				lines("Memory by source", "Memory used on all hosts, over their capacity.", "percentunit", Load,
					line(share("source", q(`virt_host_memory_usage_bytes{}`), q(`virt_host_memory_capacity_bytes{}`)), "{{source}}")),
				lines("Network by source", "Bytes that VMs receive and send.", "Bps", Load,
					line(by("source", q(`rate(virt_vm_network_receive_bytes_total{}[$__rate_interval])`)), "{{source}} received"),
					line(by("source", q(`rate(virt_vm_network_transmit_bytes_total{}[$__rate_interval])`)), "{{source}} sent")),
			}},
			{"By cluster", []Panel{
				table("Clusters now", "Each cluster's load, and what it has promised. The name leads to it.", Heat, toCluster,
					column("hosts", "short", q(`count by (source, virt_cluster) (virt_host_info{virt_cluster!="", `+all+`})`)),
					column("VMs", "short", q(`count by (source, virt_cluster) (virt_vm_info{virt_cluster!="", `+all+`})`)),
					column("CPU", Share, perCluster("virt_host_cpu_usage_hertz", "virt_host_cpu_capacity_hertz")),
					column("busiest host", Share, "max by (source, virt_cluster) ("+inCluster(q(`virt_host_cpu_usage_ratio{}`))+")"),
					column("memory", Share, perCluster("virt_host_memory_usage_bytes", "virt_host_memory_capacity_bytes")),
					column("reserve holds", "bool_yes_no", q(`max by (source, virt_cluster) (protip_cluster_reserve_ok{})`)),
				).high(6),
			}},
			{"Where it hurts", []Panel{
				lines("Hottest hosts", "The ten hosts with the highest CPU use.", "percentunit", Heat,
					line(q(`topk(10, virt_host_cpu_usage_ratio{})`), "{{source}} {{host}}")).many(toHost),
				lines("Hosts whose VMs wait", "The ten hosts with the highest CPU contention.", "percentunit", Heat,
					line(q(`topk(10, virt_host_cpu_contention_ratio{})`), "{{source}} {{host}}")).many(toHost),
				lines("VMs that wait most", "The ten VMs that are longest ready but not running.", "percentunit", Heat,
					line(q(`topk(10, virt_vm_cpu_contention_ratio{})`), "{{source}} {{vm}}")).many(toVM),
				lines("Fullest hosts", "The ten hosts with the most memory used.", "percentunit", Migration,
					line(q(`topk(10, virt_host_memory_usage_ratio{})`), "{{source}} {{host}}")).many(toHost),
				lines("Memory of guests", "Host memory that backs VMs, what they have touched lately, and what balloons and swap have taken from them.", "bytes", Load,
					line(by("source", q(`virt_vm_memory_usage_bytes{}`)), "{{source}} backed"),
					line(by("source", q(`virt_vm_memory_active_bytes{}`)), "{{source}} active"),
					line(by("source", q(`virt_vm_memory_balloon_bytes{}`)), "{{source}} balloon"),
					line(by("source", q(`virt_vm_memory_swapped_bytes{}`)), "{{source}} swapped")).many(Link{}),
				lines("Slowest disks", "The ten VMs whose disks are slowest.", "s", Load,
					line(q(`topk(10, virt_vm_disk_latency_seconds{})`), "{{source}} {{vm}}")).many(toVM),
			}},
		},
	}
}

func cluster() Dashboard {
	const here = `source="$source", virt_cluster=~"$virt_cluster"`
	ofHost := func(name string) string {
		return name + `{source="$source"} * on (source, host_id) group_left (virt_cluster) virt_host_info{` + here + `}`
	}
	ofVM := func(name string) string { // that is on
		return `sum((` + name + `{source="$source"} and on (source, vm_id) virt_vm_powered_on == 1) * on (source, vm_id) group_left () virt_vm_info{` + here + `})`
	}
	without := func(used, there string) string { // one host, the largest
		left := `(` + ofHost(there) + `) and on (source, host_id) ` + used
		return `sum(` + ofHost(used) + `) / (sum(` + left + `) - max(` + left + `))`
	}
	spread := `max(` + ofHost("virt_host_cpu_usage_ratio") + `) - min(` + ofHost("virt_host_cpu_usage_ratio") + `)`
	rows := func(name string) string { return "max by (source, host) (" + ofHost(name) + ")" }
	return Dashboard{
		UID: clusterUID, Title: "protip / Cluster", About: "One cluster: its hosts, how evenly they are loaded, and what it could lose.",
		Variables: []Variable{one, {"virt_cluster", "Cluster", `label_values(virt_cluster_info{source="$source"}, virt_cluster)`, true}},
		Rows: []Row{
			{"Cluster", []Panel{
				stat("Hosts", "Hosts of the cluster.", "short", AtStart, with(here, `count(virt_host_info{})`)),
				stat("VMs", "VMs of the cluster.", "short", AtStart, with(here, `count(virt_vm_info{})`)),
				stat("vCPUs a core", "vCPUs of running VMs, over the hosts' cores.", "short", AtStart, ofVM("virt_vm_vcpus")+` / sum(`+ofHost("virt_host_cpu_cores")+`)`),
				stat("Memory promised", "Memory of running VMs, over the hosts'.", "percentunit", AtStart, ofVM("virt_vm_memory_capacity_bytes")+` / sum(`+ofHost("virt_host_memory_capacity_bytes")+`)`),
				stat("Imbalance", "CPU use of the busiest host less that of the idlest.", "percentunit", Heat, spread),
				stat("Reserve holds", "Whether it is shown that the hosts that may fail can fail.", "bool_yes_no", AtStart, with(here, `min(protip_cluster_reserve_ok{})`)),
			}},
			{"Reserve", []Panel{
				lines("CPU without its largest host", "CPU used now, over the capacity that is left when the largest host has failed.", "percentunit", Heat,
					line(without("virt_host_cpu_usage_hertz", "virt_host_cpu_capacity_hertz"), "used, over what is left")),
				lines("Memory without its largest host", "Memory used now, over what is left then.", "percentunit", LostHost,
					line(without("virt_host_memory_usage_bytes", "virt_host_memory_capacity_bytes"), "used, over what is left")),
				states("Reserve", "Whether it is shown that the hosts that may fail can fail, and whether neither that nor the contrary is.", AtStart,
					line(with(here, `min by (virt_cluster) (protip_cluster_reserve_ok{})`), "{{virt_cluster}} holds"),
					line(with(here, `max by (virt_cluster) (protip_cluster_reserve_unknown{})`), "{{virt_cluster}} not known")),
			}},
			{"Balance", []Panel{
				lines("CPU of hosts", "CPU used, over capacity.", "percentunit", Heat, line(ofHost("virt_host_cpu_usage_ratio"), "{{host}}")).many(toHost),
				lines("Contention of hosts", "Time that VMs' vCPUs wait for a core.", "percentunit", Heat, line(ofHost("virt_host_cpu_contention_ratio"), "{{host}}")).many(toHost),
				lines("Memory of hosts", "Memory used, over capacity.", "percentunit", Migration, line(ofHost("virt_host_memory_usage_ratio"), "{{host}}")).many(toHost),
				lines("VMs of hosts", "VMs on each host.", "short", Migration, line(ofHost("virt_host_vms"), "{{host}}")).many(toHost),
				lines("Distance", "CPU and memory use of the fullest host less that of the emptiest.", "percentunit", Heat,
					line(spread, "CPU"), line(`max(`+ofHost("virt_host_memory_usage_ratio")+`) - min(`+ofHost("virt_host_memory_usage_ratio")+`)`, "memory")).wide(12),
				lines("Network of hosts", "Bytes received by the VMs of each host.", "Bps", Migration,
					line(`sum by (host) (rate(virt_vm_network_receive_bytes_total{source="$source"}[$__rate_interval]) * on (source, vm_id) group_left (host) virt_vm_info{`+here+`})`, "{{host}}")).wide(12),
			}},
			{"Which hosts", []Panel{
				table("Hosts now", "The hosts of the cluster. The name leads to the host.", Heat, toHost,
					column("VMs", "short", rows("virt_host_vms")),
					column("CPU", Share, rows("virt_host_cpu_usage_ratio")),
					column("VMs wait", Share, rows("virt_host_cpu_contention_ratio")),
					column("memory", Share, rows("virt_host_memory_usage_ratio")),
					column("cores", "short", rows("virt_host_cpu_cores")),
					column("RAM", "bytes", rows("virt_host_memory_capacity_bytes")),
					column("connected", "bool_yes_no", rows("virt_host_connected")),
					column("maintenance", "bool_yes_no", rows("virt_host_maintenance")),
				),
				table("Cluster settings", "What each cluster's own balancer and restart are set to.", AtStart, Link{},
					Target{Expr: `count by (virt_cluster, drs, drs_automation, ha, ha_policy, evc) (virt_cluster_info{` + here + `})`}).high(4),
			}},
		},
	}
}

func host() Dashboard {
	const it = `source="$source", host="$host"`
	q := func(query string) string { return with(it, query) }
	rate := func(name string) string { return q(`rate(` + name + `{}[$__rate_interval])`) }
	here := func(query string) string {
		return query + ` * on (source, vm_id) group_left () virt_vm_info{` + it + `}`
	}
	rows := func(name string) string { return "max by (source, vm) (" + here(name+`{source="$source"}`) + ")" }
	top := func(name string) Target { return line(`topk(10, `+here(name+`{source="$source"}`)+`)`, "{{vm}}") }
	packets := func(name string) string {
		return `sum(` + here(`rate(`+name+`{source="$source"}[$__rate_interval])`) + `)`
	}
	return Dashboard{
		UID: hostUID, Title: "protip / Host", About: "One host and the VMs on it.",
		Variables: []Variable{one, {"host", "Host", `label_values(virt_host_info{source="$source"}, host)`, false}},
		Rows: []Row{
			{"Host", []Panel{
				stat("Cores", "Physical cores.", "short", AtStart, q(`virt_host_cpu_cores{}`)),
				stat("Memory", "Physical memory.", "bytes", AtStart, q(`virt_host_memory_capacity_bytes{}`)),
				stat("VMs", "VMs on it, without templates.", "short", Migration, q(`virt_host_vms{}`)),
				stat("Uptime", "Time since it was started.", "s", Sampling, q(`virt_host_uptime_seconds{}`)),
				table("What it is", "Its cluster, model and version. The cluster's name leads to it.", AtStart, toCluster,
					Target{Expr: q(`count by (source, virt_cluster, model, version) (virt_host_info{})`)}).wide(8).high(4),
			}},
			{"Use", []Panel{
				lines("CPU", "CPU used, over capacity.", "percentunit", Heat, line(q(`virt_host_cpu_usage_ratio{}`), "used")),
				lines("Contention", "Time that vCPUs wait for a core: mean of its VMs, and the worst.", "percentunit", Heat,
					line(q(`virt_host_cpu_contention_ratio{}`), "mean"), line(q(`virt_host_cpu_contention_max_ratio{}`), "worst VM")),
				lines("Memory use", "Memory that is used and there, and what balloons and swap have taken from guests.", "bytes", Migration,
					line(q(`virt_host_memory_usage_bytes{}`), "used"), line(q(`virt_host_memory_capacity_bytes{}`), "there"),
					line(q(`virt_host_memory_balloon_bytes{}`), "balloon"), line(q(`virt_host_memory_swapped_bytes{}`), "swapped")),
				lines("Disk", "Bytes read and written.", "Bps", Load, line(rate("virt_host_disk_read_bytes_total"), "read"), line(rate("virt_host_disk_write_bytes_total"), "written")),
				lines("Disk latency", "Highest latency of its disks.", "s", Load, line(q(`virt_host_disk_latency_seconds{}`), "highest")),
				lines("Network", "Bytes received and sent, its VMs' included.", "Bps", Load,
					line(rate("virt_host_network_receive_bytes_total"), "received"), line(rate("virt_host_network_transmit_bytes_total"), "sent")),
				lines("Packets", "Packets of its VMs, and those that the host dropped or could not take or send for errors.", "pps", Load,
					line(packets("virt_vm_network_receive_packets_total"), "received"), line(packets("virt_vm_network_transmit_packets_total"), "sent"),
					line(rate("virt_host_network_receive_dropped_packets_total")+" + "+rate("virt_host_network_transmit_dropped_packets_total"), "dropped"),
					line(rate("virt_host_network_receive_error_packets_total")+" + "+rate("virt_host_network_transmit_error_packets_total"), "errors")),
				states("State", "Whether it is connected, powered on, in maintenance.", AtStart,
					line(q(`virt_host_connected{}`), "connected"), line(q(`virt_host_powered_on{}`), "powered on"), line(q(`virt_host_maintenance{}`), "maintenance")).wide(16),
			}},
			{"Its VMs", []Panel{
				lines("CPU of VMs", "CPU of the ten that use most.", "hertz", Migration, top("virt_vm_cpu_usage_hertz")).many(toVM),
				lines("VMs that wait", "CPU contention of the ten that wait most.", "percentunit", Heat, top("virt_vm_cpu_contention_ratio")).many(toVM),
				table("VMs now", "The VMs on the host. The name leads to the VM.", Migration, toVM,
					column("vCPUs", "short", rows("virt_vm_vcpus")),
					column("RAM", "bytes", rows("virt_vm_memory_capacity_bytes")),
					column("CPU", "hertz", rows("virt_vm_cpu_usage_hertz")),
					column("waits", Share, rows("virt_vm_cpu_contention_ratio")),
					column("memory backed", "bytes", rows("virt_vm_memory_usage_bytes")),
					column("disk latency", "s", rows("virt_vm_disk_latency_seconds")),
				).high(11),
			}},
		},
	}
}

func vm() Dashboard {
	const it = `source="$source", vm="$vm"`
	q := func(query string) string { return with(it, query) }
	rate := func(name string) string { return q(`rate(` + name + `{}[$__rate_interval])`) }
	neighbours := func(name string) Target {
		return line(`topk(10, `+name+`{source="$source"} and on (source, vm_id) (virt_vm_info{source="$source"} * on (source, host_id) group_left () (count by (source, host_id) (virt_vm_info{`+it+`}))))`, "{{vm}}")
	}
	itsHost := func(name string) string {
		return name + `{source="$source"} * on (source, host_id) group_left () (count by (source, host_id) (virt_vm_info{` + it + `}))`
	}
	return Dashboard{
		UID: vmUID, Title: "protip / VM", About: "One VM, what it waits for, and its neighbours.",
		Variables: []Variable{one, {"vm", "VM", `label_values(virt_vm_info{source="$source"}, vm)`, false}},
		Rows: []Row{
			{"VM", []Panel{
				stat("Powered on", "Whether it runs.", "bool_yes_no", AtStart, q(`virt_vm_powered_on{}`)),
				stat("vCPUs", "Virtual CPUs.", "short", AtStart, q(`virt_vm_vcpus{}`)),
				stat("Memory", "Memory configured.", "bytes", AtStart, q(`virt_vm_memory_capacity_bytes{}`)),
				table("Where it runs", "Its host and cluster now. The host's name leads to it.", AtStart, toHost,
					Target{Expr: q(`count by (source, host, virt_cluster, guest_os) (virt_vm_info{})`)}).wide(12).high(4),
			}},
			{"CPU", []Panel{
				lines("CPU", "CPU used, what it would use if nothing held it back, and what it may have.", "hertz", Heat,
					line(q(`virt_vm_cpu_usage_hertz{}`), "used"), line(q(`virt_vm_cpu_demand_hertz{}`), "demand"), line(q(`virt_vm_cpu_entitlement_hertz{}`), "entitled")),
				lines("Contention", "Time its vCPUs are ready but do not run; are stopped to let others catch up; are held back by a limit; wait for swapped memory.", "percentunit", Heat,
					line(q(`virt_vm_cpu_contention_ratio{}`), "waits"), line(q(`virt_vm_cpu_costop_ratio{}`), "co-stop"),
					line(q(`virt_vm_cpu_limited_ratio{}`), "limit"), line(q(`virt_vm_cpu_swap_wait_ratio{}`), "swap")),
				lines("Its host", "CPU use and contention of the host that it is on at the time.", "percentunit", Heat,
					line(itsHost("virt_host_cpu_usage_ratio"), "{{host}} used"), line(itsHost("virt_host_cpu_contention_ratio"), "{{host}} waits")),
			}},
			{"Neighbours", []Panel{
				lines("Its neighbours", "CPU of the ten busiest VMs on the host that it is on at the time, itself among them.", "hertz", Heat, neighbours("virt_vm_cpu_usage_hertz")).many(toVM),
				lines("Neighbours that wait", "CPU contention of the ten that wait most on that host.", "percentunit", Heat, neighbours("virt_vm_cpu_contention_ratio")).many(toVM),
			}},
			{"Memory, disk, network", []Panel{
				lines("Memory in use", "Host memory that backs it, memory it has touched lately, and what was taken from it.", "bytes", Load,
					line(q(`virt_vm_memory_usage_bytes{}`), "backed"), line(q(`virt_vm_memory_active_bytes{}`), "active"),
					line(q(`virt_vm_memory_balloon_bytes{}`), "balloon"), line(q(`virt_vm_memory_swapped_bytes{}`), "swapped")),
				lines("Disk", "Bytes read and written.", "Bps", Load, line(rate("virt_vm_disk_read_bytes_total"), "read"), line(rate("virt_vm_disk_write_bytes_total"), "written")),
				lines("Disk latency", "Highest latency of its disks, and of its host's.", "s", Load,
					line(q(`virt_vm_disk_latency_seconds{}`), "its own"), line(itsHost("virt_host_disk_latency_seconds"), "{{host}}")),
				lines("Network", "Bytes received and sent.", "Bps", Load,
					line(rate("virt_vm_network_receive_bytes_total"), "received"), line(rate("virt_vm_network_transmit_bytes_total"), "sent")),
				lines("Packets", "Packets received, sent and dropped.", "pps", Load,
					line(rate("virt_vm_network_receive_packets_total"), "received"), line(rate("virt_vm_network_transmit_packets_total"), "sent"),
					line(rate("virt_vm_network_receive_dropped_packets_total")+" + "+rate("virt_vm_network_transmit_dropped_packets_total"), "dropped")),
				states("Where it ran", "The host that it was on.", Migration, line(q(`sum by (host) (virt_vm_info{})`), "{{host}}")),
			}},
		},
	}
}

// tipsNow are how many tips there are. None is zero only where rules are evaluated: protip's own history does not tell of tips.
func tipsNow(matchers string) string {
	return with(matchers, `sum(protip_tips{}) or 0 * count(protip_rules_evaluation_duration_seconds)`)
}

// counted are whole increases within the last hour: PromQL's are extrapolated.
func counted(labels, counter string) string {
	return `round(` + by(labels, `increase(`+counter+`[1h])`) + `)`
}

func tips() Dashboard {
	const outcomes = `increase(protip_action_outcomes_total{}[$__range])`
	return Dashboard{
		UID: tipsUID, Title: "protip / Tips and outcomes", About: "What protip found, what was done about it, and whether it helped.",
		Rows: []Row{
			{"Now", []Panel{
				stat("Active tips", "Tips that somebody should act on.", "short", Tip, tipsNow(`state=~"active|in_progress"`)),
				stat("Pending", "Conditions that hold, and have not held for long enough.", "short", Tip, tipsNow(`state="pending"`)),
				stat("Under way", "Actions that are not over.", "short", Migration, `sum(protip_actions)`),
				stat("Migrations", "Migrations in the range shown that ended well.", "short", Migration, `round(sum(increase(protip_actions_total{state="done"}[$__range])))`),
				stat("Helped", "Share of the migrations in the range shown after which the tip's condition was gone.", "percentunit", Migration,
					with(`outcome="recovered"`, `sum(`+outcomes+`)`)+` / sum(`+strings.Replace(outcomes, "{}", "", 1)+`)`),
				stat("Mean duration", "From the call to the VM seen on its target.", "s", Migration, `sum(increase(protip_action_duration_seconds_sum[$__range])) / sum(increase(protip_action_duration_seconds_count[$__range]))`),
			}},
			{"Tips", []Panel{
				lines("Tips by severity", "Tips that are not resolved.", "short", Tip, line(by("severity", "protip_tips"), "{{severity}}")),
				lines("Tips by rule", "Tips that are not resolved, by rule and state.", "short", Tip, line(by("rule, state", "protip_tips"), "{{rule}} {{state}}")).wide(16),
				lines("What rules cannot judge", "Objects of which a rule knows too little, and those on which it failed since the start.", "short", Sampling,
					line(by("rule", "protip_rule_unknown_objects")+" > 0", "{{rule}}"), line(`round(sum(increase(protip_rule_failures_total[$__range])))`, "failures")).many(Link{}).wide(24).high(7),
			}},
			{"Migrations", []Panel{
				lines("Actions", "Actions that are not over, by state.", "short", Migration, line(by("state", "protip_actions"), "{{state}}")),
				lines("Ended", "Actions of the last hour by how they ended.", "short", Migration, line(counted("state", "protip_actions_total"), "{{state}}")),
				lines("Outcomes", "Migrations of the last hour by whether the tip's condition was gone after them.", "short", Migration,
					line(counted("outcome", "protip_action_outcomes_total"), "{{outcome}}")),
				lines("By others", "Migrations of the last hour that protip saw and did not order.", "short", ForeignMove, line(counted("source", "protip_foreign_moves_total"), "{{source}}")),
				states("Stopped", "Whether a person has paused a source, and whether nothing starts by itself because too much failed.", Pause,
					line(`max by (source) (protip_remediation_paused)`, "{{source}} paused"), line(`max(protip_remediation_breaker_open)`, "breaker")),
				table("By source", "Migrations of the range shown.", Migration, Link{},
					column("done", "short", `round(sum by (source) (increase(protip_actions_total{state="done"}[$__range])))`),
					column("failed", "short", `round(sum by (source) (increase(protip_actions_total{state=~"failed|rolled_back|unknown"}[$__range])))`),
					column("recovered", "short", `round(sum by (source) (increase(protip_action_outcomes_total{outcome="recovered"}[$__range])))`),
					column("did not help", "short", `round(sum by (source) (increase(protip_action_outcomes_total{outcome!="recovered"}[$__range])))`),
				).wide(8),
			}},
		},
	}
}

func growth() Dashboard {
	const all = `source=~"$source"`
	q := func(query string) string { return with(all, query) }
	goesOn := func(query string) string {
		return `clamp_min(predict_linear((` + query + `)[$__range:], $__range_s), 0)`
	}
	cpu := share("source", q(`virt_host_cpu_usage_hertz{}`), q(`virt_host_cpu_capacity_hertz{}`))
	memory := share("source", q(`virt_host_memory_usage_bytes{}`), q(`virt_host_memory_capacity_bytes{}`))
	running := func(name string) string { return q(name+`{}`) + ` and on (source, vm_id) virt_vm_powered_on == 1` }
	return Dashboard{
		UID: growthUID, Title: "protip / Growth and capacity", About: "What is used, what was promised, and where it goes. protip report growth says when it will be full.",
		Variables: []Variable{sources},
		Rows: []Row{
			{"Capacity", []Panel{
				lines("CPU used and there", "Of all hosts.", "hertz", Load,
					line(by("source", q(`virt_host_cpu_usage_hertz{}`)), "{{source}} used"), line(by("source", q(`virt_host_cpu_capacity_hertz{}`)), "{{source}} there")).many(Link{}),
				lines("Memory used, promised and there", "Of all hosts and running VMs.", "bytes", Load,
					line(by("source", q(`virt_host_memory_usage_bytes{}`)), "{{source}} used"), line(by("source", running("virt_vm_memory_capacity_bytes")), "{{source}} promised"),
					line(by("source", q(`virt_host_memory_capacity_bytes{}`)), "{{source}} there")).many(Link{}),
				lines("vCPUs a core", "vCPUs of running VMs, over the hosts' cores.", "short", AtStart,
					line(ratio("source", running("virt_vm_vcpus"), q(`virt_host_cpu_cores{}`)), "{{source}}")),
				lines("VMs", "VMs that are powered on.", "short", AtStart, line(by("source", q(`virt_vm_powered_on{}`)), "{{source}}")),
				lines("Free space", "Free space of datastores, over their size.", "percentunit", AtStart,
					line(q(`virt_datastore_free_bytes{} / virt_datastore_capacity_bytes{}`), "{{source}} {{datastore}}")),
			}},
			{"If it goes on", []Panel{
				lines("CPU if it goes on", "Where the trend of the range shown leads in as much time again.", "percentunit", Load, line(goesOn(cpu), "{{source}}")),
				lines("Memory if it goes on", "Where the trend of the range shown leads in as much time again.", "percentunit", Load, line(goesOn(memory), "{{source}}")),
				lines("Free space if it goes on", "Where the trend of the range shown leads in as much time again.", "bytes", AtStart,
					line(q(`clamp_min(predict_linear(virt_datastore_free_bytes{}[$__range], $__range_s), 0)`), "{{source}} {{datastore}}")),
			}},
			{"Datastores", []Panel{
				table("Datastores now", "Size, free space and latency.", AtStart, Link{},
					column("size", "bytes", q(`max by (source, datastore) (virt_datastore_capacity_bytes{})`)),
					column("free", "bytes", q(`max by (source, datastore) (virt_datastore_free_bytes{})`)),
					column("used", Share, q(`1 - max by (source, datastore) (virt_datastore_free_bytes{}) / max by (source, datastore) (virt_datastore_capacity_bytes{})`)),
					column("read latency", "s", q(`max by (source, datastore) (virt_datastore_read_latency_seconds{})`)),
					column("write latency", "s", q(`max by (source, datastore) (virt_datastore_write_latency_seconds{})`)),
					column("hosts that reach it", "short", q(`max by (source, datastore) (virt_datastore_hosts_accessible{})`)),
				).high(6),
			}},
		},
	}
}

func self() Dashboard {
	ofProtip := func(name string) string {
		return name + ` and on (instance, job) protip_source_up`
	}
	return Dashboard{
		UID: selfUID, Title: "protip / Itself", About: "Whether protip sees, judges and remembers as it should.",
		Rows: []Row{
			{"Now", []Panel{
				stat("Sources up", "Sources that answer.", "short", AtStart, `sum(protip_source_up)`),
				stat("Series", "Series that are shown.", "short", Sampling, `sum(protip_source_series)`),
				stat("Rules", "Rules that are evaluated.", "short", AtStart, `count(protip_rule_unknown_objects)`),
				stat("History writable", "Whether the last cycle was written.", "bool_yes_no", AtStart, `min(protip_history_writable)`),
				stat("Configuration", "Whether the configuration in force is the one on the disk.", "bool_yes_no", AtStart, `min(protip_config_last_reload_successful)`),
				stat("Running for", "Time since the start.", "s", Sampling, ofProtip(`(time() - process_start_time_seconds)`)),
			}},
			{"Sources", []Panel{
				states("Up", "Whether each source answers.", AtStart, line(`protip_source_up`, "{{source}}")),
				lines("News", "How often a source has told something within the interval; 0 is silence.", "short", Sampling,
					line(`changes(protip_source_last_success_timestamp_seconds[$__rate_interval])`, "{{source}}")),
				lines("Cycle", "How long the last cycle of samples took.", "s", Sampling, line(`protip_source_cycle_duration_seconds`, "{{source}} {{part}}")),
				lines("Calls", "Calls to the platforms, in a second.", "ops", Sampling, line(by("source", `rate(protip_source_api_calls_total[$__rate_interval])`), "{{source}}")),
				lines("Errors", "Errors by kind, and attempts to connect again, in a second.", "ops", LostSession,
					line(by("source, kind", `rate(protip_source_errors_total[$__rate_interval])`), "{{source}} {{kind}}"),
					line(by("source", `rate(protip_source_reconnects_total[$__rate_interval])`), "{{source}} reconnects")),
				lines("Stale objects", "Objects with samples that grew too old.", "short", LostHost, line(by("source", `protip_source_stale_objects`), "{{source}}")),
			}},
			{"Rules and history", []Panel{
				lines("Evaluation", "How long the last evaluation of all rules, and of all reserves, took.", "s", Sampling,
					line(`protip_rules_evaluation_duration_seconds`, "rules"), line(`protip_cluster_reserve_duration_seconds`, "reserves")),
				lines("History", "Samples written in a second, and cycles and samples that were not.", "wps", Sampling,
					line(`rate(protip_history_samples_total[$__rate_interval])`, "written"), line(`rate(protip_history_append_failures_total[$__rate_interval])`, "cycles lost"),
					line(`rate(protip_history_rejected_samples_total[$__rate_interval])`, "rejected")),
				lines("History size", "On the disk.", "bytes", Sampling, line(`protip_history_size_bytes`, "size")),
			}},
			{"Process", []Panel{
				lines("Memory", "Resident memory.", "bytes", Sampling, line(ofProtip(`process_resident_memory_bytes`), "{{instance}}")),
				lines("CPU", "CPU used by protip; and writes to journal and store that failed, in a second.", "short", Sampling,
					line(ofProtip(`rate(process_cpu_seconds_total[$__rate_interval])`), "{{instance}} CPUs"),
					line(`rate(protip_journal_errors_total[$__rate_interval])`, "journal errors"), line(`rate(protip_store_errors_total[$__rate_interval])`, "store errors")),
				lines("Series shown", "Series that are shown, and those that are withheld for a budget.", "short", AtStart,
					line(`protip_source_series`, "{{source}} shown"), line(`protip_source_series_withheld`, "{{source}} withheld")),
			}},
		},
	}
}
