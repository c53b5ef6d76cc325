//go:build linux

package kvm

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// load is what a host uses of its one core. Both hosts of a lab would read the whole machine's figures else, and the machine's
// would never calm down when a guest goes from one to the other.
type load struct {
	began time.Time
	now   time.Time
	busy  time.Duration
	seen  map[int]time.Duration // process -> what it had used when looked at last
}

func newLoad(now time.Time) *load { return &load{began: now, now: now, seen: map[int]time.Duration{}} }

// add counts what the host's processes have used, given what each has in its whole life.
func (l *load) add(now time.Time, used map[int]time.Duration) {
	for pid, d := range used {
		if grown := d - l.seen[pid]; grown > 0 {
			l.busy += grown
		}
	}
	l.seen, l.now = used, now
	l.busy = min(l.busy, now.Sub(l.began)) // one core: a guest that has just come is pinned a little late
}

// stat is the load as /proc/stat shows it, in hundredths of a second, always of the same length.
func (l *load) stat() []byte {
	const tick = 10 * time.Millisecond
	busy, idle := l.busy/tick, (l.now.Sub(l.began)-l.busy)/tick
	var b bytes.Buffer
	for _, cpu := range []string{"cpu ", "cpu0"} {
		fmt.Fprintf(&b, "%s %012d 0 0 %012d 0 0 0 0 0 0\n", cpu, busy, idle)
	}
	fmt.Fprintf(&b, "intr 0\nctxt 0\nbtime %d\nprocesses 1\nprocs_running 1\nprocs_blocked 0\n", l.began.Unix())
	return b.Bytes()
}

// files are what is mounted over the machine's own: the host's load, and that it has one core.
func (l *load) files() map[string][]byte {
	return map[string][]byte{"stat": l.stat(), "zero": []byte("0\n")}
}

// cpuTime is what a process has used in its whole life.
func cpuTime(pid int) (time.Duration, bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false
	}
	_, after, ok := strings.Cut(string(text), ") ") // a name may hold anything
	fields := strings.Fields(after)
	if !ok || len(fields) < 13 {
		return 0, false
	}
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, false
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, true
}
