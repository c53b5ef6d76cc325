package remediation

import "time"

// Window is when what no person asked for may start: on some days, from one minute of the day to another, by the clocks of a place. One
// that ends after midnight belongs to the day on which it began.
type Window struct {
	Days     [7]bool // by time.Weekday, on which it begins
	From, To int     // minutes since midnight; To is after From, and above 24 h on the next day
	Zone     *time.Location
}

// Outside says why now is in no window, empty if it is in one or if there is none.
func Outside(windows []Window, now time.Time) string {
	if len(windows) == 0 {
		return ""
	}
	for _, w := range windows {
		if w.open(now) {
			return ""
		}
	}
	return "it is outside of the maintenance windows"
}

func (w Window) open(now time.Time) bool {
	local := now.In(w.Zone)
	minute := local.Hour()*60 + local.Minute()
	yesterday := (local.Weekday() + 6) % 7
	return w.Days[local.Weekday()] && minute >= w.From && minute < w.To ||
		w.Days[yesterday] && minute+24*60 < w.To
}
