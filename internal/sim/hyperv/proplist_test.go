package hyperv

import (
	"encoding/hex"
	"strings"
	"testing"
)

// live is the list of a live migration, byte by byte: what os-win and Failover Cluster Manager send.
const live = "02000000" +
	"03000400" + "20000000" + "5600690072007400750061006c0020004d0061006300680069006e0065000000" + // Virtual Machine
	"02000100" + "04000000" + "04000000" + "00000000" +
	"03000400" + "3c000000" + "5600690072007400750061006c0020004d0061006300680069006e006500200043006f006e00660069006700750072006100740069006f006e000000" + // ... Configuration
	"02000100" + "04000000" + "04000000" + "00000000"

func TestPropertyList(t *testing.T) {
	b, err := hex.DecodeString(live)
	if err != nil {
		t.Fatal(err)
	}
	list, err := parsePropertyList(b)
	if err != nil || len(list) != 2 || list[propertyVM] != migrationLive || list[propertyConfiguration] != migrationLive {
		t.Fatalf("%v, %v", list, err)
	}
	for n := range b {
		if list, err := parsePropertyList(b[:n]); err == nil {
			t.Errorf("the first %d bytes are %v", n, list)
		}
	}
	for _, tt := range []struct{ name, old, fresh, want string }{
		{"more bytes", "", "00000000", "4 bytes after its end"},
		{"padded name", "20000000", "21000000", ""},
		{"no final zero", "6e00650000000200", "6e00650065000200", "final zero"},
		{"string value", "02000100", "03000100", "want a dword"},
		{"list of a count too high", "02000000", "03000000", ""},
		{"twice", "3c000000" + strings.Split(live, "3c000000")[1][:120], "20000000" + "5600690072007400750061006c0020004d0061006300680069006e0065000000", "twice"},
		{"absurd count", "02000000", "ffffffff", "4294967295 properties"},
		{"absurd length", "20000000", "ffffffff", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := live + tt.fresh
			if tt.old != "" {
				text = strings.Replace(live, tt.old, tt.fresh, 1)
			}
			b, err := hex.DecodeString(text)
			if err != nil {
				t.Fatal(err)
			}
			if list, err := parsePropertyList(b); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, %v", list, err)
			}
		})
	}
}

func FuzzPropertyList(f *testing.F) {
	b, err := hex.DecodeString(live)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{1, 0, 0, 0, 3, 0, 4, 0, 2, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if list, err := parsePropertyList(b); err == nil && len(list) > maxProperties {
			t.Errorf("%d properties", len(list))
		}
	})
}
