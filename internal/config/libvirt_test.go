package config

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestLibvirt(t *testing.T) {
	dir := folder(t)
	cfg, err := parse(dir, `sources:
  - name: lab
    type: libvirt
    hosts: ["qemu+ssh://watch@kvm-01/system", "qemu+tls://kvm-02/system", "qemu:///system"]
    ssh_key_file: password
    known_hosts_file: password
    acting: {username: move, ssh_key_file: password}
  - {name: open, type: libvirt, hosts: ["qemu+tcp://kvm-03/system"], tls_config: {ca_file: password}, acting: {}}
`)
	if err != nil {
		t.Fatal(err)
	}
	src, file := cfg.Sources[0], filepath.Join(dir, "password")
	if src.SSHKeyFile != file || src.KnownHostsFile != file || src.Acting.SSHKeyFile != file || src.Acting.User() != "move" {
		t.Errorf("source %+v acting %+v", src, src.Acting)
	}
	if cfg.Sources[1].Acting == nil {
		t.Error("an empty acting is none")
	}
	if _, err := parse(dir, cfg.String()); err != nil {
		t.Errorf("what is printed cannot be read: %v", err)
	}
}

func TestLibvirtErrors(t *testing.T) {
	for _, tt := range []struct{ name, yaml, want string }{
		{"no hosts", "{}", "sources[0].hosts is missing: list the cluster's hosts"},
		{"a name", "{hosts: [kvm-01]}", "sources[0].hosts: the first host is no URI of libvirt's: write it as qemu+ssh://"},
		{"a password", "{hosts: ['qemu+ssh://u:hunter2@kvm-01/system'], ssh_key_file: password}", "the first host holds a password"},
		{"another transport", "{hosts: ['qemu:///system', 'qemu+libssh://kvm-01/system']}", "the second host has another transport"},
		{"a socket of another host", "{hosts: ['qemu+unix://kvm-01/system']}", "the first host names no host, or names one for a unix socket"},
		{"twice", "{hosts: ['qemu:///system', 'qemu:///system']}", "the second host is there twice"},
		{"no key", "{hosts: ['qemu+ssh://kvm-01/system']}", "sources[0].ssh_key_file is missing"},
		{"no key to act", "{hosts: ['qemu+ssh://kvm-01/system'], ssh_key_file: password, acting: {username: move}}", "sources[0].acting.ssh_key_file is missing"},
		{"a key that is not there", "{hosts: ['qemu+ssh://kvm-01/system'], ssh_key_file: nowhere}", "sources[0].ssh_key_file: stat"},
		{"a password file", "{hosts: ['qemu:///system'], password_file: password}", "sources[0].password_file says nothing to a source of type libvirt"},
		{"a user without SSH", "{hosts: ['qemu:///system'], username: u}", "sources[0].username is set and no host is reached by SSH"},
		{"TLS that is not verified", "{hosts: ['qemu+tls://kvm-01/system'], tls_config: {insecure_skip_verify: true}}", "TLS to libvirt is always verified"},
		{"another type's key", "{hosts: ['qemu:///system'], perf_batch: 3}", "sources[0].perf_batch says nothing to a source of type libvirt"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parse(folder(t), "sources:\n  - {name: lab, type: libvirt, "+strings.TrimPrefix(tt.yaml, "{")+"\n")
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Error("the error shows the password")
			}
		})
	}
}
