package hyperv

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/protip/protip/internal/platform/winrm"
	"github.com/protip/protip/remediation"
)

func TestCodeIn(t *testing.T) {
	for _, tc := range []struct {
		words string
		code  uint32
	}{
		{"Live migration of 'web' failed: No credentials are available in the security package (0x8009030E).", 0x8009030E},
		{"Fehler bei der Livemigration: Nicht genügend Systemressourcen (0x800705aa).", 0x800705AA},
		{"The operation failed (0x80004005): the virtual machine 'web' cannot be found (0xC03A0014).", 0xC03A0014},
		{"cannot connect (0x8007274D), see also 0x12345678", 0x8007274D},
		{"something new (0x8ABCDEF0)", 0x8ABCDEF0},
		{"0x8009030E5 is no code, nor is 0x80", 0},
		{"", 0},
	} {
		if code := codeIn(tc.words); code != tc.code {
			t.Errorf("%q: 0x%08X, want 0x%08X", tc.words, code, tc.code)
		}
	}
}

func TestFailure(t *testing.T) {
	for _, tc := range []struct {
		name  string
		code  uint32
		words string
		want  string
	}{
		{"with the host's words", 0x8009030E, "No credentials (0x8009030E).", "No credentials (0x8009030E).: the source has no credentials for the target: let it delegate"},
		{"without", 0x800705AA, "", "failed (0x800705AA): the target has not enough memory free"},
		{"a number nobody knows", 0x8ABCDEF0, "", "failed (0x8ABCDEF0)"},
		{"words without a number", 0, "es ging nicht", "es ging nicht"},
		{"nothing", 0, "", "nothing tells why"},
		{"a group policy", 0x80070534, "", "A quick migration works meanwhile"},
	} {
		if got := failure(tc.code, tc.words).Error(); !strings.HasPrefix(got, tc.want) && !strings.Contains(got, tc.want) {
			t.Errorf("%s: %q, want %q in it", tc.name, got, tc.want)
		}
	}
	if words := plain("a\r\n\x1b[31mb" + strings.Repeat("ü", 4000)); len(words) > maxWords+10 || strings.ContainsAny(words, "\n\x1b") {
		t.Errorf("a host's words are taken over as %q", words)
	}
}

// TestTaken: what a call's error leaves open decides whether a VM is frozen or may be moved again.
func TestTaken(t *testing.T) {
	fault := func(code uint32) error { return fmt.Errorf("invoke: %w", &winrm.Fault{Code: 1, Provider: code}) }
	for _, tc := range []struct {
		name      string
		err       error
		ok        bool
		undecided bool
	}{
		{"taken", nil, true, false},
		{"pending, which is taken", fault(codePending), true, false},
		{"not sent", fmt.Errorf("x: %w", winrm.ErrNotSent), false, false},
		{"wrong password", fmt.Errorf("x: %w", winrm.ErrCredentials), false, false},
		{"refused", fault(0x80070005), false, false},
		{"refused by its return value", returned(32775), false, false},
		{"not waited for, by its return value", returned(returnTimeout), false, true},
		{"not waited for", fault(0x800705B4), false, true},
		{"the provider lost its cluster", fault(0x800706BE), false, true},
		{"the host's time-out", fmt.Errorf("x: %w", winrm.ErrTimedOut), false, true},
		{"an answer that nobody can read", fmt.Errorf("x: %w", winrm.ErrMalformed), false, true},
		{"an HTTP error", fmt.Errorf("x: %w", winrm.ErrUnavailable), false, true},
	} {
		err := taken(tc.err)
		if (err == nil) != tc.ok || errors.Is(err, remediation.ErrUndecided) != tc.undecided {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

func TestComputerIs(t *testing.T) {
	in, alone := computer{"hv-01", "example.org"}, computer{name: "hv-01"}
	long := computer{"hypervisor-munich-01", "example.org"}
	for _, tc := range []struct {
		c    computer
		ref  string
		want bool
	}{
		{in, "hv-01", true},
		{in, "HV-01", true},
		{in, "hv-01.example.org", true},
		{in, "HV-01.Example.ORG", true},
		{in, "hv-01.example.com", false},
		{in, "hv-010", false},
		{alone, "hv-01", true},
		{long, "HYPERVISOR-MUNI", true},
	} {
		if got := tc.c.is(tc.ref); got != tc.want {
			t.Errorf("%+v is %q: %t", tc.c, tc.ref, got)
		}
	}
}
