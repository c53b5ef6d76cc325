// Package config reads protip's one YAML file into plain data.
// It promises errors that name file, line and cure, and that no secret is ever in what it prints.
// It must import no implementation: no source, rule, remediation, store or web.
package config

import (
	"time"

	promconfig "github.com/prometheus/common/config"
)

// Config is the whole file.
type Config struct {
	Sources            []Source      `yaml:"sources"`
	EvaluationInterval time.Duration `yaml:"evaluation_interval"` // of rules; default 20s
	Packs              Packs         `yaml:"packs"`
	Remediation        *Remediation  `yaml:"remediation"` // nil: nothing is ever moved and no executor is built
	Web                Web           `yaml:"web"`
}

// Source is one vCenter (further platforms to come).
type Source struct {
	Name         string               `yaml:"name"` // [a-zA-Z0-9][a-zA-Z0-9_.-]*; part of every object's identity
	Type         string               `yaml:"type"` // vsphere
	URL          string               `yaml:"url"`
	Username     string               `yaml:"username"`
	PasswordFile string               `yaml:"password_file"`
	TLS          promconfig.TLSConfig `yaml:"tls_config"`
	Interval     time.Duration        `yaml:"interval"` // between samples; default 20s
	// Acting is the second credential, used for migrations only. Without it nothing of this source is ever moved.
	Acting *Credential `yaml:"acting"`
}

// Credential is a user and where the password is.
type Credential struct {
	Username     string `yaml:"username"`
	PasswordFile string `yaml:"password_file"`
}

// Packs says which rules run.
type Packs struct {
	Shipped []string                  `yaml:"shipped"` // names of shipped packs; default: all
	Files   []string                  `yaml:"files"`   // further packs, globs relative to the config file
	Config  map[string]map[string]any `yaml:"config"`  // pack -> its config keys -> value
}

// Remediation says what may be moved, and how much of it at once.
type Remediation struct {
	Mode      string          `yaml:"mode"` // off | manual; default off
	DryRun    bool            `yaml:"dry_run"`
	Automatic []AutomaticRule `yaml:"automatic"`
	Limits    Limits          `yaml:"limits"`
	Cooldown  time.Duration   `yaml:"cooldown"` // per VM, after any move, whoever made it; default 30m
	Ceiling   float64         `yaml:"ceiling"`  // utilisation no target may pass; default 0.8
	// OverrideDRS names clusters (source/name) that are moved in although DRS is fully automatic there.
	OverrideDRS []string `yaml:"override_drs"`
}

// AutomaticRule lets one rule of one exact pack act by itself in one cluster.
type AutomaticRule struct {
	Source     string `yaml:"source"`
	Cluster    string `yaml:"cluster"` // name
	Pack       string `yaml:"pack"`
	Rule       string `yaml:"rule"`
	PackSHA256 string `yaml:"pack_sha256"`
}

// Limits bound migrations in flight, and all of them per hour.
type Limits struct {
	PerSource  int `yaml:"per_source"`  // default 4
	PerCluster int `yaml:"per_cluster"` // default 2
	PerHost    int `yaml:"per_host"`    // in or out; default 1
	PerHour    int `yaml:"per_hour"`    // default 20
	Failures   int `yaml:"failures"`    // consecutive failures or moves without effect that open the breaker; default 3
}

// Web says who may act through the API.
type Web struct {
	OperatorTokenFile string `yaml:"operator_token_file"` // without it, routes that act answer 403
}
