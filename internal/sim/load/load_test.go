package load

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 3, 3, 12, 0, 0, 0, time.UTC)

func TestGeneratorIsAFunction(t *testing.T) {
	a, b := Generator{Seed: 1}, Generator{Seed: 1}
	other := 0
	for vm := range 200 {
		u := a.At(vm, noon)
		if u != b.At(vm, noon) {
			t.Fatalf("VM %d differs from itself", vm)
		}
		for name, ratio := range map[string]float64{"cpu": u.CPU, "active": u.MemoryActive, "consumed": u.MemoryConsumed} {
			if !(ratio >= 0 && ratio <= 1) {
				t.Errorf("VM %d: %s is %v", vm, name, ratio)
			}
		}
		if u.MemoryActive > u.MemoryConsumed || u.NetReceived < 0 || u.DiskLatency <= 0 {
			t.Errorf("VM %d: %+v", vm, u)
		}
		if u != (Generator{Seed: 2}).At(vm, noon) {
			other++
		}
	}
	if other < 190 {
		t.Errorf("only %d of 200 VMs differ with another seed", other)
	}
}

// mean is the demand of 500 VMs around a time.
func mean(l Load, t time.Time) float64 {
	sum := 0.0
	for vm := range 500 {
		sum += l.At(vm, t).CPU
	}
	return sum / 500
}

func TestGeneratorShapes(t *testing.T) {
	g := Generator{Seed: 3}
	if day, night := mean(g, noon), mean(g, noon.Add(-12*time.Hour)); day < 1.5*night {
		t.Errorf("demand is %.3f by day and %.3f by night", day, night)
	}
	grown := Generator{Seed: 3, Growth: 0.5, Since: noon}
	if now, then := mean(grown, noon), mean(grown, noon.AddDate(0, 0, 364)); math.Abs(then/now-1.5) > 0.15 {
		t.Errorf("a growth of 50 %% a year led from %.3f to %.3f", now, then)
	}
	if half, whole := mean(Generator{Seed: 3, Level: 0.5}, noon), mean(g, noon); math.Abs(half/whole-0.5) > 0.05 {
		t.Errorf("half the level is %.3f of %.3f", half, whole)
	}
	bursts := 0
	for vm := range 500 {
		low, high := 1.0, 0.0
		for m := range 24 * 6 {
			cpu := g.At(vm, noon.Add(time.Duration(m)*10*time.Minute)).CPU
			low, high = min(low, cpu), max(high, cpu)
		}
		if high > 0.5 {
			bursts++
		}
	}
	if bursts < 50 {
		t.Errorf("only %d of 500 VMs have a burst in a day", bursts)
	}
}

func TestPickAndHoldIdle(t *testing.T) {
	l := Func(func(vm int, _ time.Time) Use { return Use{CPU: float64(vm) / 10} })
	picked := Pick(l, []int{7, 3})
	for vm, want := range map[int]float64{0: 0.7, 1: 0.3, 2: 0, -1: 0} {
		if got := picked.At(vm, noon).CPU; got != want {
			t.Errorf("VM %d demands %v, want %v", vm, got, want)
		}
	}
	held := HoldIdle(picked, map[int]time.Time{0: noon})
	if got := held.At(0, noon.Add(-time.Second)).CPU; got > 0.02 {
		t.Errorf("held, it demands %v", got)
	}
	if got := held.At(0, noon).CPU; got != 0.7 {
		t.Errorf("let go, it demands %v", got)
	}
	if got := held.At(1, noon.Add(-time.Second)).CPU; got != 0.3 {
		t.Errorf("another demands %v", got)
	}
}

func packed(t testing.TB, s string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestTrace(t *testing.T) {
	const text = "a,\"b,\nc\",d\n0,100,12.5\n10,20,30\n"
	for name, content := range map[string][]byte{"plain": []byte(text), "packed": packed(t, text)} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "t.csv.gz")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			tr, err := ReadTrace(path)
			if err != nil {
				t.Fatal(err)
			}
			if tr.VMs() != 3 || tr.Rows() != 2 || tr.Name(1) != "b,\nc" {
				t.Errorf("%d VMs, %d rows, %q", tr.VMs(), tr.Rows(), tr.Name(1))
			}
			tr.Start = noon
			for _, tt := range []struct {
				vm   int
				at   time.Duration
				want float64
			}{
				{1, 0, 1},
				{2, 0, 0.125},
				{0, TraceStep - 1, 0},
				{0, TraceStep, 0.1},
				{1, TraceStep, 0.2},
				{1, 2 * TraceStep, 1},
				{0, -1, 0.1},
				{1, -TraceStep - 1, 1},
				{3, 0, 0},
				{-1, 0, 0},
			} {
				if got := tr.At(tt.vm, noon.Add(tt.at)).CPU; math.Abs(got-tt.want) > 1e-6 {
					t.Errorf("VM %d at %s demands %v, want %v", tt.vm, tt.at, got, tt.want)
				}
			}
			for _, at := range []time.Duration{-3 * TraceStep, 0, TraceStep, 7 * TraceStep} {
				if got := tr.Window(1, 1).At(0, noon.Add(at)).CPU; math.Abs(got-0.1) > 1e-6 {
					t.Errorf("a window of row 1 demands %v at %s", got, at)
				}
			}
		})
	}
}

func TestBadTraces(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "t.csv:1: no header"},
		{"header alone", "a,b\n", "t.csv:2: no row"},
		{"no name", "a,,c\n1,2,3\n", "t.csv:1: VM 2 has no name"},
		{"name twice", "a,b,a\n1,2,3\n", `t.csv:1: VM name "a" stands at columns 1 and 3`},
		{"word", "a,b\n1,2\n3,x\n", `t.csv:3: VM "b": want a CPU percentage from 0 to 100, got "x"`},
		{"too much", "a,b\n1,101\n", `t.csv:2: VM "b": want a CPU`},
		{"negative", "a\n-1\n", `t.csv:2: VM "a"`},
		{"not a number", "a\nNaN\n", `t.csv:2: VM "a"`},
		{"infinite", "a\n+Inf\n", `t.csv:2: VM "a"`},
		{"empty value", "a,b\n1,\n", `t.csv:2: VM "b"`},
		{"short row", "a,b\n1,2\n1\n", "t.csv:3: wrong number of fields"},
		{"long row", "a,b\n1,2,3\n", "t.csv:2: wrong number of fields"},
		{"open quote", "a,b\n\"1,2\n", "t.csv:"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseTrace("t.csv", strings.NewReader(tt.text))
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("error %v, want %s...", err, tt.want)
			}
		})
	}
	t.Run("broken gzip", func(t *testing.T) {
		whole := packed(t, "a\n1\n")
		for _, b := range [][]byte{whole[:5], whole[:len(whole)-4], append(whole[:12:12], 0xff, 0xff, 0xff)} {
			if _, err := ParseTrace("t.csv", bytes.NewReader(b)); err == nil || !strings.HasPrefix(err.Error(), "t.csv:") {
				t.Errorf("error %v", err)
			}
		}
	})
	t.Run("no file", func(t *testing.T) {
		if _, err := ReadTrace(filepath.Join(t.TempDir(), "none.csv.gz")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("error %v", err)
		}
	})
}

func TestHugeTraceIsRefused(t *testing.T) {
	bomb := packed(t, "a\n"+strings.Repeat("1\n", 1<<20))
	if len(bomb) > 1<<14 {
		t.Fatalf("%d bytes are not small", len(bomb))
	}
	if _, err := parse("bomb.csv.gz", bytes.NewReader(bomb), 1<<20); err == nil || !strings.Contains(err.Error(), "larger than 1048576 bytes") {
		t.Errorf("error %v", err)
	}
	line := strings.Repeat("a", 1<<21) // one name that never ends
	if _, err := parse("line.csv.gz", bytes.NewReader(packed(t, line)), 1<<20); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("error %v", err)
	}
}

func FuzzParseTrace(f *testing.F) {
	f.Add([]byte("a,b\n1,2\n"))
	f.Add([]byte("a\n\"1\n\"\n"))
	f.Add(packed(f, "a,b\n1,2\n3,4\n"))
	f.Add([]byte{0x1f, 0x8b, 8, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		tr, err := ParseTrace("f", bytes.NewReader(b))
		if err != nil {
			if !strings.HasPrefix(err.Error(), "f:") {
				t.Errorf("error %q", err)
			}
			return
		}
		if tr.VMs() == 0 || tr.Rows() == 0 {
			t.Fatalf("%d VMs, %d rows", tr.VMs(), tr.Rows())
		}
		for vm := range tr.VMs() {
			for row := range tr.Rows() {
				if v := tr.Row(vm, row); !(v >= 0 && v <= 1) {
					t.Fatalf("VM %d row %d is %v", vm, row, v)
				}
			}
		}
	})
}
