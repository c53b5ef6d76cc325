package dashboards

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
)

func lines(title, about, unit, moves string, targets ...Target) Panel {
	return Panel{Title: title, About: about, Kind: Lines, Unit: unit, Moves: moves, Targets: targets}
}

func stat(title, about, unit, expr string) Panel {
	return Panel{Title: title, About: about, Kind: Stat, Unit: unit, Targets: []Target{{expr, ""}}}
}

const (
	byLoad      = "the load of its VMs"
	byHot       = "the host that gets hot, and calm again after the migration"
	byMigration = "the migration"
	byTip       = "the tip, from pending to resolved"
	bySampling  = "every cycle"
)

func fleet() Dashboard {
	return Dashboard{
		UID: fleetUID, Title: "protip / Fleet", About: "Every vCenter, failover cluster and libvirt cluster on one page.",
		Variables: []Variable{sources},
		Rows: []Row{
			{"Everything", []Panel{
				stat("Sources up", "Sources that answer.", "short", `sum(protip_source_up{source=~"$source"})`),
				stat("Clusters", "Clusters known.", "short", `sum(protip_source_objects{source=~"$source", kind="cluster"})`),
				stat("Hosts", "Hosts known.", "short", `sum(protip_source_objects{source=~"$source", kind="host"})`),
				stat("VMs running", "VMs that are powered on.", "short", `sum(virt_vm_powered_on{source=~"$source"})`),
				stat("Hosts lost", "Hosts that the management server does not reach.", "short", `count(virt_host_connected{source=~"$source"} == 0) or vector(0)`),
				{
					Title: "Active tips", About: "Tips that somebody should act on.", Kind: Stat, Unit: "short", Moves: byTip,
					Targets: []Target{{`sum(protip_tips{state=~"active|in_progress"}) or vector(0)`, ""}},
				},
			}},
			{"Load", []Panel{
				lines("CPU by source", "CPU used on all hosts, over their capacity.", "percentunit", byLoad,
					Target{`sum by (source) (virt_host_cpu_usage_hertz{source=~"$source"}) / sum by (source) (virt_host_cpu_capacity_hertz{source=~"$source"})`, "{{source}}"}),
				lines("Memory by source", "Memory used on all hosts, over their capacity.", "percentunit", "",
					Target{`sum by (source) (virt_host_memory_usage_bytes{source=~"$source"}) / sum by (source) (virt_host_memory_capacity_bytes{source=~"$source"})`, "{{source}}"}),
				lines("Hottest hosts", "The ten hosts with the highest CPU use.", "percentunit", byHot,
					Target{`topk(10, virt_host_cpu_usage_ratio{source=~"$source"})`, "{{source}} {{host}}"}),
				lines("Hosts whose VMs wait", "The ten hosts with the highest CPU contention.", "percentunit", byHot,
					Target{`topk(10, virt_host_cpu_contention_ratio{source=~"$source"})`, "{{source}} {{host}}"}),
				lines("VMs that wait most", "The ten VMs that are longest ready but not running.", "percentunit", byHot,
					Target{`topk(10, virt_vm_cpu_contention_ratio{source=~"$source"})`, "{{source}} {{vm}}"}),
				lines("Network by source", "Bytes that VMs receive.", "Bps", byLoad,
					Target{`sum by (source) (rate(virt_vm_network_receive_bytes_total{source=~"$source"}[$__rate_interval]))`, "{{source}}"}),
			}},
			{"Clusters", []Panel{{
				Title: "Cluster settings", About: "What each cluster's own balancer and restart are set to.", Kind: Table, Unit: "short",
				Targets: []Target{{`virt_cluster_info{source=~"$source"}`, ""}},
				Links:   map[string]string{"virt_cluster": link(clusterUID, "source", "virt_cluster")},
			}}},
		},
	}
}

const inCluster = ` * on (source, host_id) group_left (virt_cluster) virt_host_info{source="$source", virt_cluster=~"$virt_cluster"}`

func cluster() Dashboard {
	return Dashboard{
		UID: clusterUID, Title: "protip / Cluster", About: "One cluster: its hosts, how evenly they are loaded, and what it could lose.",
		Variables: []Variable{one, {"virt_cluster", "Cluster", `label_values(virt_cluster_info{source="$source"}, virt_cluster)`, true}},
		Rows: []Row{
			{"Cluster", []Panel{
				stat("Hosts", "Hosts of the cluster.", "short", `count(virt_host_info{source="$source", virt_cluster=~"$virt_cluster"})`),
				stat("VMs", "VMs of the cluster.", "short", `count(virt_vm_info{source="$source", virt_cluster=~"$virt_cluster"})`),
				stat("vCPUs a core", "vCPUs of running VMs, over the hosts' cores.", "short",
					`sum((virt_vm_vcpus{source="$source"} and on (source, vm_id) virt_vm_powered_on == 1) * on (source, vm_id) group_left () virt_vm_info{source="$source", virt_cluster=~"$virt_cluster"}) / sum(virt_host_cpu_cores{source="$source"}`+inCluster+`)`),
				stat("Memory promised", "Memory of running VMs, over the hosts'.", "percentunit",
					`sum((virt_vm_memory_capacity_bytes{source="$source"} and on (source, vm_id) virt_vm_powered_on == 1) * on (source, vm_id) group_left () virt_vm_info{source="$source", virt_cluster=~"$virt_cluster"}) / sum(virt_host_memory_capacity_bytes{source="$source"}`+inCluster+`)`),
				{
					Title: "Imbalance", About: "CPU use of the busiest host less that of the idlest.", Kind: Stat, Unit: "percentunit", Moves: byHot,
					Targets: []Target{{`max(virt_host_cpu_usage_ratio{source="$source"}` + inCluster + `) - min(virt_host_cpu_usage_ratio{source="$source"}` + inCluster + `)`, ""}},
				},
			}},
			{"Hosts", []Panel{
				lines("CPU", "CPU used, over capacity.", "percentunit", byHot, Target{`virt_host_cpu_usage_ratio{source="$source"}` + inCluster, "{{host}}"}),
				lines("Contention", "Time that VMs' vCPUs wait for a core.", "percentunit", byHot, Target{`virt_host_cpu_contention_ratio{source="$source"}` + inCluster, "{{host}}"}),
				lines("Memory", "Memory used, over capacity.", "percentunit", byMigration, Target{`virt_host_memory_usage_ratio{source="$source"}` + inCluster, "{{host}}"}),
				lines("VMs by host", "VMs on each host.", "short", byMigration, Target{`virt_host_vms{source="$source"}` + inCluster, "{{host}}"}),
			}},
			{"Which hosts", []Panel{{
				Title: "Host facts", About: "The hosts of the cluster, and what they are.", Kind: Table, Unit: "short",
				Targets: []Target{{`virt_host_info{source="$source", virt_cluster=~"$virt_cluster"}`, ""}},
				Links:   map[string]string{"host": link(hostUID, "source", "host")},
			}}},
		},
	}
}

const onHost = ` * on (source, vm_id) group_left () virt_vm_info{source="$source", host="$host"}`

func host() Dashboard {
	return Dashboard{
		UID: hostUID, Title: "protip / Host", About: "One host and the VMs on it.",
		Variables: []Variable{one, {"host", "Host", `label_values(virt_host_info{source="$source"}, host)`, false}},
		Rows: []Row{
			{"Host", []Panel{
				stat("Cores", "Physical cores.", "short", `virt_host_cpu_cores{source="$source", host="$host"}`),
				stat("Memory", "Physical memory.", "bytes", `virt_host_memory_capacity_bytes{source="$source", host="$host"}`),
				stat("Maintenance", "Whether it is in maintenance mode.", "bool", `virt_host_maintenance{source="$source", host="$host"}`),
				stat("Uptime", "Time since it was started.", "s", `virt_host_uptime_seconds{source="$source", host="$host"}`),
			}},
			{"Use", []Panel{
				lines("CPU", "CPU used, over capacity.", "percentunit", byLoad, Target{`virt_host_cpu_usage_ratio{source="$source", host="$host"}`, "{{host}}"}),
				lines("Contention", "Mean and worst of its VMs.", "percentunit", byLoad,
					Target{`virt_host_cpu_contention_ratio{source="$source", host="$host"}`, "mean"}, Target{`virt_host_cpu_contention_max_ratio{source="$source", host="$host"}`, "worst VM"}),
				lines("Memory used", "Memory used, over capacity.", "percentunit", "", Target{`virt_host_memory_usage_ratio{source="$source", host="$host"}`, "{{host}}"}),
			}},
			{"Its VMs", []Panel{
				lines("CPU of VMs", "CPU that its VMs use.", "hertz", byLoad, Target{`topk(15, virt_vm_cpu_usage_hertz{source="$source"}` + onHost + `)`, "{{vm}}"}),
				lines("VMs that wait", "CPU contention of its VMs.", "percentunit", byLoad, Target{`topk(15, virt_vm_cpu_contention_ratio{source="$source"}` + onHost + `)`, "{{vm}}"}),
				lines("Memory of VMs", "Host memory that backs them.", "bytes", "", Target{`topk(15, virt_vm_memory_usage_bytes{source="$source"}` + onHost + `)`, "{{vm}}"}),
				{
					Title: "VMs", About: "The VMs on the host.", Kind: Table, Unit: "short",
					Targets: []Target{{`virt_vm_info{source="$source", host="$host"}`, ""}},
					Links:   map[string]string{"vm": link(vmUID, "source", "vm")},
				},
			}},
		},
	}
}

func vm() Dashboard {
	neighbours := ` and on (source, vm_id) (virt_vm_info{source="$source"} * on (source, host_id) group_left () (count by (source, host_id) (virt_vm_info{source="$source", vm="$vm"})))`
	return Dashboard{
		UID: vmUID, Title: "protip / VM", About: "One VM, what it waits for, and its neighbours.",
		Variables: []Variable{one, {"vm", "VM", `label_values(virt_vm_info{source="$source"}, vm)`, false}},
		Rows: []Row{
			{"VM", []Panel{
				stat("Powered on", "Whether it runs.", "bool", `virt_vm_powered_on{source="$source", vm="$vm"}`),
				stat("vCPUs", "Virtual CPUs.", "short", `virt_vm_vcpus{source="$source", vm="$vm"}`),
				stat("Memory", "Memory configured.", "bytes", `virt_vm_memory_capacity_bytes{source="$source", vm="$vm"}`),
				{
					Title: "Where it runs", About: "Its host and cluster now.", Kind: Table, Unit: "short", Wide: 12,
					Targets: []Target{{`virt_vm_info{source="$source", vm="$vm"}`, ""}}, Links: map[string]string{"host": link(hostUID, "source", "host")},
				},
			}},
			{"Use", []Panel{
				lines("CPU", "CPU used.", "hertz", byLoad, Target{`virt_vm_cpu_usage_hertz{source="$source", vm="$vm"}`, "{{vm}}"}),
				lines("Waiting for a core", "Time its vCPUs are ready but not running.", "percentunit", byLoad, Target{`virt_vm_cpu_contention_ratio{source="$source", vm="$vm"}`, "{{vm}}"}),
				lines("Memory in use", "Host memory that backs it, touched, and taken from it.", "bytes", "",
					Target{`virt_vm_memory_usage_bytes{source="$source", vm="$vm"}`, "used"}, Target{`virt_vm_memory_active_bytes{source="$source", vm="$vm"}`, "active"},
					Target{`virt_vm_memory_balloon_bytes{source="$source", vm="$vm"}`, "balloon"}, Target{`virt_vm_memory_swapped_bytes{source="$source", vm="$vm"}`, "swapped"}),
				lines("Network", "Bytes received and sent.", "Bps", byLoad,
					Target{`rate(virt_vm_network_receive_bytes_total{source="$source", vm="$vm"}[$__rate_interval])`, "received"},
					Target{`rate(virt_vm_network_transmit_bytes_total{source="$source", vm="$vm"}[$__rate_interval])`, "sent"}),
				lines("Disk latency", "Highest latency of its disks.", "s", "", Target{`virt_vm_disk_latency_seconds{source="$source", vm="$vm"}`, "{{vm}}"}),
				lines("Its neighbours", "CPU of the VMs on the same host.", "hertz", byLoad, Target{`topk(10, virt_vm_cpu_usage_hertz{source="$source"}` + neighbours + `)`, "{{vm}}"}),
			}},
		},
	}
}

func tips() Dashboard {
	return Dashboard{
		UID: tipsUID, Title: "protip / Tips and outcomes", About: "What protip found, what was done about it, and whether it helped.",
		Rows: []Row{
			{"Tips", []Panel{
				lines("Tips", "Tips that are not resolved, by rule and state.", "short", byTip, Target{`sum by (rule, state) (protip_tips)`, "{{rule}} {{state}}"}),
				lines("Objects that rules know too little of", "Inputs are missing or stale.", "short", "", Target{`sum by (rule) (protip_rule_unknown_objects)`, "{{rule}}"}),
			}},
			{"Migrations", []Panel{
				lines("Under way", "Actions that are not over.", "short", byMigration, Target{`sum by (state) (protip_actions)`, "{{state}}"}),
				lines("Ended", "Actions by how they ended.", "short", byMigration, Target{`sum by (state) (protip_actions_total)`, "{{state}}"}),
				lines("Outcomes", "Whether the tip's condition was gone after the move.", "short", byMigration, Target{`sum by (outcome) (protip_action_outcomes_total)`, "{{outcome}}"}),
				lines("Duration", "Mean time from the call to the VM seen on its target.", "s", byMigration,
					Target{`sum(protip_action_duration_seconds_sum) / sum(protip_action_duration_seconds_count)`, "mean"}),
				stat("Breaker", "Whether nothing starts by itself because too much failed.", "bool", `max(protip_remediation_breaker_open)`),
				stat("Paused", "Whether a person paused a source, or all.", "bool", `max(protip_remediation_paused)`),
			}},
		},
	}
}

func growth() Dashboard {
	return Dashboard{
		UID: growthUID, Title: "protip / Growth and capacity", About: "What is used, what was promised, and where it goes.",
		Variables: []Variable{sources},
		Rows: []Row{
			{"Capacity", []Panel{
				lines("CPU used and there", "Of all hosts.", "hertz", byLoad,
					Target{`sum by (source) (virt_host_cpu_usage_hertz{source=~"$source"})`, "{{source}} used"}, Target{`sum by (source) (virt_host_cpu_capacity_hertz{source=~"$source"})`, "{{source}} there"}),
				lines("Memory used, promised and there", "Of all hosts and running VMs.", "bytes", "",
					Target{`sum by (source) (virt_host_memory_usage_bytes{source=~"$source"})`, "{{source}} used"},
					Target{`sum by (source) (virt_vm_memory_capacity_bytes{source=~"$source"} and on (source, vm_id) virt_vm_powered_on == 1)`, "{{source}} promised"},
					Target{`sum by (source) (virt_host_memory_capacity_bytes{source=~"$source"})`, "{{source}} there"}),
				lines("Datastores", "Free space, over size.", "percentunit", "", Target{`virt_datastore_free_bytes{source=~"$source"} / virt_datastore_capacity_bytes{source=~"$source"}`, "{{source}} {{datastore}}"}),
			}},
			{"Trend", []Panel{
				lines("CPU in a week", "Where the trend of the range shown leads in seven days.", "percentunit", byLoad,
					Target{`predict_linear((sum by (source) (virt_host_cpu_usage_hertz{source=~"$source"}) / sum by (source) (virt_host_cpu_capacity_hertz{source=~"$source"}))[$__range:], 604800)`, "{{source}}"}),
				lines("Memory in a week", "Where the trend of the range shown leads in seven days.", "percentunit", "",
					Target{`predict_linear((sum by (source) (virt_host_memory_usage_bytes{source=~"$source"}) / sum by (source) (virt_host_memory_capacity_bytes{source=~"$source"}))[$__range:], 604800)`, "{{source}}"}),
			}},
		},
	}
}

func self() Dashboard {
	return Dashboard{
		UID: selfUID, Title: "protip / Itself", About: "Whether protip sees, judges and remembers as it should.",
		Rows: []Row{
			{"Sources", []Panel{
				lines("Up", "Whether each source answers.", "bool", "", Target{`protip_source_up`, "{{source}}"}),
				lines("Silence", "Time since a source last told anything.", "s", bySampling, Target{`time() - protip_source_last_success_timestamp_seconds`, "{{source}}"}),
				lines("Cycle", "How long the last cycle of samples took.", "s", bySampling, Target{`protip_source_cycle_duration_seconds`, "{{source}} {{part}}"}),
				lines("Calls", "Calls to the platforms.", "short", bySampling, Target{`sum by (source, method) (rate(protip_source_api_calls_total[$__rate_interval]))`, "{{source}} {{method}}"}),
				lines("Stale objects", "Objects with samples that grew too old.", "short", "", Target{`sum by (source) (protip_source_stale_objects)`, "{{source}}"}),
			}},
			{"Rules and history", []Panel{
				lines("Evaluation", "How long the last evaluation of all rules took.", "s", bySampling, Target{`protip_rules_evaluation_duration_seconds`, "all rules"}),
				lines("Failures", "Objects on which rules failed.", "short", "", Target{`sum by (rule) (protip_rule_failures_total)`, "{{rule}}"}),
				lines("History", "Samples written.", "short", bySampling, Target{`rate(protip_history_samples_total[$__rate_interval])`, "a second"}),
				stat("History writable", "Whether the last cycle was written.", "bool", `protip_history_writable`),
				stat("Journal errors", "Writes that the journal did not take.", "short", `protip_journal_errors_total`),
				stat("Memory", "Resident memory of the agent.", "bytes", `process_resident_memory_bytes * on (instance, job) group_left () count by (instance, job) (protip_source_up)`),
			}},
		},
	}
}
