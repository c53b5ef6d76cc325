package config

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	promconfig "github.com/prometheus/common/config"
)

var (
	sourceName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)
	sha256Hex  = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

var (
	sourceTypes = []string{VSphere, HyperV, VirtualServer, Guest, Machines, Libvirt}
	modes       = []string{ModeOff, ModeManual}
	groups      = []string{"cpu", "datastore", "disk", "heartbeat", "memory", "network", "service", "uptime"}
)

// validator refuses values that can be read but not meant.
type validator struct {
	*problems
	cfg *Config
}

func (v *validator) run() {
	v.atLeast("evaluation_interval", v.cfg.EvaluationInterval)
	v.sources()
	v.packs()
	v.history()
	v.placement()
	v.remediation()
	v.alertmanager()
	if u, err := url.Parse(v.cfg.Web.ExternalURL); v.cfg.Web.ExternalURL != "" && (err != nil || u.Host == "" || u.User != nil || u.Scheme != "http" && u.Scheme != "https") {
		v.bad("web.external_url", "web.external_url is not a URL", "write where people reach the agent, as https://protip.example.com")
	}
	v.readable("web.operator_token_file", v.cfg.Web.OperatorTokenFile, "the token")
	v.readable("web.users_file", v.cfg.Web.UsersFile, "the users")
	v.oneOf("web.anonymous", v.cfg.Web.Anonymous, []string{RoleViewer, RoleNone})
}

// bad adds a problem with a key's value. A key that is not set stands where its section does.
func (v *validator) bad(key, what, cure string) {
	at, ok := v.cfg.at[key]
	for section := key; !ok && section != ""; {
		section = section[:max(strings.LastIndexAny(section, ".["), 0)]
		at, ok = v.cfg.at[section]
	}
	v.add(at, what, cure)
}

// required reports whether a key has a value.
func (v *validator) required(key, value, cure string) bool {
	if value == "" && !v.reported(key) {
		v.bad(key, key+" is missing", cure)
	}
	return value != ""
}

// reported says whether the decoder has refused the key's value already.
func (v *validator) reported(key string) bool {
	at, ok := v.cfg.at[key]
	if !ok {
		return false
	}
	for _, p := range v.all {
		if p.Line == at.line && p.Column == at.column {
			return true
		}
	}
	return false
}

func (v *validator) sources() {
	if len(v.cfg.Sources) == 0 && !v.reported("sources") && !v.reported("") {
		v.bad("sources", "no source", "list at least one vCenter under sources:, each with name, type, url, username and password_file")
	}
	first := map[string]string{}
	for i := range v.cfg.Sources {
		src := &v.cfg.Sources[i]
		at := func(field string) string { return key("sources", i, field) }
		v.sourceName(at("name"), src.Name, first)
		v.oneOf(at("type"), src.Type, sourceTypes)
		v.ofType(i, src.Type)
		v.atLeast(at("interval"), src.Interval)
		v.collect(i)
		switch src.Type {
		case VSphere:
			v.vsphere(i, at)
		case Guest:
			v.guest(i, at)
		case Machines:
			v.machines(i, at)
		case HyperV, VirtualServer:
			v.windows(i, at)
		case Libvirt:
			v.libvirt(i, at)
			v.migration(at, &src.Migration)
		}
		v.tls(at("tls_config"), i)
	}
}

// collect holds the groups of metrics to what there is.
func (v *validator) collect(i int) {
	for j, group := range v.cfg.Sources[i].Collect {
		v.oneOf(fmt.Sprintf("%s[%d]", key("sources", i, "collect"), j), group, groups)
	}
	at, n := key("sources", i, "max_series"), v.cfg.Sources[i].MaxSeries
	if _, written := v.cfg.at[at]; written && n < 1 && !v.reported(at) {
		v.bad(at, fmt.Sprintf("%s is %d", at, n), "write 1 or more, or leave it out for no limit")
	}
}

// keysOf are the keys of a source that only sources of some types have.
var keysOf = map[string][]string{
	"url":                 {VSphere},
	"perf_batch":          {VSphere},
	"custom_attributes":   {VSphere},
	"tag_categories":      {VSphere},
	"extension":           {VSphere},
	"acting":              {VSphere, HyperV, Libvirt},
	"timeout":             {Guest, Machines},
	"bearer_token_file":   {Guest, Machines},
	"targets":             {Guest, Machines},
	"windows":             {Guest},
	"probes":              {Guest},
	"services":            {Guest},
	"hosts":               {HyperV, VirtualServer, Libvirt},
	"auth":                {HyperV, VirtualServer, Guest},
	"realm":               {HyperV, VirtualServer, Guest},
	"keytab_file":         {HyperV, VirtualServer, Guest},
	"ccache_file":         {HyperV, VirtualServer, Guest},
	"krb5_conf":           {HyperV, VirtualServer, Guest},
	"plain_basic":         {HyperV, VirtualServer, Guest},
	"acting.auth":         {HyperV},
	"acting.realm":        {HyperV},
	"acting.keytab_file":  {HyperV},
	"acting.ccache_file":  {HyperV},
	"acting.extension":    {VSphere},
	"ssh_key_file":        {Libvirt},
	"known_hosts_file":    {Libvirt},
	"acting.ssh_key_file": {Libvirt},
	"migration":           {Libvirt},
}

// ofType refuses keys that say nothing to a source of the type.
func (v *validator) ofType(i int, typ string) {
	if !slices.Contains(sourceTypes, typ) {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(keysOf)) {
		at := key("sources", i, name)
		if _, written := v.cfg.at[at]; written && !slices.Contains(keysOf[name], typ) {
			v.bad(at, fmt.Sprintf("%s says nothing to a source of type %s", at, typ), "remove it; it is for "+strings.Join(keysOf[name], " and "))
		}
	}
}

func (v *validator) vsphere(i int, at func(string) string) {
	src := &v.cfg.Sources[i]
	v.url(at("url"), src.URL)
	v.credential(at, &src.Credential)
	if src.Acting != nil {
		v.credential(func(field string) string { return at("acting." + field) }, src.Acting)
	}
	if n := src.PerfBatch; (n < 1 || n > maxPerfBatch) && !v.reported(at("perf_batch")) {
		v.bad(at("perf_batch"), fmt.Sprintf("%s is %d", at("perf_batch"), n), fmt.Sprintf("write a number of VMs from 1 to %d", maxPerfBatch))
	}
	v.words(i)
	if src.Extension != nil && len(src.TagCategories) > 0 {
		v.bad(at("tag_categories"), at("tag_categories")+" cannot be read by an extension", "log in with a user and a password, or remove it")
	}
}

func (v *validator) sourceName(at, name string, first map[string]string) {
	if !v.required(at, name, "give the vCenter a short name that never changes: it is part of every object's identity") {
		return
	}
	if !sourceName.MatchString(name) {
		v.bad(at, at+" holds more than letters, digits, _, . and -", "write it as vc-berlin.1; it begins with a letter or a digit")
	}
	if where, twice := first[name]; twice {
		v.bad(at, fmt.Sprintf("source %q is named twice, first at %s", name, where), "give this one a name of its own")
		return
	}
	first[name] = v.cfg.At(at)
}

func (v *validator) oneOf(at, value string, known []string) {
	list := strings.Join(known, " or ")
	if !v.required(at, value, "write "+list) {
		return
	}
	for _, k := range known {
		if value == k {
			return
		}
	}
	cure := "write " + list
	if meant := near(value, known); meant != "" {
		cure = "did you mean " + meant + "?"
	}
	v.bad(at, fmt.Sprintf("%s is %s", at, quote(value)), cure)
}

// url never repeats the value: it may hold a password.
func (v *validator) url(at, value string) {
	if !v.required(at, value, "write the vCenter's address, as https://vcenter.example.com") {
		return
	}
	u, err := url.Parse(value)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "":
		v.bad(at, at+" is not a URL", "write it as https://vcenter.example.com")
	case u.User != nil:
		v.bad(at, at+" holds a user or a password", "take them out of the URL: they belong into username and password_file")
	case u.RawQuery != "" || u.Fragment != "":
		v.bad(at, at+" holds a query or a fragment", "write scheme, host and port alone")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		v.bad(at, at+" is plain http, which would send the password readable", "write https; for a self-signed certificate name its CA in tls_config.ca_file")
	case u.Scheme != "https" && u.Scheme != "http":
		v.bad(at, fmt.Sprintf("%s has the scheme %s", at, quote(u.Scheme)), "write https")
	}
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (v *validator) credential(at func(string) string, c *Credential) {
	if c.Extension != nil {
		v.extension(at, c)
		return
	}
	v.oneSet(at("username"), c.Username, at("username_env"), c.UsernameEnv, "write the user to log in as, as svc-protip@vsphere.local")
	v.variable(at("username_env"), c.UsernameEnv)
	v.oneSet(at("password_file"), c.PasswordFile, at("password_env"), c.PasswordEnv,
		"name a file that holds the password and nothing else, or a variable of the environment in password_env")
	v.variable(at("password_env"), c.PasswordEnv)
	v.readable(at("password_file"), c.PasswordFile, "the password")
}

func (v *validator) extension(at func(string) string, c *Credential) {
	for _, f := range []struct{ field, value string }{
		{"username", c.Username},
		{"username_env", c.UsernameEnv},
		{"password_file", c.PasswordFile},
		{"password_env", c.PasswordEnv},
	} {
		if f.value != "" {
			v.bad(at(f.field), at(f.field)+" is beside an extension", "remove it: an extension logs in with its certificate alone")
		}
	}
	v.required(at("extension.id"), c.Extension.ID, "write the extension's key as vCenter knows it, as com.example.protip")
	for _, f := range []struct{ field, file, what string }{
		{"extension.cert_file", c.Extension.CertFile, "the extension's certificate"},
		{"extension.key_file", c.Extension.KeyFile, "the certificate's key"},
	} {
		if v.required(at(f.field), f.file, "name a PEM file that holds "+f.what) {
			v.readable(at(f.field), f.file, f.what)
		}
	}
}

// oneSet wants one of two keys, and the first if there is none.
func (v *validator) oneSet(key, value, orKey, orValue, cure string) {
	switch {
	case value != "" && orValue != "":
		v.bad(orKey, orKey+" is beside "+key, "write one of the two")
	case orValue == "" && !v.reported(orKey):
		v.required(key, value, cure)
	}
}

// variable refuses the name of a variable that is not set. It never repeats it: it may be the password itself.
func (v *validator) variable(at, name string) {
	if name != "" && os.Getenv(name) == "" {
		v.bad(at, at+" names no variable that is set in protip's environment", "write the variable's name, and give protip the variable")
	}
}

// readable refuses a file that could not be read later. It reads nothing of it.
func (v *validator) readable(at, file, what string) {
	if file == "" {
		return
	}
	cure := fmt.Sprintf("put %s, and nothing else, into a file that the user protip runs as can read", what)
	info, err := os.Stat(file)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", file)
	}
	if err == nil {
		var f *os.File
		if f, err = os.Open(file); err == nil {
			f.Close()
		}
	}
	if err != nil {
		v.bad(at, at+": "+err.Error(), cure)
	}
}

func (v *validator) tls(at string, i int) { v.tlsConfig(at, v.cfg.Sources[i].TLS) }

func (v *validator) tlsConfig(at string, c promconfig.TLSConfig) {
	if err := c.Validate(); err != nil {
		v.bad(at, at+": "+err.Error(), "set one of each pair, and cert_file together with key_file")
	}
	for _, f := range []struct{ field, file, what string }{
		{"ca_file", c.CAFile, "the CA's certificate"},
		{"cert_file", c.CertFile, "the client's certificate"},
		{"key_file", c.KeyFile, "the client's key"},
	} {
		v.readable(at+"."+f.field, f.file, f.what)
	}
}

func (v *validator) atLeast(at string, d time.Duration) {
	if d < time.Second && !v.reported(at) {
		v.bad(at, fmt.Sprintf("%s is %s", at, d), "write 1s or more")
	}
}

func (v *validator) packs() {
	for i, glob := range v.cfg.Packs.Files {
		if _, err := filepath.Match(glob, ""); err != nil {
			at := fmt.Sprintf("packs.files[%d]", i)
			v.bad(at, at+" is not a file name pattern", "write a path, in which * stands for any letters")
		}
	}
	for i, o := range v.cfg.Packs.Overrides {
		v.packOverride(fmt.Sprintf("packs.overrides[%d]", i), o)
	}
}

func (v *validator) packOverride(at string, o PackOverride) {
	v.required(at+".pack", o.Pack, "name the pack whose config this is")
	if o.Source != "" {
		v.knownSource(at+".source", o.Source)
	}
	if o.Source == "" && o.Cluster == "" && o.Host == "" && o.Tag == "" {
		v.bad(at, at+" is for every object", "name a source, cluster, host or tag, or write it under packs.config")
	}
	if category, name, ok := strings.Cut(o.Tag, "/"); o.Tag != "" && (!ok || category == "" || name == "") {
		v.bad(at+".tag", at+".tag is not category/name", "write the tag's category, a slash and its name")
	}
	if len(o.Config) == 0 && !v.reported(at+".config") {
		v.bad(at, at+" sets nothing", "write the keys and their values under config:")
	}
}

func (v *validator) remediation() {
	r := v.cfg.Remediation
	if r == nil {
		return
	}
	if r.Mode == "automatic" {
		v.bad("remediation.mode", `remediation.mode is "automatic"`, "write manual, and list under remediation.automatic what may act by itself")
	} else {
		v.oneOf("remediation.mode", r.Mode, modes)
	}
	v.atLeast("remediation.cooldown", r.Cooldown)
	if !(r.Ceiling > 0 && r.Ceiling <= 1) && !v.reported("remediation.ceiling") {
		v.bad("remediation.ceiling", fmt.Sprintf("remediation.ceiling is %v", r.Ceiling), "write a share of the host above 0 and up to 1, as 0.8")
	}
	v.limits(r.Limits)
	v.remedies(r)
	for i, rule := range r.Automatic {
		v.automatic(fmt.Sprintf("remediation.automatic[%d]", i), rule)
	}
	for i, cluster := range r.OverrideDRS {
		at := fmt.Sprintf("remediation.override_drs[%d]", i)
		source, name, ok := strings.Cut(cluster, "/")
		if !ok || name == "" {
			v.bad(at, at+" is not source/cluster", "write the source's name, a slash and the cluster's name")
			continue
		}
		v.knownSource(at, source)
	}
}

func (v *validator) limits(l Limits) {
	for _, f := range []struct {
		name  string
		value int
	}{
		{"per_source", l.PerSource},
		{"per_cluster", l.PerCluster},
		{"per_host", l.PerHost},
		{"per_hour", l.PerHour},
		{"failures", l.Failures},
	} {
		at := "remediation.limits." + f.name
		if f.value < 1 && !v.reported(at) {
			v.bad(at, fmt.Sprintf("%s is %d", at, f.value), "write 1 or more; to move nothing, set remediation.mode: off")
		}
	}
}

func (v *validator) automatic(at string, r AutomaticRule) {
	for _, f := range []struct{ name, value string }{
		{"source", r.Source}, {"cluster", r.Cluster}, {"pack", r.Pack}, {"rule", r.Rule}, {"pack_sha256", r.PackSHA256},
	} {
		v.required(at+"."+f.name, f.value, "an automatic rule names source, cluster, pack, rule and pack_sha256, so that nothing else acts by itself")
	}
	if r.Source != "" {
		v.knownSource(at+".source", r.Source)
	}
	if r.PackSHA256 != "" && !sha256Hex.MatchString(r.PackSHA256) {
		v.bad(at+".pack_sha256", at+".pack_sha256 is not a SHA-256", "write 64 hexadecimal digits, as sha256sum prints for the pack's file")
	}
}

// knownSource refuses a reference to a source that is not in the file.
func (v *validator) knownSource(at, name string) {
	var known []string
	for _, src := range v.cfg.Sources {
		if src.Name == name {
			return
		}
		known = append(known, src.Name)
	}
	cure := "name one of sources: " + strings.Join(known, ", ")
	if meant := near(name, known); meant != "" {
		cure = "did you mean " + meant + "?"
	}
	v.bad(at, fmt.Sprintf("%s: no source %s", at, quote(name)), cure)
}
