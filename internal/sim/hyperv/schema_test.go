package hyperv

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/protip/protip/internal/sim/load"
)

// everything is a cluster in which every class has instances.
func everything(t *testing.T, os OS) *Cluster {
	t.Helper()
	var vms []VM
	for i := range 4 {
		vms = append(vms, VM{Dynamic: i%2 == 0, AntiAffinity: []string{"a"}, Guest: Guest{Hostname: "guest", OS: "Windows", IPs: []string{"10.0.0.1", "fe80::1"}, Endpoint: i == 0, Services: []Service{{Name: "MSSQL", State: "Running", StartMode: "Auto"}}}})
	}
	c, err := build(withDefaults(Options{OS: os, Load: load.Generator{Seed: 1}, Nodes: []Node{{VMs: vms}, {}, {}}, MigrationTime: func(float64) time.Duration { return time.Hour }}))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Move(c.VMs()[3], "hv-02", true); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestAnswersKeepToTheSchema holds that nothing is told which the simulated Windows does not have, and nothing of another type.
func TestAnswersKeepToTheSchema(t *testing.T) {
	for _, os := range []OS{Server2019, Server23H2} {
		t.Run(string(os), func(t *testing.T) {
			c := everything(t, os)
			machines := []machine{&nodeMachine{c, c.model.nodes[0]}, &guestMachine{c, c.model.vms[0]}}
			for ns, classes := range c.schema.namespaces {
				for _, cl := range classes {
					told := 0
					for _, m := range machines {
						all, _ := m.instances(cl)
						told += len(all)
						for _, i := range all {
							checkInstance(t, i)
						}
					}
					if told == 0 {
						t.Errorf("%s of %s has no instance: a class that is there and empty is a lie", cl.name, ns)
					}
				}
			}
		})
	}
}

func checkInstance(t *testing.T, i *instance) {
	t.Helper()
	for name, v := range i.values {
		want, known := i.class.props[name]
		if !known {
			t.Errorf("%s has no property %s", i.class.name, name)
			continue
		}
		if !fits(v, want) {
			t.Errorf("%s.%s is a %T, the schema says %s", i.class.name, name, v, want)
		}
	}
	for _, k := range i.class.keys {
		if i.values[k] == nil {
			t.Errorf("%s: the key %s is null", i.class.name, k)
		}
	}
}

// fits reports whether a value is of a type of the schema, where date, interval and string are one.
func fits(v any, want string) bool {
	whole := strings.HasPrefix(want, "uint") || strings.HasPrefix(want, "int")
	switch v := v.(type) {
	case nil:
		return true
	case string:
		return want == "string" || want == "uint16" // of enumerations whose values are words, the schema says a number
	case time.Time, time.Duration:
		return want == "string"
	case bool:
		return want == "bool"
	case int:
		return whole
	case uint32:
		return slices.Contains([]string{"uint32", "uint64"}, want)
	case uint64:
		return want == "uint64"
	case float64:
		return want == "uint64" && v >= 0
	case []string:
		return want == "[]string"
	case []int, []uint32:
		return strings.HasPrefix(want, "[]uint")
	case reference, embedded:
		return strings.HasPrefix(want, "ref:")
	}
	return false
}

func TestVersionsDiffer(t *testing.T) {
	old, err := schemaOf(Server2019)
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := schemaOf(Server23H2)
	if err != nil {
		t.Fatal(err)
	}
	const processors = "Win32_PerfRawData_HvStats_HyperVHypervisorLogicalProcessor"
	for _, tt := range []struct {
		class, property string
		old, fresh      bool
	}{
		{"Win32_PerfRawData_BalancerStats_HyperVDynamicMemoryVM", "GuestAvailableMemory", false, true},
		{processors, "Frequency", true, false},
		{processors, "percenttotalruntime", true, true},
		{processors, "NoSuchThing", false, false},
	} {
		if got := old.class(`ROOT\cimv2`, tt.class).property(tt.property) != ""; got != tt.old {
			t.Errorf("2019: %s.%s: %v", tt.class, tt.property, got)
		}
		if got := fresh.class("root/CIMV2/", tt.class).property(tt.property) != ""; got != tt.fresh {
			t.Errorf("23H2: %s.%s: %v", tt.class, tt.property, got)
		}
	}
	if _, err := schemaOf("server2025"); err == nil {
		t.Error("an unknown version has a schema")
	}
}
