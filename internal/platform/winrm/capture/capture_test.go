package capture_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/protip/protip/internal/platform/winrm"
	"github.com/protip/protip/internal/platform/winrm/capture"
	"github.com/protip/protip/internal/sim/hyperv"
)

// telling are the names of the simulated cluster that must be in nothing that is written.
var telling = []string{"zarathustra", "payroll", "acmecorp", "dithmarschen", "10.77.", "fd77:"}

func host(t *testing.T) (*hyperv.Cluster, winrm.Options) {
	t.Helper()
	c, err := hyperv.New(hyperv.Options{
		Name: "zarathustra-cluster", Domain: "acmecorp.example", Locale: "de-DE",
		Users: []hyperv.User{{Name: "dithmarschen", Password: "Marker"}},
		Nodes: []hyperv.Node{{Name: "zarathustra-01", VMs: []hyperv.VM{
			{Name: "Payroll DB 1", MemoryBytes: 4 << 30, Dynamic: true, Guest: hyperv.Guest{
				Hostname: "payroll-db", OS: "Windows Server 2022 Datacenter", IPs: []string{"10.77.3.4", "fd77::5"},
			}},
			{Name: "Payroll Web", MemoryBytes: 4 << 30},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, winrm.Options{URL: c.URL("zarathustra-01"), Username: "dithmarschen", Password: func() (string, error) { return "Marker", nil }}
}

// shape tells what an instance looks like, without what it says.
func shape(b *strings.Builder, i winrm.Instance) {
	fmt.Fprintf(b, "%s{", i.Class)
	for _, p := range i.Properties {
		fmt.Fprintf(b, "%s:", p.Name)
		values(b, p.Value)
	}
	b.WriteString("}\n")
}

func values(b *strings.Builder, v winrm.Value) {
	fmt.Fprintf(b, "%d ", v.Kind)
	switch v.Kind {
	case winrm.Scalar:
		if strings.HasPrefix(v.Text, "<INSTANCE") {
			inner, err := winrm.ParseObject(v.Text)
			if err != nil {
				fmt.Fprint(b, err)
			}
			shape(b, inner)
			return
		}
		if _, err := v.Uint(); err == nil && len(v.Text) < 12 {
			b.WriteString(v.Text) // numbers are kept
		}
	case winrm.Datetime, winrm.Interval:
		b.WriteString(v.Text)
	case winrm.Reference:
		fmt.Fprint(b, v.Ref.Namespace, v.Ref.Class, len(v.Ref.Selectors))
	case winrm.Embedded:
		shape(b, *v.Object)
	case winrm.Array:
		for _, item := range v.Items {
			values(b, item)
		}
	}
}

var steady = []capture.Class{ // whose answers do not change from one question to the next
	{Namespace: "root/virtualization/v2", Name: "Msvm_VirtualSystemSettingData"},
	{Namespace: "root/virtualization/v2", Name: "Msvm_KvpExchangeComponent"},
	{Namespace: "root/mscluster", Name: "MSCluster_ResourceGroup"},
	{Namespace: "root/mscluster", Name: "MSCluster_Resource"},
	{Namespace: "root/cimv2", Name: "Win32_NoSuchClass"},
}

func shapes(t *testing.T, opts winrm.Options) string {
	t.Helper()
	client, err := winrm.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var b strings.Builder
	for _, class := range steady {
		err := client.Enumerate(t.Context(), winrm.Query{Namespace: class.Namespace, WQL: "SELECT * FROM " + class.Name}, func(i winrm.Instance) error {
			shape(&b, i)
			return nil
		})
		fmt.Fprintln(&b, class.Name, err == nil, errors.Is(err, winrm.ErrInvalidQuery))
	}
	return b.String()
}

func TestCaptureReplays(t *testing.T) {
	_, opts := host(t)
	dir := filepath.Join(t.TempDir(), "capture")
	manifest, err := capture.Record(t.Context(), opts, append(steady, capture.Classes()...), dir, func(capture.Entry) {})
	if err != nil {
		t.Fatal(err)
	}
	answered := 0
	for _, e := range manifest.Entries {
		if e.Error == "" && e.Instances > 0 {
			answered++
		}
	}
	if answered < 15 {
		t.Errorf("only %d classes answered: %+v", answered, manifest)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) <= len(manifest.Entries) {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range telling {
			if at := strings.Index(strings.ToLower(string(b)), name); at >= 0 {
				t.Errorf("%s tells %q: ...%s", filepath.Base(file), name, b[max(0, at-80):min(len(b), at+80)])
			}
		}
	}

	replay, _, err := capture.NewReplay(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(replay)
	defer server.Close()
	again := winrm.Options{URL: server.URL, Auth: winrm.Basic, AllowPlainBasic: true, Username: "any", Password: func() (string, error) { return "x", nil }}
	if got, want := shapes(t, again), shapes(t, opts); got != want {
		t.Errorf("replayed:\n%s\nthe host:\n%s", got, want)
	}
	joins(t, again)
}

// joins holds that a counter's VM is still found by its name.
func joins(t *testing.T, opts winrm.Options) {
	t.Helper()
	client, err := winrm.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	machines, err := client.All(t.Context(), winrm.Query{Namespace: "root/virtualization/v2", Class: "Msvm_ComputerSystem"})
	if err != nil {
		t.Fatal(err)
	}
	counters, err := client.All(t.Context(), winrm.Query{Namespace: "root/cimv2", Class: "Win32_PerfRawData_BalancerStats_HyperVDynamicMemoryVM"})
	if err != nil || len(counters) == 0 {
		t.Fatal(len(counters), err)
	}
	for _, c := range counters {
		found := false
		for _, m := range machines {
			found = found || m.Text("ElementName") == c.Text("Name")
		}
		if !found {
			t.Errorf("no machine is called %q", c.Text("Name"))
		}
	}
}

func TestCaptureWritesNothingItShouldNot(t *testing.T) {
	c, opts := host(t)
	dir := filepath.Join(t.TempDir(), "capture")
	record := func(ctx context.Context, opts winrm.Options) error {
		_, err := capture.Record(ctx, opts, steady, dir, func(capture.Entry) {})
		return err
	}
	wrong := opts
	wrong.Password = func() (string, error) { return "no", nil }
	if err := record(t.Context(), wrong); !errors.Is(err, winrm.ErrCredentials) {
		t.Errorf("a wrong password: %v", err)
	}
	lift := c.Inject(hyperv.Fault{Garbage: []byte("<zarathustra> & </payroll>")})
	if err := record(t.Context(), opts); err != nil {
		t.Errorf("garbage: %v", err)
	}
	lift()
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(files) != 1 {
		t.Errorf("garbage was written: %v", files)
	}
	if err := record(t.Context(), opts); !errors.Is(err, os.ErrExist) {
		t.Errorf("over what was there: %v", err)
	}
}
