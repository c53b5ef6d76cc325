package config

import (
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Migration is how the VMs of a libvirt source are moved. What it leaves out is left to libvirt.
type Migration struct {
	// URI is how a host reaches another to send it a VM, with {host} for what that one calls itself: qemu+tls://{host}/system.
	// Empty: as protip reaches it, without its user and keys, which are protip's.
	URI         string        `yaml:"uri,omitempty"`
	Bandwidth   int           `yaml:"bandwidth,omitempty"`    // MiB/s at most, as virsh's migrate-setspeed; 0 is libvirt's own limit
	MaxDowntime time.Duration `yaml:"max_downtime,omitempty"` // that a VM may stand still for at the end; 0 is libvirt's own, 300 ms
	CopyStorage bool          `yaml:"copy_storage,omitempty"` // also copies disks that the hosts do not share
	Timeout     time.Duration `yaml:"timeout,omitempty"`      // after which a migration is aborted, which leaves the VM on its source; 0 is never
}

// migration checks how a source's VMs are moved.
func (v *validator) migration(at func(string) string, m *Migration) {
	if m.Bandwidth < 0 && !v.reported(at("migration.bandwidth")) {
		v.bad(at("migration.bandwidth"), fmt.Sprintf("%s is %d", at("migration.bandwidth"), m.Bandwidth), "write MiB/s, or remove it for libvirt's own limit")
	}
	for _, f := range []struct {
		field       string
		d, min, max time.Duration
	}{
		{"migration.max_downtime", m.MaxDowntime, time.Millisecond, time.Hour},
		{"migration.timeout", m.Timeout, time.Second, 24 * time.Hour},
	} {
		if f.d != 0 && (f.d < f.min || f.d > f.max) && !v.reported(at(f.field)) {
			v.bad(at(f.field), fmt.Sprintf("%s is %s", at(f.field), f.d), fmt.Sprintf("write a time from %s to %s", f.min, f.max))
		}
	}
	if m.URI == "" {
		return
	}
	u, err := url.Parse(strings.ReplaceAll(m.URI, "{host}", "host"))
	switch {
	case err != nil || u.Host == "" || u.Path == "":
		v.bad(at("migration.uri"), at("migration.uri")+" is no URI of a libvirt host", "write it as qemu+tls://{host}/system")
	case !strings.Contains(m.URI, "{host}"):
		v.bad(at("migration.uri"), at("migration.uri")+" does not contain {host}", "write it as qemu+tls://{host}/system: protip puts the target's host name there")
	}
}
