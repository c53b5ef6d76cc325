package tsdb

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/protip/protip/internal/inventory"
)

// TestFullDisk lets a disk of a few megabytes run full under a process of its own, that has a file system of its own.
func TestFullDisk(t *testing.T) {
	for _, guard := range []string{"guarded", "unguarded"} {
		t.Run(guard, func(t *testing.T) {
			cmd := child(t, "full", guard+":"+t.TempDir())
			cmd.SysProcAttr = &syscall.SysProcAttr{
				Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
				UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
				GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
			}
			out, err := cmd.Output()
			switch text := string(out); {
			case err != nil && strings.Contains(err.Error(), "operation not permitted"), strings.Contains(text, "no file system"):
				t.Skipf("a file system of one's own cannot be had here: %v %s", err, text)
			case err != nil || !strings.HasSuffix(text, "ok\n"):
				t.Fatalf("%v\n%s", err, text)
			default:
				t.Log(text)
			}
		})
	}
}

// fillDisk is TestFullDisk's process. It panics if anything is not as it should be.
func fillDisk(where string) {
	guard, dir, _ := strings.Cut(where, ":")
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=20m"); err != nil {
		fmt.Println("no file system:", err)
		return
	}
	must := func(ok bool, text string, args ...any) {
		if !ok {
			panic(fmt.Sprintf(text, args...))
		}
	}
	var said bytes.Buffer
	o := options(filepath.Join(dir, "history"))
	o.Log = slog.New(slog.NewTextHandler(&said, nil))
	if guard == "guarded" {
		o.reserve = func(uint64) uint64 { return 1 << 20 }
	}
	r := newRig(panics{}, o)
	fleet := inventory.Delta{}
	for i := range 300 {
		fleet.VMs = append(fleet.VMs, vm(fmt.Sprint("many", i), "h1"))
	}
	r.apply(fleet)
	cycle := func() error {
		r.after(20 * time.Second)
		var d inventory.Delta
		for i := range 300 {
			d.Samples = append(d.Samples, inventory.SampleSet{
				ID: id(inventory.KindVM, fmt.Sprint("many", i)), At: r.now.UnixMilli(),
				Values: []inventory.Value{{Metric: inventory.VMCPUUsage, Value: 1 / float64(r.now.Unix()*int64(i+1))}},
			})
		}
		r.apply(d)
		err := r.Append(r.fleet.Snapshot(), r.now)
		if r.now.Unix()%60 == 0 {
			r.Maintain(context.Background(), r.now)
		}
		return err
	}
	good := 0
	for ; cycle() == nil; good++ {
		must(good < 2000, "the disk does not run full")
		if good == 50 { // the last megabytes go by themselves
			have, err := free(dir)
			must(err == nil, "free: %v", err)
			fill(filepath.Join(dir, "ballast"), int(have)-(2<<20))
		}
	}
	full := r.now
	for range 30 { // goes on as if nothing were
		must(cycle() != nil, "a cycle was written to a full disk")
	}
	must(testutil.ToFloat64(r.metrics.writable) == 0, "the metric says writable")
	must(testutil.ToFloat64(r.metrics.failures) == 31, "%v failures", testutil.ToFloat64(r.metrics.failures))
	must(strings.Count(said.String(), "history is not written") == 1, "the log says:\n%s", &said)
	must(os.Remove(filepath.Join(dir, "ballast")) == nil, "ballast")
	for i := 0; cycle() != nil; i++ {
		must(i < 20, "history is not written again: %s", &said)
	}
	must(strings.Contains(said.String(), "history is written again"), "the log says:\n%s", &said)
	must(testutil.ToFloat64(r.metrics.writable) == 1, "the metric says not writable")
	for range 30 {
		must(cycle() == nil, "history fails again:\n%s", &said)
	}
	count := func(at time.Time) int {
		v, err := r.Query(context.Background(), `count_over_time(virt_vm_cpu_usage_hertz{vm_id="many7"}[1d])`, at)
		must(err == nil && len(v) == 1, "query: %v %v, %d cycles were good\n%s", v, err, good, &said)
		return int(v[0].Value)
	}
	before, all := count(full), count(r.now)
	must(before == good || before == good+1, "%d of %d cycles of before", before, good) // the last may be told wrongly, not lost
	must(all-before >= 31, "%d cycles of after", all-before)
	must(r.Close() == nil, "close")
	r.Store = open(panics{}, o)
	must(count(r.now) == all, "%d cycles after a restart, %d before", count(r.now), all)
	fmt.Printf("%d cycles until it was full, %d afterwards\nok\n", before, all-before)
}

// fill writes a file of a length.
func fill(file string, n int) {
	if err := os.WriteFile(file, make([]byte, max(n, 0)), 0o600); err != nil {
		panic(err)
	}
}
