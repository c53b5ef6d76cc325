package hyperv

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"time"
	"unicode"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/platform/winrm"
)

const mega = 1 << 20

// absurd is what no capacity, memory or time of a host is above: such a figure is not believed.
const absurd = 1 << 60

// number is a small whole number, 0 if there is none.
func number(r winrm.Instance, name string) int {
	n, ok := r.Uint(name)
	if !ok || n > 1<<31 {
		return 0
	}
	return int(n)
}

// scaled is a number in another unit, nil if there is none.
func scaled(r winrm.Instance, name string, by float64) *float64 {
	n, ok := r.Uint(name)
	if v := float64(n) * by; ok && v < absurd {
		return &v
	}
	return nil
}

// sample is a raw counter with its base.
func sample(r winrm.Instance, name string) (s winrm.Sample, ok bool) {
	value, ok1 := r.Uint(name)
	base, ok2 := r.Uint(name + "_Base")
	return winrm.Sample{Value: value, Base: base}, ok1 && ok2
}

func timeOf(r winrm.Instance, name string) (time.Time, error) {
	v, _ := r.Get(name)
	return v.Time()
}

// guid is a GUID in small letters without braces, empty if it is none.
func guid(s string) string {
	s = strings.Trim(strings.TrimSpace(s), "{}")
	if len(s) != 36 {
		return ""
	}
	for i := range len(s) {
		switch c := s[i]; {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return ""
			}
		case !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'):
			return ""
		}
	}
	return strings.ToLower(s)
}

// guidWithin is the first GUID in a text, as in Microsoft:GUID\device.
func guidWithin(s string) string {
	for i := 0; i+36 <= len(s); i++ {
		if s[i+8] != '-' {
			continue
		}
		if g := guid(s[i : i+36]); g != "" {
			return g
		}
	}
	return ""
}

// counterName is a name as performance counters write it: some characters mean something else to them.
func counterName(s string) string {
	if !strings.ContainsAny(s, `()#/\`) {
		return s
	}
	return strings.NewReplacer("(", "[", ")", "]", "#", "_", "/", "_", `\`, "_").Replace(s)
}

// diskName is the path of a disk as performance counters write it.
func diskName(path string) string {
	s := strings.NewReplacer(`\`, "-", "/", "-").Replace(strings.ToLower(path))
	return strings.TrimPrefix(strings.TrimPrefix(s, "--?-"), "--.-")
}

// mac is an address with colons, empty if it is none.
func mac(s string) string {
	b, err := hex.DecodeString(strings.NewReplacer(":", "", "-", "").Replace(strings.TrimSpace(s)))
	if err != nil || len(b) != 6 || strings.Trim(s, "0:-") == "" {
		return ""
	}
	out := make([]string, 6)
	for i, x := range b {
		out[i] = hex.EncodeToString([]byte{x})
	}
	return strings.Join(out, ":")
}

// firstAddress is the first of addresses that another machine could know the guest by.
func firstAddress(list string) string {
	for s := range strings.SplitSeq(list, ";") {
		ip, err := netip.ParseAddr(strings.TrimSpace(s))
		if err == nil && !ip.IsLoopback() && !ip.IsLinkLocalUnicast() && !ip.IsUnspecified() {
			return ip.String()
		}
	}
	return ""
}

// clean is a text that a host or a guest wrote, as far as it can be shown, in memory of its own.
func clean(s string) string {
	const most = 1024
	if len(s) > most {
		s = s[:most]
	}
	s = strings.ToValidUTF8(s, "")
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, strings.Clone(s)))
}

// Values of EnabledState. Those above 32767 are Hyper-V's own.
const (
	stateEnabled   = 2
	stateDisabled  = 3
	stateStopping  = 4
	stateSaved     = 6
	stateQuiesced  = 9
	stateStarting  = 10
	ownPaused      = 32768
	ownSuspended   = 32769
	ownStarting    = 32770
	ownSnapshot    = 32771
	ownSaving      = 32773
	ownStopping    = 32774
	ownPausing     = 32776
	ownResuming    = 32777
	healthCritical = 20 // and above
)

// power maps a state. What is on its way to be on is on, and what is being saved is on until it is.
func power(state uint64) inventory.Power {
	switch state {
	case stateEnabled, stateStopping, stateStarting, ownStarting, ownSnapshot, ownSaving, ownStopping, ownPausing, ownResuming:
		return inventory.PowerOn
	case stateDisabled:
		return inventory.PowerOff
	case stateSaved, stateQuiesced, ownPaused, ownSuspended:
		return inventory.PowerSuspended
	}
	return inventory.PowerUnknown
}

// rank orders what hosts say of one VM: where it runs it is.
func rank(state uint64) int {
	switch {
	case state == stateStarting: // such as what arrives by a migration
		return 1
	case power(state) == inventory.PowerOn:
		return 3
	case power(state) == inventory.PowerSuspended:
		return 2
	}
	return 0
}

// restartPriority is a group's priority in the words of all platforms.
func restartPriority(n uint64) string {
	switch {
	case n == 0:
		return "disabled"
	case n < 2000:
		return "low"
	case n < 3000:
		return "medium"
	}
	return "high"
}
