package config

import (
	"strings"
	"testing"
)

func TestPlacement(t *testing.T) {
	dir := folder(t)
	cfg, err := parse(dir, oneSource+`placement:
  goal: fill
  weights: {cpu: 1, memory: 0.5, network: 0}
  host_disk_bytes_per_second: 2e9
  host_network_bytes_per_second: 1.25e9
  copy_bytes_per_second: 1e9
  host_reserves: {cpu: 0.05, memory: 0.1}
  apart_tags: [app]
  together_tags: [rack]
  restricted: {lab/esx-7.example.com: a fan failed}
  reserve: 1
  reserve_all: true
  clusters: [{source: lab, cluster: prod, reserve: 2}]
`)
	if err != nil {
		t.Fatal(err)
	}
	p := cfg.Placement
	if p.Goal != GoalFill || p.Weights != (Weights{1, 0.5, 1, 0}) || p.HostDisk != 2e9 || p.HostNetwork != 1.25e9 || p.CopyRate != 1e9 || p.HostReserves.Memory != 0.1 || p.Restricted["lab/esx-7.example.com"] != "a fan failed" || !p.ReserveAll {
		t.Errorf("%+v", p)
	}
	if p.ReserveOf("lab", "prod") != 2 || p.ReserveOf("lab", "other") != 1 {
		t.Errorf("reserves %d and %d", p.ReserveOf("lab", "prod"), p.ReserveOf("lab", "other"))
	}
	again, err := parse(dir, cfg.String())
	if err != nil || again.String() != cfg.String() {
		t.Errorf("the configuration in force does not read back: %v\n%s", err, cfg)
	}
}

func TestPlacementDefaults(t *testing.T) {
	cfg, err := parse(folder(t), oneSource)
	if err != nil {
		t.Fatal(err)
	}
	if p := cfg.Placement; p.Goal != GoalBalance || p.Weights != (Weights{1, 1, 1, 1}) || p.HostDisk != 0 || p.HostNetwork != 0 || p.CopyRate != 0 || p.ReserveOf("lab", "prod") != 0 {
		t.Errorf("%+v", p)
	}
}

func TestPlacementErrors(t *testing.T) {
	dir := folder(t)
	for name, in := range map[string]string{
		"goal":       "placement: {goal: filled}",
		"weights":    "placement: {weights: {cpu: 0, memory: 0}, host_reserves: {cpu: 1, memory: -1}}",
		"flows":      "placement: {weights: {cpu: 0, memory: 0, disk: 2}, host_disk_bytes_per_second: 10, host_network_bytes_per_second: -1, copy_bytes_per_second: 1}",
		"weightless": "placement: {weights: {cpu: 0, memory: 0, disk: 0}, host_disk_bytes_per_second: 2e9}",
		"reserve":    "placement: {reserve: 9, clusters: [{source: vx, cluster: a, reserve: -1}, {source: lab}, {source: lab, cluster: b}, {source: lab, cluster: b}]}",
		"restricted": "placement: {restricted: {esx-1: broken, lab/esx-2: '', vd/esx-3: broken}}",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(dir, oneSource+in+"\n")
			if err == nil {
				t.Fatal("no error")
			}
			golden(t, "placement-"+name+".golden", oneSource+in+"\n====\n"+strings.ReplaceAll(err.Error(), dir+"/", "")+"\n")
		})
	}
}
