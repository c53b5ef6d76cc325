package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// Types of sources that are Windows hosts, asked by WS-Management.
const (
	HyperV        = "hyperv"        // a failover cluster, or hosts that belong to none
	VirtualServer = "virtualserver" // hosts of Virtual Server 2005
)

// Ways to log in at a Windows host.
const (
	AuthNTLM        = "ntlm"
	AuthKerberos    = "kerberos"
	AuthBasic       = "basic"
	AuthCertificate = "certificate"
)

var auths = []string{AuthNTLM, AuthKerberos, AuthBasic, AuthCertificate}

// HostURL is where a Windows host serves WS-Management: https on port 5986 for a bare name, plain http for ports 80 and
// 5985, or what a URL says. The error never repeats the value: it may hold a password.
func HostURL(host string) (*url.URL, error) {
	if !strings.Contains(host, "://") {
		if strings.ContainsAny(host, "/@?# ") || host == "" {
			return nil, errors.New("is no host")
		}
		scheme := "https"
		switch _, port, err := net.SplitHostPort(host); {
		case err != nil && strings.Count(host, ":") > 1: // a bare IPv6 address
			host = "[" + strings.Trim(host, "[]") + "]"
		case port == "80" || port == "5985":
			scheme = "http"
		}
		host = scheme + "://" + host
	}
	u, err := url.Parse(host)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("is no host")
	case u.User != nil:
		return nil, errors.New("holds a user or a password")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("holds a query or a fragment")
	}
	if u.Port() == "" {
		port := "5986"
		if u.Scheme == "http" {
			port = "5985"
		}
		u.Host = net.JoinHostPort(u.Hostname(), port)
	}
	return u, nil
}

// windows checks a source of Windows hosts.
func (v *validator) windows(i int, at func(string) string) {
	v.windowsLogin(at, &v.cfg.Sources[i], v.hosts(i, at))
}

// windowsLogin checks how a source logs in at its Windows hosts, one of which may be spoken to over plain http.
func (v *validator) windowsLogin(at func(string) string, src *Source, plain bool) {
	v.windowsCredential(at, src, &src.Credential, plain)
	if src.Acting != nil {
		v.windowsCredential(func(field string) string { return at("acting." + field) }, src, src.Acting, plain)
	}
	if src.PlainBasic && src.Auth != AuthBasic && (src.Acting == nil || src.Acting.Auth != AuthBasic) {
		v.bad(at("plain_basic"), at("plain_basic")+" is set and nothing logs in with basic", "remove it")
	}
	v.readable(at("krb5_conf"), src.Krb5Conf, "Kerberos' configuration")
}

// hosts checks the list, and tells whether one of it is spoken to over plain http.
func (v *validator) hosts(i int, at func(string) string) (plain bool) {
	list := v.cfg.Sources[i].Hosts
	if len(list) == 0 && !v.reported(at("hosts")) {
		v.bad(at("hosts"), at("hosts")+" is missing", "list the cluster's nodes, or hosts that belong to no cluster, as hv-01.example.com")
	}
	first := map[string]int{}
	for n, host := range list {
		key := fmt.Sprintf("%s[%d]", at("hosts"), n)
		u, err := HostURL(host)
		if err != nil {
			v.bad(key, key+" "+err.Error(), "write a name, host:port or a URL, as hv-01.example.com; port 5985 and http:// are plain http, on which NTLM seals what is sent")
			continue
		}
		plain = plain || u.Scheme == "http"
		where := strings.ToLower(u.Host)
		if m, twice := first[where]; twice {
			v.bad(key, fmt.Sprintf("%s is the same host as %s[%d]", key, at("hosts"), m), "remove one of the two")
			continue
		}
		first[where] = n
	}
	return plain
}

// windowsCredential checks that a log-in has what it needs, and would send nothing readable that it should not.
func (v *validator) windowsCredential(at func(string) string, src *Source, c *Credential, plain bool) {
	auth := c.Auth
	if auth == "" {
		auth = AuthNTLM
	} else {
		v.oneOf(at("auth"), c.Auth, auths)
	}
	if auth != AuthKerberos {
		for _, f := range []struct{ name, value string }{{"realm", c.Realm}, {"keytab_file", c.KeytabFile}, {"ccache_file", c.CacheFile}} {
			if f.value != "" {
				v.bad(at(f.name), at(f.name)+" says nothing without auth: kerberos", "write auth: kerberos, or remove it")
			}
		}
	}
	switch auth {
	case AuthCertificate:
		if src.TLS.CertFile == "" && src.TLS.Cert == "" {
			v.bad(at("auth"), at("auth")+" is certificate and tls_config names none", "name the certificate and its key in tls_config.cert_file and tls_config.key_file")
		}
	case AuthKerberos:
		v.kerberos(at, c)
	default:
		v.credential(at, c)
	}
	if !plain || v.reported(at("auth")) || auth == AuthNTLM || auth == AuthBasic && src.PlainBasic {
		return
	}
	cure := "write the hosts without http:// and without the ports 80 and 5985, or log in with ntlm, which seals what it sends"
	if auth == AuthBasic {
		cure += "; plain_basic: true sends the password readable all the same"
	}
	v.bad(at("auth"), fmt.Sprintf("%s is %s and a host is spoken to over plain http", at("auth"), auth), cure)
}

func (v *validator) kerberos(at func(string) string, c *Credential) {
	v.readable(at("keytab_file"), c.KeytabFile, "the keytab")
	v.readable(at("ccache_file"), c.CacheFile, "the cache of tickets")
	if c.CacheFile != "" {
		return // it says who the user is
	}
	if c.KeytabFile == "" {
		v.credential(at, c)
	} else {
		v.oneSet(at("username"), c.Username, at("username_env"), c.UsernameEnv, "write the user whose keys the keytab holds, as svc-protip@EXAMPLE.COM")
		v.variable(at("username_env"), c.UsernameEnv)
	}
	if user := c.User(); user != "" && c.Realm == "" && !strings.Contains(user, "@") {
		v.bad(at("realm"), at("realm")+" is missing", "write the realm, as EXAMPLE.COM, here or after the user's name: svc-protip@EXAMPLE.COM")
	}
}
