package config

import (
	"fmt"
	"maps"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	promconfig "github.com/prometheus/common/config"
)

// Defaults of what is kept, and of a query.
const (
	DefaultRetention       = 15 * 24 * time.Hour
	DefaultRollupRetention = 400 * 24 * time.Hour
	DefaultQueryTimeout    = 2 * time.Minute
	DefaultQuerySamples    = 50_000_000
)

// History says where the past is kept: beside the agent, or in a Prometheus-compatible server.
type History struct {
	Enabled         bool          `yaml:"enabled"`                    // default true; without it rules that look back know nothing
	Dir             string        `yaml:"dir,omitempty"`              // default: history in the data directory
	Retention       time.Duration `yaml:"retention,omitempty"`        // of samples; default 15d
	RollupRetention time.Duration `yaml:"rollup_retention,omitempty"` // of 5-minute roll-ups; default 400d
	MaxSize         string        `yaml:"max_size,omitempty"`         // of all of it on the disk, as 20GB; empty is no limit
	Families        []string      `yaml:"families,omitempty"`         // kept beside those that packs, reports and dashboards use
	Timeout         time.Duration `yaml:"timeout,omitempty"`          // of a query; default 2m
	MaxSamples      int           `yaml:"max_samples,omitempty"`      // that a query may hold; default 50 million

	// What follows is of a server.
	URL             string               `yaml:"url,omitempty"` // instead of keeping it: what /api/v1/query is below
	Username        string               `yaml:"username,omitempty"`
	PasswordFile    string               `yaml:"password_file,omitempty"`
	BearerTokenFile string               `yaml:"bearer_token_file,omitempty"`
	TLS             promconfig.TLSConfig `yaml:"tls_config,omitempty"`
	Headers         map[string]string    `yaml:"headers,omitempty"`  // sent with each query, as X-Scope-OrgID
	Matchers        map[string]string    `yaml:"matchers,omitempty"` // labels that every selector asks for, so that one of several replicas answers
}

// MaxBytes is MaxSize as a number, 0 if there is no limit.
func (h *History) MaxBytes() int64 {
	n, _ := parseSize(h.MaxSize)
	return n
}

// HTTPClient is how the server is asked.
func (h *History) HTTPClient() promconfig.HTTPClientConfig {
	c := promconfig.DefaultHTTPClientConfig
	c.TLSConfig = h.TLS
	if h.Username != "" {
		c.BasicAuth = &promconfig.BasicAuth{Username: h.Username, PasswordFile: h.PasswordFile}
	}
	if h.BearerTokenFile != "" {
		c.Authorization = &promconfig.Authorization{Type: "Bearer", CredentialsFile: h.BearerTokenFile}
	}
	if len(h.Headers) > 0 {
		c.HTTPHeaders = &promconfig.Headers{Headers: map[string]promconfig.Header{}}
		for name, value := range h.Headers {
			c.HTTPHeaders.Headers[name] = promconfig.Header{Values: []string{value}}
		}
	}
	return c
}

var (
	headerName  = regexp.MustCompile(`^[a-zA-Z0-9-]+$`)
	headerValue = regexp.MustCompile(`^[ -~]+$`)
)

var sizePattern = regexp.MustCompile(`^([0-9]+)(MB|GB|TB|MiB|GiB|TiB)$`)

// parseSize reads a size as Prometheus does: MB and MiB are the same, 2^20 bytes.
func parseSize(s string) (int64, bool) {
	if s == "" {
		return 0, true
	}
	m := sizePattern.FindStringSubmatch(s)
	if m == nil {
		return 0, false
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	shift := map[byte]int{'M': 20, 'G': 30, 'T': 40}[m[2][0]]
	if err != nil || n == 0 || n > math.MaxInt64>>shift {
		return 0, false
	}
	return n << shift, true
}

func (c *Config) fillHistory() {
	h := &c.History
	setDefault(c, "history.enabled", &h.Enabled, true)
	setDefault(c, "history.timeout", &h.Timeout, DefaultQueryTimeout)
	setDefault(c, "history.max_samples", &h.MaxSamples, DefaultQuerySamples)
	if h.URL == "" {
		setDefault(c, "history.retention", &h.Retention, DefaultRetention)
		setDefault(c, "history.rollup_retention", &h.RollupRetention, DefaultRollupRetention)
	}
}

func (h *History) resolve(dir string) {
	h.Dir = promconfig.JoinDir(dir, h.Dir)
	h.PasswordFile = promconfig.JoinDir(dir, h.PasswordFile)
	h.BearerTokenFile = promconfig.JoinDir(dir, h.BearerTokenFile)
	h.TLS.SetDirectory(dir)
}

// ofEmbedded and ofServer are keys that say nothing to the other.
var (
	ofEmbedded = []string{"dir", "families", "max_size", "retention", "rollup_retention"}
	ofServer   = []string{"bearer_token_file", "headers", "matchers", "password_file", "tls_config", "username"}
)

func (v *validator) history() {
	h := &v.cfg.History
	useless, cure := ofServer, "remove it, or name the server in history.url"
	if h.URL != "" {
		useless, cure = ofEmbedded, "remove it, or remove history.url to keep history here"
	}
	for _, name := range useless {
		if at := "history." + name; v.wrote(at) {
			v.bad(at, at+" says nothing here", cure)
		}
	}
	v.atLeast("history.timeout", h.Timeout)
	if h.MaxSamples < 1000 && !v.reported("history.max_samples") {
		v.bad("history.max_samples", fmt.Sprintf("history.max_samples is %d", h.MaxSamples), "write 1000 or more; 50000000 is the default")
	}
	if h.URL != "" {
		v.server()
		return
	}
	if h.Retention < 24*time.Hour && !v.reported("history.retention") {
		v.bad("history.retention", "history.retention is "+h.Retention.String(), "write 1d or more")
	}
	if h.RollupRetention < h.Retention && !v.reported("history.rollup_retention") {
		v.bad("history.rollup_retention", "history.rollup_retention is shorter than history.retention", "write at least as much: roll-ups are what remains of samples")
	}
	if n, ok := parseSize(h.MaxSize); !ok || n > 0 && n < 64<<20 {
		v.bad("history.max_size", "history.max_size is no size of 64MB or more", "write a number and a unit, as 20GB")
	}
}

func (v *validator) wrote(at string) bool {
	_, ok := v.cfg.at[at]
	return ok
}

// serverURL never repeats the value: it may hold a password.
func (v *validator) serverURL(h *History) {
	u, err := url.Parse(h.URL)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		v.bad("history.url", "history.url is not a URL", "write it as https://prometheus.example.com, without /api/v1")
	case u.User != nil:
		v.bad("history.url", "history.url holds a user or a password", "take them out of the URL: they belong into history.username and history.password_file")
	case u.RawQuery != "" || u.Fragment != "":
		v.bad("history.url", "history.url holds a query or a fragment", "write scheme, host, port and path alone")
	case u.Scheme == "http" && !loopback(u.Hostname()) && (h.Username != "" || h.BearerTokenFile != ""):
		v.bad("history.url", "history.url is plain http, which would send the password readable", "write https")
	}
}

func (v *validator) server() {
	h := &v.cfg.History
	v.serverURL(h)
	v.readable("history.password_file", h.PasswordFile, "the password")
	v.readable("history.bearer_token_file", h.BearerTokenFile, "the token")
	switch {
	case h.Username != "" && h.PasswordFile == "":
		v.bad("history.username", "history.username is without a password", "name the file that holds it in history.password_file")
	case h.Username == "" && h.PasswordFile != "":
		v.bad("history.password_file", "history.password_file is without a user", "name the user in history.username")
	case h.Username != "" && h.BearerTokenFile != "":
		v.bad("history.bearer_token_file", "history.bearer_token_file is beside history.username", "write one of the two")
	}
	v.tlsConfig("history.tls_config", h.TLS)
	for _, name := range slices.Sorted(maps.Keys(h.Headers)) {
		at := join("history.headers", name)
		if !headerName.MatchString(name) || !headerValue.MatchString(h.Headers[name]) {
			v.bad(at, at+" cannot be a header", "write a name and a text, as X-Scope-OrgID: team-a")
		} else if slices.Contains([]string{"authorization", "host", "content-type", "accept-encoding"}, strings.ToLower(name)) {
			v.bad(at, at+" is sent anyway", "remove it; credentials belong into history.password_file or history.bearer_token_file")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(h.Matchers)) {
		if at := join("history.matchers", name); !labelName.MatchString(name) {
			v.bad(at, quote(name)+" is no label", "write the label's name and the value it must have, as replica: a")
		}
	}
}
