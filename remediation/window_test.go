package remediation

import (
	"testing"
	"time"
)

func TestOutside(t *testing.T) {
	t.Parallel()
	east := time.FixedZone("east", 3*3600)
	weekend := Window{From: 22 * 60, To: 29 * 60, Zone: time.UTC}
	weekend.Days[time.Saturday] = true
	day := Window{From: 9 * 60, To: 17 * 60, Zone: east}
	day.Days[time.Monday] = true
	all := Window{From: 0, To: 24 * 60, Zone: time.UTC, Days: [7]bool{true, true, true, true, true, true, true}}
	for at, open := range map[string]bool{
		"2026-03-07T21:59:59Z": false, "2026-03-07T22:00:00Z": true, // a Saturday
		"2026-03-08T00:30:00Z": true, "2026-03-08T04:59:59Z": true, "2026-03-08T05:00:00Z": false, "2026-03-08T22:30:00Z": false,
		"2026-03-09T05:59:00Z": false, "2026-03-09T06:00:00Z": true, "2026-03-09T13:59:00Z": true, "2026-03-09T14:00:00Z": false,
		"2026-03-07T04:00:00Z": false,
	} {
		now, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if why := Outside([]Window{weekend, day}, now); (why == "") != open {
			t.Errorf("at %s: %q, want open: %v", at, why, open)
		}
		if Outside(nil, now) != "" || Outside([]Window{all}, now) != "" {
			t.Errorf("at %s: closed without a window, or with one that never closes", at)
		}
	}
}
