package build

import (
	"testing"

	"github.com/protip/protip/internal/config"
	"github.com/protip/protip/test/libvirtd"
)

func TestCheckLibvirt(t *testing.T) {
	d := libvirtd.Start(t)
	src := config.Source{Name: "lab", Type: config.Libvirt, Hosts: []string{d.URI("/default")}, Acting: &config.Credential{}}
	r, err := Check(t.Context(), nil, src)
	if err != nil || r.Hosts != 1 || r.VMs != 1 || r.Acting == nil || r.Acting.Error != "" {
		t.Errorf("report %+v %v", r, err)
	}
	src.Hosts = []string{"test+tcp://127.0.0.1:1/default"}
	if r, err := Check(t.Context(), nil, src); err == nil {
		t.Errorf("nobody there: %+v", r)
	}
}

func TestLibvirtHosts(t *testing.T) {
	src := config.Source{Hosts: []string{"qemu+ssh://watch@kvm-01/system", "qemu+tls://kvm-02/system"}}
	got := LibvirtHosts(src, config.Credential{Username: "move", SSHKeyFile: "key"})
	if got[0].URI != "qemu+ssh://move@kvm-01/system" || got[0].SSH.KeyFile != "key" || got[1].URI != "qemu+tls://kvm-02/system" || got[0].Write {
		t.Errorf("hosts %+v", got)
	}
	if got := LibvirtHosts(src, config.Credential{}); got[0].URI != src.Hosts[0] {
		t.Errorf("without a user: %+v", got)
	}
}
