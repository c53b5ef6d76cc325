package vsphere

import (
	"os"
	"regexp"
	"slices"
	"testing"
)

// TestPrivilegesAreDocumented holds docs/vsphere.md against what is asked of a vCenter, both ways.
func TestPrivilegesAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/vsphere.md")
	if err != nil {
		t.Fatal(err)
	}
	var got []Privilege
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z]\\w+\\.\\w+)` \\| (.+) \\|$").FindAllStringSubmatch(string(doc), -1) {
		got = append(got, Privilege{ID: m[1], Name: m[2]})
	}
	if want := acting(); !slices.Equal(got, want) {
		t.Errorf("docs/vsphere.md lists %v, want %v", got, want)
	}
}
