// Package config reads protip's one YAML file into plain data.
// It promises errors that name file, line and cure, and that no secret is ever in what it holds or prints.
// It must import no implementation: no source, rule, remediation, store or web.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"time"

	promconfig "github.com/prometheus/common/config"
	"go.yaml.in/yaml/v3"
)

// Defaults of what the file leaves out.
const (
	DefaultInterval           = 20 * time.Second // the period of vSphere's realtime counters
	DefaultPerfBatch          = 50               // VMs; what a vCenter bears beside its other work
	DefaultEvaluationInterval = 20 * time.Second
	DefaultCooldown           = 30 * time.Minute
	DefaultCeiling            = 0.8
	DefaultPerSource          = 4
	DefaultPerCluster         = 2
	DefaultPerHost            = 1
	DefaultPerHour            = 20
	DefaultFailures           = 3
)

// Modes of remediation. Automatic is no mode: it is said rule by rule.
const (
	ModeOff    = "off"    // tips only
	ModeManual = "manual" // a person implements a tip
)

// maxPerfBatch keeps an answer below the 500,000 XML elements that a vCenter writes at most.
const maxPerfBatch = 256

// VSphere is the type of a source that is a vCenter.
const VSphere = "vsphere"

// maxSize bounds the file. A fleet's configuration is a few kilobytes.
const maxSize = 1 << 20

// Config is the whole file. It holds no secret, only names of files and variables that do.
//
// A length of time is written as in Prometheus (20s, 5m, 1d). A relative path is relative to the file's own directory and
// is made absolute when read, if the file's name was.
type Config struct {
	Sources            []Source      `yaml:"sources"`
	EvaluationInterval time.Duration `yaml:"evaluation_interval"` // of rules; default 20s
	Packs              Packs         `yaml:"packs,omitempty"`
	Remediation        *Remediation  `yaml:"remediation,omitempty"` // nil: nothing is ever moved and no executor is built
	Placement          Placement     `yaml:"placement,omitempty"`
	History            History       `yaml:"history,omitempty"`
	Web                Web           `yaml:"web,omitempty"`
	Alertmanager       Alertmanager  `yaml:"alertmanager,omitempty"`

	file string
	at   map[string]position
}

// Source is one vCenter or cluster, or a list of hosts, guests or machines.
type Source struct {
	Name       string `yaml:"name"`          // [a-zA-Z0-9][a-zA-Z0-9_.-]*; part of every object's identity
	Type       string `yaml:"type"`          // vsphere, hyperv, virtualserver, libvirt, guest or machines
	URL        string `yaml:"url,omitempty"` // https; http only to a loopback address
	Credential `yaml:",inline"`
	TLS        promconfig.TLSConfig `yaml:"tls_config,omitempty"`
	Interval   time.Duration        `yaml:"interval"`             // between samples; default 20s
	PerfBatch  int                  `yaml:"perf_batch,omitempty"` // VMs whose counters are asked for in one call; default 50, at most 256
	// Collect names the groups of metrics that are sampled; facts always are. MaxSeries bounds what is exposed of the source; 0 is no
	// limit.
	Collect   Collect `yaml:"collect,omitempty"`
	MaxSeries int     `yaml:"max_series,omitempty"`
	// CustomAttributes are the VMs' custom attributes that are read, by name, and the labels they become. None: none is.
	CustomAttributes map[string]string `yaml:"custom_attributes,omitempty"`
	// TagCategories are the categories of tags that are read. None: none is.
	TagCategories []string `yaml:"tag_categories,omitempty"`
	// What follows is of types guest and machines; windows, probes and services of guest.
	Timeout         time.Duration  `yaml:"timeout,omitempty"` // of a target or probe; default 5s
	BearerTokenFile string         `yaml:"bearer_token_file,omitempty"`
	Targets         []Target       `yaml:"targets,omitempty"`
	Windows         []WindowsGuest `yaml:"windows,omitempty"`
	Probes          []Probe        `yaml:"probes,omitempty"`
	Services        []Mapping      `yaml:"services,omitempty"` // which series of the targets, or classes of Windows guests, are services
	// What follows is of types hyperv and virtualserver; hosts also of libvirt, where they are all of the cluster, by libvirt's URIs.
	Hosts          []string `yaml:"hosts,omitempty"`            // of a cluster any nodes, or all hosts that belong to none: names, host:port or URLs
	Krb5Conf       string   `yaml:"krb5_conf,omitempty"`        // default /etc/krb5.conf
	PlainBasic     bool     `yaml:"plain_basic,omitempty"`      // auth basic may send its password readable
	KnownHostsFile string   `yaml:"known_hosts_file,omitempty"` // of type libvirt, for hosts by SSH; default ~/.ssh/known_hosts
	// Acting is the second credential, used for migrations only. Without it nothing of this source is ever moved.
	Acting *Credential `yaml:"acting,omitempty"`
	// Migration is how VMs are moved; of type libvirt.
	Migration Migration `yaml:"migration,omitempty"`
}

// Credential is who logs in, and where the proof is: a user and a password, or an extension and its certificate.
type Credential struct {
	Username     string     `yaml:"username,omitempty"` // this, or the variable of the environment that holds it
	UsernameEnv  string     `yaml:"username_env,omitempty"`
	PasswordFile string     `yaml:"password_file,omitempty"` // this, or the variable
	PasswordEnv  string     `yaml:"password_env,omitempty"`
	Extension    *Extension `yaml:"extension,omitempty"` // instead of all of these
	// What follows is of Windows hosts.
	Auth       string `yaml:"auth,omitempty"`        // ntlm, kerberos, basic or certificate; default ntlm
	Realm      string `yaml:"realm,omitempty"`       // of Kerberos; default: what stands after the @ of the user
	KeytabFile string `yaml:"keytab_file,omitempty"` // of Kerberos, instead of a password
	CacheFile  string `yaml:"ccache_file,omitempty"` // of Kerberos, instead of both: tickets that another program keeps fresh

	SSHKeyFile string `yaml:"ssh_key_file,omitempty"` // of libvirt hosts that are reached by SSH
}

// Extension is a vCenter extension that logs in with the certificate that was registered for it.
type Extension struct {
	ID       string `yaml:"id"` // what vCenter calls its key
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
}

// User is the name that the credential logs in as.
func (c *Credential) User() string {
	switch {
	case c.Extension != nil:
		return c.Extension.ID
	case c.UsernameEnv != "":
		return os.Getenv(c.UsernameEnv)
	}
	return c.Username
}

func (c *Credential) resolve(dir string) {
	c.PasswordFile = promconfig.JoinDir(dir, c.PasswordFile)
	c.KeytabFile = promconfig.JoinDir(dir, c.KeytabFile)
	c.SSHKeyFile = promconfig.JoinDir(dir, c.SSHKeyFile)
	c.CacheFile = promconfig.JoinDir(dir, c.CacheFile)
	if c.Extension != nil {
		c.Extension.CertFile = promconfig.JoinDir(dir, c.Extension.CertFile)
		c.Extension.KeyFile = promconfig.JoinDir(dir, c.Extension.KeyFile)
	}
}

// Collect are groups of metrics: cpu, memory, disk, network, uptime, datastore, service. Nil is all of them, and empty is none.
type Collect []string

// IsZero keeps an empty list in the configuration that is printed: without it, it would read as all.
func (c Collect) IsZero() bool { return c == nil }

// Packs says which rules run.
type Packs struct {
	Shipped Shipped                   `yaml:"shipped,omitempty"` // names of shipped packs; default: all
	Files   []string                  `yaml:"files,omitempty"`   // further packs, globs relative to the config file
	Config  map[string]map[string]any `yaml:"config,omitempty"`  // pack -> its config keys -> number, string or bool
	// Overrides set single keys for single objects, over Config; of several that match, the last counts.
	Overrides []PackOverride `yaml:"overrides,omitempty"`
}

// PackOverride is config of a pack for the objects that all of its selectors match, and what is in or on them.
type PackOverride struct {
	Pack    string         `yaml:"pack"`
	Source  string         `yaml:"source,omitempty"`
	Cluster string         `yaml:"cluster,omitempty"` // name
	Host    string         `yaml:"host,omitempty"`    // name
	Tag     string         `yaml:"tag,omitempty"`     // category/name, of VMs
	Config  map[string]any `yaml:"config"`
}

// Shipped are names of shipped packs. Nil is all of them, and empty is none.
type Shipped []string

// IsZero keeps an empty list in the configuration that is printed: without it, it would read as all.
func (s Shipped) IsZero() bool { return s == nil }

// Remediation says what may be moved, and how much of it at once.
type Remediation struct {
	Mode      string          `yaml:"mode"` // off | manual; default off
	DryRun    bool            `yaml:"dry_run,omitempty"`
	Automatic []AutomaticRule `yaml:"automatic,omitempty"`
	Limits    Limits          `yaml:"limits"`
	Cooldown  time.Duration   `yaml:"cooldown"` // per VM, after any move, whoever made it; default 30m
	Ceiling   float64         `yaml:"ceiling"`  // utilisation no target may pass; default 0.8
	// OverrideDRS names clusters (source/name) that are moved in although DRS is fully automatic there.
	OverrideDRS []string `yaml:"override_drs,omitempty"`
	// Severity is the least of tips that anything is done about; default info. Clusters set it, and the mode, for a source or a cluster.
	Severity string        `yaml:"severity,omitempty"`
	Clusters []ClusterMode `yaml:"clusters,omitempty"`
	Windows  []Window      `yaml:"windows,omitempty"`  // when protip acts by itself; none: at any time
	Webhooks []Webhook     `yaml:"webhooks,omitempty"` // that remedies may call
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

// Web says who may read and act over HTTP.
type Web struct {
	OperatorTokenFile string `yaml:"operator_token_file,omitempty"` // one token that may act; with neither it nor users, nothing may
	UsersFile         string `yaml:"users_file,omitempty"`          // users and tokens with their roles, see LoadUsers; read again when it changes
	Anonymous         string `yaml:"anonymous,omitempty"`           // role of who shows nothing: viewer | none; default viewer, and none with users_file
	ExternalURL       string `yaml:"external_url,omitempty"`        // where people reach the agent, for links
}

// Load reads the file. What is wrong with it comes as one *Error that lists every problem found.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(b, path)
}

// Parse reads the content of a file of that name, which stands in the errors and whose directory relative paths start from.
func Parse(b []byte, name string) (*Config, error) {
	p := &problems{file: name}
	if len(b) > maxSize {
		p.add(start, fmt.Sprintf("the file is larger than %d bytes", maxSize), "split packs off into files of their own")
		return nil, p.err()
	}
	cfg := &Config{file: name, at: map[string]position{}}
	root := p.document(b, "list at least one source under sources:")
	if root == nil {
		return nil, p.err()
	}
	(&decoder{problems: p, at: cfg.at, budget: maxNodes}).value(root, reflect.ValueOf(cfg).Elem(), "")
	cfg.fill()
	cfg.resolve(filepath.Dir(name))
	(&validator{problems: p, cfg: cfg}).run()
	if err := p.err(); err != nil {
		return nil, err
	}
	return cfg, nil
}

// document is the file's one YAML document, nil after a syntax error. Cure is what to do about an empty file.
func (p *problems) document(b []byte, cure string) *yaml.Node {
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var doc yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		p.add(start, "the file is empty", cure)
		return nil
	}
	if err != nil {
		p.syntax(err)
		return nil
	}
	var second yaml.Node
	if err := dec.Decode(&second); err == nil {
		p.add(position{second.Line, second.Column}, "a second YAML document", "remove it: the file is one document")
		return nil
	} else if !errors.Is(err, io.EOF) {
		p.syntax(err)
		return nil
	}
	return doc.Content[0]
}

// fill sets the defaults of what the file left out. A zero that the file wrote down is left for the validator to refuse.
func (c *Config) fill() {
	setDefault(c, "evaluation_interval", &c.EvaluationInterval, DefaultEvaluationInterval)
	for i := range c.Sources {
		setDefault(c, key("sources", i, "interval"), &c.Sources[i].Interval, DefaultInterval)
		switch c.Sources[i].Type {
		case VSphere:
			setDefault(c, key("sources", i, "perf_batch"), &c.Sources[i].PerfBatch, DefaultPerfBatch)
		case Guest, Machines:
			setDefault(c, key("sources", i, "timeout"), &c.Sources[i].Timeout, min(DefaultTimeout, c.Sources[i].Interval/2))
		}
	}
	c.fillHistory()
	c.Placement.fill(c)
	c.Alertmanager.fill(c)
	anonymous := RoleViewer
	if c.Web.UsersFile != "" {
		anonymous = RoleNone
	}
	setDefault(c, "web.anonymous", &c.Web.Anonymous, anonymous)
	r := c.Remediation
	if r == nil {
		return
	}
	setDefault(c, "remediation.mode", &r.Mode, ModeOff)
	r.fill(c)
	setDefault(c, "remediation.cooldown", &r.Cooldown, DefaultCooldown)
	setDefault(c, "remediation.ceiling", &r.Ceiling, DefaultCeiling)
	setDefault(c, "remediation.limits.per_source", &r.Limits.PerSource, DefaultPerSource)
	setDefault(c, "remediation.limits.per_cluster", &r.Limits.PerCluster, DefaultPerCluster)
	setDefault(c, "remediation.limits.per_host", &r.Limits.PerHost, DefaultPerHost)
	setDefault(c, "remediation.limits.per_hour", &r.Limits.PerHour, DefaultPerHour)
	setDefault(c, "remediation.limits.failures", &r.Limits.Failures, DefaultFailures)
}

func setDefault[T any](c *Config, key string, field *T, value T) {
	if _, written := c.at[key]; !written {
		*field = value
	}
}

// resolve makes relative paths start from dir.
func (c *Config) resolve(dir string) {
	for i := range c.Sources {
		src := &c.Sources[i]
		src.resolve(dir)
		src.TLS.SetDirectory(dir)
		src.Krb5Conf = promconfig.JoinDir(dir, src.Krb5Conf)
		src.KnownHostsFile = promconfig.JoinDir(dir, src.KnownHostsFile)
		src.BearerTokenFile = promconfig.JoinDir(dir, src.BearerTokenFile)
		if src.Acting != nil {
			src.Acting.resolve(dir)
		}
	}
	for i, file := range c.Packs.Files {
		c.Packs.Files[i] = promconfig.JoinDir(dir, file)
	}
	if c.Remediation != nil {
		c.Remediation.resolve(dir)
	}
	c.History.resolve(dir)
	c.Alertmanager.resolve(dir)
	c.Web.OperatorTokenFile = promconfig.JoinDir(dir, c.Web.OperatorTokenFile)
	c.Web.UsersFile = promconfig.JoinDir(dir, c.Web.UsersFile)
}

// At is where the file sets a key (remediation, sources[0].url), as file:line:column; just the file's name if it does not.
// It is for those who find out later that a value names something that does not exist.
func (c *Config) At(key string) string {
	if pos, ok := c.at[key]; ok {
		return fmt.Sprintf("%s:%d:%d", c.file, pos.line, pos.column)
	}
	return c.file
}

// String is the configuration in force, defaults filled in, as YAML that Parse takes.
func (c *Config) String() string {
	b, err := yaml.Marshal(c)
	if err != nil {
		return fmt.Sprintf("configuration cannot be shown: %v", err)
	}
	return string(b)
}
