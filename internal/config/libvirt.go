package config

import (
	"errors"
	"net/url"
	"slices"
	"strings"
)

// Libvirt is the type of a source that is a cluster of libvirt hosts.
const Libvirt = "libvirt"

// libvirt checks a source of libvirt hosts.
func (v *validator) libvirt(i int, at func(string) string) {
	src := &v.cfg.Sources[i]
	if len(src.Hosts) == 0 && !v.reported(at("hosts")) {
		v.bad(at("hosts"), at("hosts")+" is missing", "list the cluster's hosts, each as virsh -c would take it: qemu+ssh://protip@kvm-01/system")
	}
	ssh := false
	for j, host := range src.Hosts {
		tunnelled, err := libvirtURI(host)
		ssh = ssh || tunnelled
		if err != nil {
			v.bad(key("sources", i, "hosts"), key("sources", i, "hosts")+": "+ordinal(j)+" host "+err.Error(), "write it as qemu+ssh://protip@kvm-01/system, qemu+tls://kvm-01/system or qemu:///system")
		}
		if slices.Contains(src.Hosts[:j], host) {
			v.bad(at("hosts"), at("hosts")+": "+ordinal(j)+" host is there twice", "remove one of them")
		}
	}
	if t := src.TLS; t.CA != "" || t.Cert != "" || t.Key != "" || t.InsecureSkipVerify || t.MinVersion != 0 || t.MaxVersion != 0 {
		v.bad(at("tls_config"), at("tls_config")+" sets more than files and a name", "write ca_file, cert_file, key_file and server_name only; TLS to libvirt is always verified")
	}
	v.libvirtCredential(at, &src.Credential, ssh)
	v.readable(at("known_hosts_file"), src.KnownHostsFile, "the hosts' public keys")
	if src.Acting != nil {
		v.libvirtCredential(func(field string) string { return at("acting." + field) }, src.Acting, ssh)
	}
}

func (v *validator) libvirtCredential(at func(string) string, c *Credential, ssh bool) {
	for _, f := range []struct{ field, value string }{
		{"username_env", c.UsernameEnv}, {"password_file", c.PasswordFile}, {"password_env", c.PasswordEnv},
	} {
		if f.value != "" {
			v.bad(at(f.field), at(f.field)+" says nothing to a source of type libvirt", "remove it: libvirt hosts are logged in at with SSH keys or TLS certificates")
		}
	}
	if c.Username != "" && !ssh {
		v.bad(at("username"), at("username")+" is set and no host is reached by SSH", "remove it")
	}
	if ssh {
		v.required(at("ssh_key_file"), c.SSHKeyFile, "name a file that holds a private key without a passphrase, whose owner may use libvirt on the hosts")
	}
	v.readable(at("ssh_key_file"), c.SSHKeyFile, "the private key")
}

// libvirtURI reports what is wrong with a host's URI, and whether it is reached by SSH. The error never repeats the value: it may hold a
// password.
func libvirtURI(host string) (ssh bool, err error) {
	u, err := url.Parse(host)
	if err != nil || u.Scheme == "" || u.Opaque != "" || u.Path == "" {
		return false, errors.New("is no URI of libvirt's")
	}
	_, transport, _ := strings.Cut(u.Scheme, "+")
	_, password := u.User.Password()
	switch {
	case password:
		return false, errors.New("holds a password")
	case !slices.Contains([]string{"", "unix", "tcp", "tls", "ssh"}, transport):
		return false, errors.New("has another transport than unix, tcp, tls or ssh")
	case transport == "unix" && u.Host != "" || transport != "unix" && transport != "" && u.Hostname() == "":
		return false, errors.New("names no host, or names one for a unix socket")
	}
	return transport == "ssh", nil
}

// ordinal names the place in a list.
func ordinal(i int) string {
	if names := []string{"the first", "the second", "the third"}; i < len(names) {
		return names[i]
	}
	return "a later"
}
