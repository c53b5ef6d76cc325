package hyperv

import (
	"slices"
	"testing"

	"github.com/protip/protip/internal/platform/winrm"
)

// TestPlugged: what a VM is plugged into stays while nothing is told of it because it comes or goes, and ends with its last adapter.
func TestPlugged(t *testing.T) {
	const vm, to = "3d5b9091-abdc-c67f-823a-647b34308a0e", "11111111-2222-3333-4444-555555555555"
	text := func(name, value string) winrm.Property {
		return winrm.Property{Name: name, Value: winrm.Value{Kind: winrm.Scalar, Text: value}}
	}
	connection := func(state string) []winrm.Instance {
		return []winrm.Instance{{Properties: []winrm.Property{
			text("InstanceID", `Microsoft:`+vm+`\port\C`), text("EnabledState", state), text("HostResource", `x.CreationClassName="x",Name="`+to+`"`),
		}}}
	}
	settings := []winrm.Instance{{Properties: []winrm.Property{text("VirtualSystemIdentifier", vm)}}}
	n := &node{details: map[string]*detail{}, plugged: map[string][]string{vm: {to}}}
	for _, step := range []struct {
		name                  string
		settings, connections []winrm.Instance
		plugged               bool
	}{
		{"it arrives", nil, nil, true},
		{"it still arrives", nil, nil, true},
		{"it is here", settings, connection("2"), true},
		{"it leaves, and has settings yet", settings, nil, true},
		{"it is back", settings, connection("2"), true},
		{"not connected", settings, connection("3"), false},
		{"connected", settings, connection("2"), true},
		{"nothing is told once", settings, nil, true},
		{"twice: it has no adapter", settings, nil, false},
	} {
		n.takeSettings(step.settings)
		n.takeConnections(step.connections)
		if got := slices.Equal(n.plugged[vm], []string{to}); got != step.plugged || !got && len(n.plugged[vm]) > 0 {
			t.Errorf("%s: plugged into %v, want %v", step.name, n.plugged[vm], step.plugged)
		}
	}
}
