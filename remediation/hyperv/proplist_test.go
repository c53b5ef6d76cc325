package hyperv

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/protip/protip/remediation"
)

// TestParameters: every byte, as clusapi has it.
func TestParameters(t *testing.T) {
	name := func(s string) string {
		out := ""
		for _, r := range s {
			out += hex.EncodeToString([]byte{byte(r), 0})
		}
		return out + "0000"
	}
	list := func(way string) string {
		return strings.Join([]string{
			"02000000",
			"03000400", "20000000", name("Virtual Machine"), // 32 bytes need no padding
			"02000100", "04000000", way, "00000000",
			"03000400", "3c000000", name("Virtual Machine Configuration"), // nor do 60
			"02000100", "04000000", way, "00000000",
		}, "")
	}
	for kind, way := range map[remediation.Kind]string{remediation.LiveMigration: "04000000", remediation.QuickMigration: "01000000"} {
		if got := hex.EncodeToString(parameters(kind)); got != list(way) {
			t.Errorf("%s:\n%s, want\n%s", kind, got, list(way))
		}
	}
}
