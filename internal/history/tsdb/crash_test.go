package tsdb

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/inventory"
)

// childEnv makes this test program another one: it names what it does, and where.
const childEnv = "PROTIP_HISTORY_TEST"

func TestMain(m *testing.M) {
	what, dir, child := strings.Cut(os.Getenv(childEnv), ":")
	switch {
	case !child:
		os.Exit(m.Run())
	case what == "append":
		appendForever(dir)
	case what == "full":
		fillDisk(dir)
	}
	os.Exit(0)
}

func child(t *testing.T, what, dir string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childEnv+"="+what+":"+dir)
	cmd.Stderr = os.Stderr
	return cmd
}

// panics lets a rig be used outside of a test.
type panics struct{ testing.TB }

func (panics) Helper()                      {}
func (panics) Fatal(args ...any)            { panic(fmt.Sprint(args...)) }
func (panics) Fatalf(f string, args ...any) { panic(fmt.Sprintf(f, args...)) }
func (panics) Error(args ...any)            { panic(fmt.Sprint(args...)) }
func (panics) Errorf(f string, args ...any) { panic(fmt.Sprintf(f, args...)) }
func (panics) Cleanup(func())               {}

// pace is between two cycles of the process that is killed: such that blocks and roll-ups are written too.
const pace = 5 * time.Minute

// appendForever goes on where the last process ended and says each cycle once it is written.
func appendForever(dir string) {
	r := newRig(panics{}, options(dir))
	if end := r.raw.Head().MaxTime(); end > 0 {
		r.now = time.UnixMilli(end)
	}
	many := inventory.Delta{Samples: make([]inventory.SampleSet, 0, 200)}
	for i := range 200 {
		many.VMs = append(many.VMs, vm(fmt.Sprint("many", i), "h1"))
	}
	r.apply(many)
	for i := 1; ; i++ {
		r.after(pace)
		v := float64(r.now.Unix())
		var d inventory.Delta
		for j := range 200 {
			d.Samples = append(d.Samples, inventory.SampleSet{
				ID: id(inventory.KindVM, fmt.Sprint("many", j)), At: r.now.UnixMilli(), Values: []inventory.Value{{Metric: inventory.VMCPUUsage, Value: v}},
			})
		}
		r.apply(d)
		r.cycle()
		fmt.Println(r.now.Unix())
		if i%5 == 0 {
			r.Maintain(context.Background(), r.now)
		}
	}
}

// TestKill kills a process that writes, again and again, and holds that all cycles it spoke of are there.
func TestKill(t *testing.T) {
	times := 3
	if os.Getenv("PROTIP_E2E") != "" {
		times = 20
	}
	dir := t.TempDir()
	var first, said int64
	rng := rand.New(rand.NewPCG(1, 2))
	for range times {
		cmd := child(t, "append", dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		last, lines := said, 1+rng.IntN(60)
		for scan := bufio.NewScanner(out); scan.Scan(); {
			at, err := strconv.ParseInt(scan.Text(), 10, 64)
			if err != nil {
				t.Fatalf("the process said %q", scan.Text())
			}
			if first == 0 {
				first = at
			}
			if last = at; lines == 0 {
				continue
			}
			if lines--; lines == 0 {
				time.Sleep(time.Duration(rng.IntN(3000)) * time.Microsecond) // somewhere within a cycle
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("the process ended by itself: %v", err)
		}
		said = last
		checkAll(t, dir, first, said)
	}
	t.Logf("%d kills, %d cycles", times, (said-first)/int64(pace.Seconds())+1)
}

// checkAll opens what a killed process left and looks at every cycle from first to said.
func checkAll(t *testing.T, dir string, first, said int64) {
	t.Helper()
	s, err := Open(options(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	m, err := s.QueryRange(t.Context(), `virt_vm_cpu_usage_hertz{vm_id=~"many.*"}`, history.Range{Start: time.Unix(first, 0), End: time.Unix(said, 0), Step: pace})
	if err != nil {
		t.Fatal(err)
	}
	if len(m) != 200 {
		t.Fatalf("%d series", len(m))
	}
	want := int((said-first)/int64(pace.Seconds())) + 1
	for _, series := range m {
		for _, p := range series.Points {
			if p.V != float64(p.T/1000) {
				t.Fatalf("%v at %d", p.V, p.T)
			}
		}
		if len(series.Points) != want {
			t.Fatalf("%d cycles of %d", len(series.Points), want)
		}
	}
}
