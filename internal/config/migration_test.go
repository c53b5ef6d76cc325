package config

import (
	"strings"
	"testing"
)

func TestMigration(t *testing.T) {
	for _, tc := range []struct {
		name, yaml string
		want       string // in the error; empty: it is taken
	}{
		{"all", "{uri: 'qemu+tls://{host}/system', bandwidth: 100, max_downtime: 500ms, copy_storage: true, timeout: 10m}", ""},
		{"nothing", "{}", ""},
		{"negative bandwidth", "{bandwidth: -1}", "sources[0].migration.bandwidth is -1"},
		{"a downtime that is a day", "{max_downtime: 1d}", "write a time from 1ms to 1h0m0s"},
		{"a time-out below a second", "{timeout: 10ms}", "sources[0].migration.timeout is 10ms"},
		{"one target for all", "{uri: 'qemu+tls://kvm-01/system'}", "does not contain {host}"},
		{"no URI", "{uri: '{host}'}", "is no URI of a libvirt host"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse([]byte("sources:\n  - name: lab\n    type: libvirt\n    hosts: [qemu+tcp://kvm-01/system]\n    migration: "+tc.yaml+"\n"), "protip.yml")
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q in it", err, tc.want)
			}
		})
	}
}
