package config

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Guest is the type of a source that is a list of targets in guests.
const Guest = "guest"

// Machines is the type of a source that is a list of physical machines.
const Machines = "machines"

// DefaultTimeout is how long a target or a probe may take to answer.
const DefaultTimeout = 5 * time.Second

// Bounds of one source of guests.
const (
	maxTargets  = 2000 // and as many probes
	maxMappings = 100
	maxNames    = 100 // patterns of one mapping
)

// Target is an endpoint that tells of a guest in Prometheus' text format.
type Target struct {
	Name string `yaml:"name,omitempty"` // default: host and port of the URL; part of its services' identity
	URL  string `yaml:"url"`
	VM   string `yaml:"vm,omitempty"` // source/name or source/id, where it cannot be found out or is to be said
}

// WindowsGuest is a guest that is asked by WS-Management itself.
type WindowsGuest struct {
	Name string `yaml:"name,omitempty"` // default: host and port
	Host string `yaml:"host"`           // a name, host:port or a URL
	VM   string `yaml:"vm,omitempty"`
}

// Probe is a question whose answer is a service: that it comes, and how soon.
type Probe struct {
	Name string `yaml:"name"`
	HTTP string `yaml:"http,omitempty"` // a URL that answers with 200 to 299: this, or an address
	TCP  string `yaml:"tcp,omitempty"`  // that takes connections, as db1:5432
	VM   string `yaml:"vm,omitempty"`
}

// Mapping says which services the series of the targets, or the classes of Windows guests, are.
type Mapping struct {
	Type  string   `yaml:"type"`            // systemd | windows | metric | performance
	Names []string `yaml:"names,omitempty"` // of units, Windows services or instances of a class; regular expressions for the whole name

	// Of type performance.
	Class    string `yaml:"class,omitempty"`    // Win32_PerfRawData_...
	Property string `yaml:"property,omitempty"` // of it

	// Of type metric.
	Metric   string            `yaml:"metric,omitempty"`
	Match    map[string]string `yaml:"match,omitempty"`    // only series with these labels
	Name     string            `yaml:"name,omitempty"`     // of the service, before the values of its labels
	Labels   []string          `yaml:"labels,omitempty"`   // whose values make one service each
	Running  bool              `yaml:"running,omitempty"`  // the value says whether it runs: 0 is failed
	Latency  string            `yaml:"latency,omitempty"`  // value | mean | quantile
	Quantile float64           `yaml:"quantile,omitempty"` // of latency: quantile
	Scale    float64           `yaml:"scale,omitempty"`    // to seconds; 0 is 1
}

var (
	mappingTypes = []string{"systemd", "windows", "metric"}
	windowsTypes = []string{"windows", "performance"}
	latencies    = []string{"value", "mean", "quantile"}
	metricName   = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*$`)
	className    = regexp.MustCompile(`^Win32_Perf(Raw|Formatted)Data_[A-Za-z0-9_]+$`)
	propertyName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*$`)
)

// DisplayName is the target's name, or host and port of its URL.
func (t *Target) DisplayName() string {
	if t.Name != "" {
		return t.Name
	}
	u, err := url.Parse(t.URL)
	if err != nil {
		return ""
	}
	return u.Host
}

// DisplayName is the guest's name, or its host and port.
func (w *WindowsGuest) DisplayName() string {
	if w.Name != "" {
		return w.Name
	}
	u, err := HostURL(w.Host)
	if err != nil {
		return ""
	}
	return u.Host
}

func (v *validator) guest(i int, at func(string) string) {
	src := &v.cfg.Sources[i]
	nothing := len(src.Targets) == 0 && len(src.Windows) == 0 && len(src.Probes) == 0
	if nothing && !v.reported(at("targets")) && !v.reported(at("windows")) && !v.reported(at("probes")) {
		v.bad(at("targets"), fmt.Sprintf("source %s has neither targets, windows nor probes", quote(src.Name)), "list what tells of guests under targets, each with its url")
	}
	if len(src.Targets) > 0 && len(src.Windows) > 0 {
		v.bad(at("windows"), at("windows")+" is beside targets, which would be sent its password", "put the Windows hosts into a source of their own")
	}
	first := v.targets(at, src)
	for j := range src.Probes {
		v.probe(fmt.Sprintf("%s[%d]", at("probes"), j), &src.Probes[j], first)
	}
	if len(src.Services) > maxMappings {
		v.bad(at("services"), fmt.Sprintf("%s has more than %d entries", at("services"), maxMappings), "put several names into one entry")
	}
	types := mappingTypes
	if len(src.Windows) > 0 {
		types = windowsTypes
	}
	for j := range src.Services {
		v.mapping(fmt.Sprintf("%s[%d]", at("services"), j), &src.Services[j], types)
	}
	if len(src.Targets)+len(src.Windows) > 0 && len(src.Services) == 0 && !v.reported(at("services")) {
		v.bad(at("services"), at("services")+" is missing", "say what of the targets is a service, as {type: systemd, names: [nginx.service]} or {type: windows, names: [W3SVC]}")
	}
}

func (v *validator) machines(i int, at func(string) string) {
	src := &v.cfg.Sources[i]
	if len(src.Targets) == 0 && !v.reported(at("targets")) {
		v.bad(at("targets"), fmt.Sprintf("source %s has no targets", quote(src.Name)), "list the machines' exporters under targets, each with its url, as http://10.0.0.5:9100/metrics")
	}
	v.targets(at, src)
	for j, t := range src.Targets {
		if at := fmt.Sprintf("%s[%d].vm", at("targets"), j); t.VM != "" && !v.reported(at) {
			v.bad(at, at+" says nothing to a source of type machines", "remove it: a VM is no physical machine")
		}
	}
}

// targets checks what is asked, and as whom. It gives the names that are taken.
func (v *validator) targets(at func(string) string, src *Source) map[string]string {
	if n := max(len(src.Targets), len(src.Windows), len(src.Probes)); n > maxTargets {
		v.bad(at("targets"), fmt.Sprintf("more than %d targets, Windows hosts or probes in one source", maxTargets), "split them over several sources")
	}
	if src.Timeout >= src.Interval && !v.reported(at("timeout")) {
		v.bad(at("timeout"), fmt.Sprintf("%s is %s, and %s %s", at("timeout"), src.Timeout, at("interval"), src.Interval), "write less than the interval")
	}
	first := map[string]string{}
	if len(src.Windows) > 0 {
		v.windowsGuests(at, src, first)
	} else {
		v.guestCredential(at, src)
	}
	for j := range src.Targets {
		v.target(fmt.Sprintf("%s[%d]", at("targets"), j), src, &src.Targets[j], first)
	}
	return first
}

// windowsGuests checks the guests that are asked by WS-Management, and who asks them.
func (v *validator) windowsGuests(at func(string) string, src *Source, first map[string]string) {
	plain := false
	for j := range src.Windows {
		w, at := &src.Windows[j], fmt.Sprintf("%s[%d]", at("windows"), j)
		u, err := HostURL(w.Host)
		if err != nil {
			if !v.reported(at + ".host") {
				v.bad(at+".host", at+".host "+err.Error(), "write a name, host:port or a URL, as sql-01.example.com; port 5985 and http:// are plain http, on which NTLM seals what is sent")
			}
			continue
		}
		plain = plain || u.Scheme == "http"
		v.unique(at, w.DisplayName(), first)
		v.inSource(at+".vm", w.VM)
	}
	if src.BearerTokenFile != "" {
		v.bad(at("bearer_token_file"), at("bearer_token_file")+" says nothing to Windows hosts", "remove it")
	}
	v.windowsLogin(at, src, plain)
}

// guestCredential is for targets that ask who is there; most ask nobody.
func (v *validator) guestCredential(at func(string) string, src *Source) {
	c := &src.Credential
	for _, name := range []string{"auth", "realm", "keytab_file", "ccache_file", "krb5_conf", "plain_basic"} {
		if _, written := v.cfg.at[at(name)]; written {
			v.bad(at(name), at(name)+" says nothing without windows", "remove it; it is for Windows hosts")
		}
	}
	if c.Username != "" || c.UsernameEnv != "" || c.PasswordFile != "" || c.PasswordEnv != "" {
		v.credential(at, c)
		if src.BearerTokenFile != "" {
			v.bad(at("bearer_token_file"), at("bearer_token_file")+" is beside a user", "remove one of them")
		}
	}
	v.readable(at("bearer_token_file"), src.BearerTokenFile, "the token")
}

func (v *validator) target(at string, src *Source, t *Target, first map[string]string) {
	if !v.endpoint(at+".url", t.URL, src.hasSecret()) {
		return
	}
	v.unique(at, t.DisplayName(), first)
	v.inSource(at+".vm", t.VM)
}

// hasSecret says whether the source sends something with its requests that others must not read.
func (s *Source) hasSecret() bool {
	return s.BearerTokenFile != "" || s.PasswordFile != "" || s.PasswordEnv != ""
}

// endpoint reports whether an HTTP address can be asked. It never repeats the value: it may hold a password.
func (v *validator) endpoint(at, value string, secret bool) bool {
	if !v.required(at, value, "write its address, as http://10.0.0.5:9100/metrics") {
		return false
	}
	u, err := url.Parse(value)
	switch {
	case err != nil || u.Hostname() == "":
		v.bad(at, at+" is not a URL", "write it as http://10.0.0.5:9100/metrics")
	case u.User != nil:
		v.bad(at, at+" holds a user or a password", "take them out of the URL: they belong into username and password_file")
	case u.Scheme != "https" && u.Scheme != "http":
		v.bad(at, fmt.Sprintf("%s has the scheme %s", at, quote(u.Scheme)), "write http or https")
	case secret && u.Scheme == "http" && !loopback(u.Hostname()):
		v.bad(at, at+" is plain http, which would send the password readable", "write https, or list it in a source without credentials")
	default:
		return true
	}
	return false
}

func (v *validator) probe(at string, p *Probe, first map[string]string) {
	if v.required(at+".name", p.Name, "name the service that should answer") {
		v.unique(at, p.Name, first)
	}
	switch {
	case (p.HTTP == "") == (p.TCP == ""):
		v.bad(at, at+" needs one of http and tcp", "write http: with a URL, or tcp: with host and port")
	case p.HTTP != "":
		v.endpoint(at+".http", p.HTTP, false)
	default:
		host, port, err := net.SplitHostPort(p.TCP)
		if _, lookup := net.LookupPort("tcp", port); err != nil || host == "" || lookup != nil {
			v.bad(at+".tcp", at+".tcp is not an address", "write host and port, as db1.example.com:5432")
		}
	}
	v.inSource(at+".vm", p.VM)
}

// unique refuses a second target or probe of a name: both would be the same services.
func (v *validator) unique(at, name string, first map[string]string) {
	if where, twice := first[name]; twice {
		v.bad(at, fmt.Sprintf("%s has the name %s of %s", at, quote(name), where), "give it a name of its own")
		return
	}
	if len(name) > 200 {
		v.bad(at, at+" has a name longer than 200 bytes", "give it a shorter name")
	}
	first[name] = at
}

// inSource refuses a VM that is not of a source of the file.
func (v *validator) inSource(at, vm string) {
	if vm == "" {
		return
	}
	source, name, ok := strings.Cut(vm, "/")
	if !ok || name == "" {
		v.bad(at, at+" is not source/VM", "write the source's name, a slash and the VM's name or id")
		return
	}
	v.knownSource(at, source)
	for _, src := range v.cfg.Sources {
		if src.Name == source && (src.Type == Guest || src.Type == Machines) {
			v.bad(at, fmt.Sprintf("%s: source %s has no VMs", at, quote(source)), "name the source that the VM is of")
		}
	}
}

func (v *validator) mapping(at string, m *Mapping, types []string) {
	v.oneOf(at+".type", m.Type, types)
	switch m.Type {
	case "systemd", "windows":
		v.without(at, m, "metric", "match", "name", "labels", "running", "latency", "quantile", "scale", "class", "property")
		v.names(at, m)
	case "metric":
		v.without(at, m, "class", "property")
		v.metric(at, m)
	case "performance":
		v.without(at, m, "metric", "match", "labels", "quantile")
		v.performance(at, m)
	}
}

// without refuses keys that say nothing of the mapping's type.
func (v *validator) without(at string, m *Mapping, fields ...string) {
	for _, f := range fields {
		if _, written := v.cfg.at[at+"."+f]; written {
			v.bad(at+"."+f, fmt.Sprintf("%s.%s says nothing of type %s", at, f, m.Type), "remove it")
		}
	}
}

func (v *validator) names(at string, m *Mapping) {
	if (len(m.Names) == 0 || len(m.Names) > maxNames) && !v.reported(at+".names") {
		v.bad(at+".names", fmt.Sprintf("%s has %d names", at+".names", len(m.Names)), fmt.Sprintf("name the services that matter, up to %d, as [nginx.service, 'postgresql@.*']", maxNames))
	}
	v.patterns(at, m)
}

func (v *validator) patterns(at string, m *Mapping) {
	for j, name := range m.Names {
		at := fmt.Sprintf("%s.names[%d]", at, j)
		if _, err := regexp.Compile("^(?:" + name + ")$"); (err != nil || name == "") && !v.reported(at) {
			v.bad(at, at+" is no regular expression", "write the name, with \\ before what is meant as it stands")
		}
	}
}

// performance checks what one property of a performance class says.
func (v *validator) performance(at string, m *Mapping) {
	if v.required(at+".class", m.Class, "name the class, as Win32_PerfRawData_PerfDisk_LogicalDisk") && !className.MatchString(m.Class) {
		v.bad(at+".class", at+".class is no performance class", "write it as Win32_PerfRawData_PerfDisk_LogicalDisk")
	}
	if v.required(at+".property", m.Property, "name the class's property, as AvgDisksecPerTransfer") && !propertyName.MatchString(m.Property) {
		v.bad(at+".property", at+".property is no property's name", "write it as AvgDisksecPerTransfer")
	}
	v.required(at+".name", m.Name, "say what its services are called; the instance's name comes after it")
	if len(m.Names) > maxNames {
		v.bad(at+".names", fmt.Sprintf("%s has %d names", at+".names", len(m.Names)), fmt.Sprintf("name up to %d instances, or leave it out for all", maxNames))
	}
	v.patterns(at, m)
	if m.Running == (m.Latency != "") {
		v.bad(at, at+" needs one of running and latency", "write running: true if the value says whether it runs, or latency: value or mean")
	}
	if m.Latency != "" {
		v.oneOf(at+".latency", m.Latency, latencies[:2])
	}
	if m.Latency == "mean" && strings.HasPrefix(m.Class, "Win32_PerfFormattedData_") {
		v.bad(at+".latency", at+".latency is mean, and the class's numbers are finished ones", "write latency: value, or the class with RawData in its name")
	}
	v.scale(at, m)
}

func (v *validator) scale(at string, m *Mapping) {
	if _, written := v.cfg.at[at+".scale"]; written && m.Scale <= 0 && !v.reported(at+".scale") {
		v.bad(at+".scale", fmt.Sprintf("%s.scale is %v", at, m.Scale), "write what makes seconds of it, as 0.001 for milliseconds")
	}
}

func (v *validator) metric(at string, m *Mapping) {
	if _, written := v.cfg.at[at+".names"]; written {
		v.bad(at+".names", at+".names says nothing of type metric", "write labels, whose values make one service each, or name")
	}
	if v.required(at+".metric", m.Metric, "name the metric, without _bucket, _sum or _count") && !metricName.MatchString(m.Metric) {
		v.bad(at+".metric", at+".metric is not a metric's name", "write it as http_request_duration_seconds")
	}
	if m.Name == "" && len(m.Labels) == 0 && !v.reported(at+".name") {
		v.bad(at, at+" does not say what its services are called", "write name, or labels whose values are to be names, or both")
	}
	for _, name := range slices.Sorted(maps.Keys(m.Match)) {
		v.label(at+".match."+name, name)
	}
	for j, name := range m.Labels {
		v.label(fmt.Sprintf("%s.labels[%d]", at, j), name)
	}
	if m.Running == (m.Latency != "") {
		v.bad(at, at+" needs one of running and latency", "write running: true if the value says whether it runs, or latency: value, mean or quantile")
	}
	if m.Latency != "" {
		v.oneOf(at+".latency", m.Latency, latencies)
	}
	if wants := m.Latency == "quantile"; wants != (m.Quantile > 0 && m.Quantile < 1) && !v.reported(at+".quantile") {
		v.bad(at+".quantile", fmt.Sprintf("%s.quantile is %v, and latency %s", at, m.Quantile, quote(m.Latency)),
			"write latency: quantile, and quantile between 0 and 1, as 0.95")
	}
	v.scale(at, m)
}

func (v *validator) label(at, name string) {
	if !labelName.MatchString(name) && !v.reported(at) {
		v.bad(at, fmt.Sprintf("%s: %s is not a label", at, quote(name)), "write a label of the metric")
	}
}
