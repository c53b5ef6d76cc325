package main

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestItCannotAct holds that reading only is a property of the program: it links nothing of ours that acts, and none of
// govmomi's calls that make a vCenter do something, nor go-libvirt's client, which could make a host do anything.
func TestItCannotAct(t *testing.T) {
	deps, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	acting := regexp.MustCompile(`^github\.com/protip/protip/(rules|remediation|internal/(store|web|app|placement|sim))(/|$)`)
	for dep := range strings.Lines(string(deps)) {
		if acting.MatchString(dep) {
			t.Errorf("it links %s", strings.TrimSpace(dep))
		}
	}

	binary := filepath.Join(t.TempDir(), "protip-exporter")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	symbols, err := exec.Command("go", "tool", "nm", binary).Output()
	if err != nil {
		t.Fatalf("go tool nm: %v", err)
	}
	if !strings.Contains(string(symbols), "vim25/methods.Login") {
		t.Error("no vim25/methods.Login: the check of the symbols would see nothing")
	}
	call := regexp.MustCompile(`(?m)^.* T .*(vim25/methods\.\w+_Task|platform/winrm\.Invoke|go-libvirt\.\(\*Libvirt\)\.\w+|protip/(rules|remediation)[./].*)$`)
	for _, symbol := range call.FindAllString(string(symbols), 10) {
		t.Errorf("it holds %s", strings.TrimSpace(symbol))
	}
}
