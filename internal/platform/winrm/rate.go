package winrm

// TicksPerSecond is the unit of Windows' times: 100 ns.
const TicksPerSecond = 10_000_000

// Sample is a raw counter of Win32_PerfRawData at one moment: its value, and what it is measured against.
//
//	counter type                  Base                   read with
//	PERF_100NSEC_TIMER and kin    Timestamp_Sys100NS     Ratio: the share of the time; of several processors, more than 1
//	PERF_COUNTER_BULK_COUNT       Timestamp_PerfTime     PerSecond with Frequency_PerfTime
//	PERF_AVERAGE_BULK, _TIMER     the property's _Base   Ratio: mean per operation
//	PERF_PRECISION_100NS_TIMER    the property's _Base   Ratio
//	PERF_RAW_FRACTION             the property's _Base   Value/Base, of one sample
type Sample struct {
	Value, Base uint64
}

// Ratio is how much a counter grew for each unit its base grew by between two samples, false if that cannot be said: no
// time has passed, or one of the two went back, because the host or the counter's owner restarted, the counter wrapped, or
// the clock was set.
func Ratio(prev, now Sample) (float64, bool) {
	if now.Base <= prev.Base || now.Value < prev.Value {
		return 0, false
	}
	return float64(now.Value-prev.Value) / float64(now.Base-prev.Base), true
}

// PerSecond is Ratio for a base that counts frequency units a second.
func PerSecond(prev, now Sample, frequency uint64) (float64, bool) {
	r, ok := Ratio(prev, now)
	if !ok || frequency == 0 {
		return 0, false
	}
	return r * float64(frequency), true
}
