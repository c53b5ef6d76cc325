package guest

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkRead reads an answer of the size of node_exporter's, of which little is a service's; all is what parsing all of it would
// cost.
func BenchmarkRead(b *testing.B) {
	var text strings.Builder
	for i := range 600 {
		fmt.Fprintf(&text, "node_cpu_seconds_total{cpu=\"%d\",mode=\"a rather long word\"} %d.25\n", i, i*1000)
	}
	for i := range 40 {
		for _, state := range []string{"activating", "active", "deactivating", "failed", "inactive"} {
			fmt.Fprintf(&text, "node_systemd_unit_state{name=\"unit-%d.service\",state=%q,type=\"simple\"} %d\n", i, state, len(state)%2)
		}
	}
	mappings, err := compile([]Mapping{{Type: Systemd, Names: []string{"unit-1.*"}}})
	if err != nil {
		b.Fatal(err)
	}
	for _, bc := range []struct {
		name   string
		wanted map[string]bool
	}{
		{"wanted", map[string]bool{unitState: true}},
		{"all", map[string]bool{unitState: true, "node_cpu_seconds_total": true}},
	} {
		b.Run(bc.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(text.Len()))
			for b.Loop() {
				kept, err := filter(strings.NewReader(text.String()), bc.wanted)
				if err != nil {
					b.Fatal(err)
				}
				families, err := parse(kept)
				if err != nil {
					b.Fatal(err)
				}
				if ans := read(mappings, families, &past{}); len(ans.readings) != 11 {
					b.Fatalf("%d services", len(ans.readings))
				}
			}
		})
	}
}
