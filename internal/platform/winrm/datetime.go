package winrm

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// ParseTime reads a datetime as WS-Management writes it (2008-04-03T14:45:50.46875+08:00) or as CIM does
// (20080403144550.468750+480). A time without a zone is UTC.
func ParseTime(s string) (time.Time, error) {
	s = strings.TrimSpace(s)
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	if len(s) == 25 && s[14] == '.' && (s[21] == '+' || s[21] == '-') {
		t, err := time.Parse("20060102150405.000000", s[:21])
		minutes, bad := strconv.Atoi(s[21:])
		if err == nil && bad == nil {
			return t.Add(-time.Duration(minutes) * time.Minute).In(time.FixedZone("", minutes*60)), nil
		}
	}
	return time.Time{}, fmt.Errorf("%s is no datetime", shown(s))
}

// ParseInterval reads an interval as WS-Management writes it (P1DT2H3M4.5S) or as CIM does (00000001020304.500000:000).
func ParseInterval(s string) (time.Duration, error) {
	s = strings.TrimSpace(s)
	if len(s) == 25 && s[14] == '.' && s[21] == ':' {
		return sum(s, []part{{s[:8], 24 * time.Hour}, {s[8:10], time.Hour}, {s[10:12], time.Minute}, {s[12:21], time.Second}})
	}
	rest, ok := strings.CutPrefix(s, "P")
	if !ok || rest == "" {
		return 0, fmt.Errorf("%s is no interval", shown(s))
	}
	var parts []part
	date, clock, timed := strings.Cut(rest, "T")
	for _, half := range []struct{ text, units string }{{date, "YMWD"}, {clock, "HMS"}} {
		got, err := designators(half.text, half.units)
		if err != nil {
			return 0, fmt.Errorf("%s is no interval: %w", shown(s), err)
		}
		parts = append(parts, got...)
	}
	if len(parts) == 0 || timed && clock == "" {
		return 0, fmt.Errorf("%s is no interval", shown(s))
	}
	return sum(s, parts)
}

type part struct {
	number string
	unit   time.Duration
}

// designators splits 1H2M3.5S. Years and months have no fixed length: they may only be zero.
func designators(s, units string) (parts []part, err error) {
	for s != "" {
		i := strings.IndexAny(s, units)
		if i < 0 {
			return nil, fmt.Errorf("%s has no unit", shown(s))
		}
		unit := map[byte]time.Duration{'W': 7 * 24 * time.Hour, 'D': 24 * time.Hour, 'H': time.Hour, 'M': time.Minute, 'S': time.Second}[s[i]]
		if units[0] == 'Y' && (s[i] == 'Y' || s[i] == 'M') {
			if strings.Trim(s[:i], "0") != "" {
				return nil, fmt.Errorf("a year or a month has no fixed length")
			}
			unit = 0
		}
		parts = append(parts, part{s[:i], unit})
		units, s = units[strings.IndexByte(units, s[i])+1:], s[i+1:]
	}
	return parts, nil
}

func sum(s string, parts []part) (time.Duration, error) {
	total := 0.0
	for _, p := range parts {
		n, err := strconv.ParseFloat(p.number, 64)
		if err != nil || n < 0 || strings.ContainsAny(p.number, "eExXnNiI_+-") {
			return 0, fmt.Errorf("%s is no interval", shown(s))
		}
		total += n * float64(p.unit)
	}
	if total >= math.MaxInt64 {
		return 0, fmt.Errorf("%s is longer than 292 years", shown(s))
	}
	return time.Duration(math.Round(total)), nil
}
