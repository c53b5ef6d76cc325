package winrm_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"testing"
	"time"

	promconfig "github.com/prometheus/common/config"

	"github.com/protip/protip/internal/platform/winrm"
	"github.com/protip/protip/internal/sim/hyperv"
)

const marker = "Marker-Pass&1"

func cluster(t testing.TB, change ...func(*hyperv.Options)) *hyperv.Cluster {
	t.Helper()
	opt := hyperv.Options{Users: []hyperv.User{{Name: "watcher", Password: marker}, {Name: "old", Password: marker, Expired: true}}}
	for range 2 {
		node := hyperv.Node{}
		for range 20 {
			node.VMs = append(node.VMs, hyperv.VM{MemoryBytes: 4 << 30})
		}
		opt.Nodes = append(opt.Nodes, node)
	}
	for _, f := range change {
		f(&opt)
	}
	c, err := hyperv.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func connect(t testing.TB, c *hyperv.Cluster, change ...func(*winrm.Options)) *winrm.Client {
	t.Helper()
	o := winrm.Options{
		URL: c.URL("hv-01"), Username: "watcher", Password: func() (string, error) { return marker, nil },
		OperationTimeout: 20 * time.Second,
	}
	o.TLS.CA = string(c.CA())
	for _, f := range change {
		f(&o)
	}
	client, err := winrm.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

var machines = winrm.Query{
	Namespace: "root/virtualization/v2",
	WQL:       "SELECT Name, ElementName, EnabledState, OnTimeInMilliseconds FROM Msvm_ComputerSystem WHERE Caption = 'Virtual Machine'",
}

type machine struct {
	Name  string  `cim:"Name"`
	Title string  `cim:"ElementName"`
	State uint16  `cim:"EnabledState"`
	Up    *uint64 `cim:"OnTimeInMilliseconds"`
}

func TestLogins(t *testing.T) {
	c := cluster(t)
	cert, err := c.ClientCertificate("watcher")
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	block := func(typ string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}))
	}
	secure := func(o *winrm.Options) { o.URL = c.TLSURL("hv-01") }
	for _, l := range []struct {
		name    string
		options func(*winrm.Options)
	}{
		{"sealed ntlm", func(*winrm.Options) {}},
		{"sealed ntlm as user@domain", func(o *winrm.Options) { o.Username = "watcher@example.org" }},
		{"ntlm over https", secure},
		{"basic over https", func(o *winrm.Options) { secure(o); o.Auth = winrm.Basic }},
		{"certificate", func(o *winrm.Options) {
			secure(o)
			o.Auth, o.Username, o.Password = winrm.Certificate, "", nil
			o.TLS.Cert, o.TLS.Key = block("CERTIFICATE", cert.Certificate[0]), promconfig.Secret(block("PRIVATE KEY", key))
		}},
	} {
		found := 0
		shape, err := winrm.NewShape[machine]()
		if err != nil {
			t.Fatal(err)
		}
		err = connect(t, c, l.options).Enumerate(t.Context(), machines, func(i winrm.Instance) error {
			var m machine
			missing, err := shape.Decode(i, &m)
			if err != nil || missing != nil || m.Title == "" || m.State != 2 {
				t.Errorf("%s: %+v lacks %q: %v", l.name, m, missing, err)
			}
			found++
			return nil
		})
		if err != nil || found != 20 {
			t.Errorf("%s: %d machines, %v", l.name, found, err)
		}
	}
	if credentials, bodies := c.Exposed(); credentials != 0 || bodies != 0 {
		t.Errorf("%d credentials and %d bodies went readable", credentials, bodies)
	}
	if _, err := connect(t, c, func(o *winrm.Options) { o.Username = "old" }).All(t.Context(), machines); !errors.Is(err, winrm.ErrCredentials) {
		t.Errorf("an expired password: %v", err)
	}
}

func TestPagesOfASmallEnvelope(t *testing.T) {
	c := cluster(t)
	client := connect(t, c, func(o *winrm.Options) { o.MaxEnvelope = 8 << 10 })
	all, err := client.All(t.Context(), machines)
	if err != nil || len(all) != 20 {
		t.Errorf("%d machines, %v", len(all), err)
	}
	if n := client.Traffic().Requests; n < 2 {
		t.Errorf("%d requests: the envelope was large enough, and nothing was tried", n)
	}
}

func TestFaults(t *testing.T) {
	for _, f := range []struct {
		name  string
		fault hyperv.Fault
		is    error // nil: it succeeds all the same
	}{
		{"quota", hyperv.Fault{Code: hyperv.QuotaShells}, winrm.ErrQuota},
		{"timed out", hyperv.Fault{Code: hyperv.OperationTimedOut}, winrm.ErrTimedOut},
		{"invalid class", hyperv.Fault{HRESULT: 0x80041010}, winrm.ErrInvalidQuery},
		{"denied", hyperv.Fault{HRESULT: 0x80041003}, winrm.ErrAccessDenied},
		{"too large for many", hyperv.Fault{TooLarge: 10}, nil},
		{"503", hyperv.Fault{Status: 503}, winrm.ErrUnavailable},
		{"401 once on a kept connection", hyperv.Fault{Status: 401, Times: 1}, nil},
		{"connection lost once", hyperv.Fault{LoseAnswer: true, Times: 1}, nil},
		{"connection always lost", hyperv.Fault{LoseAnswer: true}, errAny},
		{"truncated", hyperv.Fault{Truncate: 900}, errAny},
		{"garbage", hyperv.Fault{Garbage: []byte("<<<\xff\x00")}, errAny},
		{"hangs", hyperv.Fault{Hang: true}, context.DeadlineExceeded},
	} {
		c := cluster(t)
		client := connect(t, c)
		if _, err := client.All(t.Context(), machines); err != nil {
			t.Fatal(err)
		}
		f.fault.Node, f.fault.Class = "hv-01", "Msvm_ComputerSystem"
		lift := c.Inject(f.fault)
		timeout := 20 * time.Second
		if f.fault.Hang {
			timeout = 200 * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		all, err := client.All(ctx, machines)
		cancel()
		switch {
		case f.is == nil && (err != nil || len(all) != 20):
			t.Errorf("%s: %d machines, %v", f.name, len(all), err)
		case f.is == errAny && err == nil, f.is != nil && f.is != errAny && !errors.Is(err, f.is):
			t.Errorf("%s: %v, want %v", f.name, err, f.is)
		}
		lift()
		if all, err := client.All(t.Context(), machines); err != nil || len(all) != 20 {
			t.Errorf("after %s: %d machines, %v", f.name, len(all), err)
		}
	}
}

var errAny = errors.New("any error")

// TestWhatThisWindowsLacks asks for a class and a property that are not there.
func TestWhatThisWindowsLacks(t *testing.T) {
	c := cluster(t)
	client := connect(t, c)
	for name, q := range map[string]winrm.Query{
		"a class":     {Namespace: "root/cimv2", WQL: "SELECT * FROM Win32_NoSuchClass"},
		"a property":  {Namespace: "root/cimv2", WQL: "SELECT NoSuchProperty FROM Win32_OperatingSystem"},
		"a namespace": {Namespace: "root/nowhere", WQL: "SELECT * FROM Win32_OperatingSystem"},
		"grammar":     {Namespace: "root/cimv2", WQL: "SELECT FROM WHERE"},
	} {
		if _, err := client.All(t.Context(), q); !errors.Is(err, winrm.ErrInvalidQuery) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := client.Get(t.Context(), winrm.Ref{Namespace: "root/cimv2", Class: "Win32_Service", Selectors: map[string]string{"Name": "nobody"}})
	if !errors.Is(err, winrm.ErrNotFound) {
		t.Errorf("an instance that is not there: %v", err)
	}
}

func TestGetAndInvoke(t *testing.T) {
	c := cluster(t)
	client := connect(t, c)
	groups, err := client.All(t.Context(), winrm.Query{Namespace: "root/mscluster", WQL: "SELECT Name, OwnerNode, State FROM MSCluster_ResourceGroup WHERE GroupType = 111"})
	if err != nil || len(groups) != 40 {
		t.Fatalf("%d groups, %v", len(groups), err)
	}
	ref := winrm.Ref{Namespace: "root/mscluster", Class: "MSCluster_ResourceGroup", Selectors: map[string]string{"Name": groups[0].Text("Name")}}
	if got, err := client.Get(t.Context(), ref); err != nil || got.Text("OwnerNode") != groups[0].Text("OwnerNode") {
		t.Errorf("get: %+v, %v", got, err)
	}
	service := winrm.Ref{Namespace: "root/virtualization/v2", Class: "Msvm_VirtualSystemManagementService", Selectors: map[string]string{"CreationClassName": "Msvm_VirtualSystemManagementService"}}
	told, err := client.Ask(t.Context(), service, "GetSummaryInformation", winrm.Params{{Name: "RequestedInformation", Value: []uint32{0, 1, 4, 100}}})
	if err != nil {
		t.Fatal(err)
	}
	list, _ := told.Get("SummaryInformation")
	if code, err := told.ReturnValue(); code != 0 || err != nil || len(list.List()) != 20 {
		t.Errorf("summary: %d, %v, %d machines", code, err, len(list.List()))
	}
	if _, err := client.Ask(t.Context(), ref, "MoveToNewNode", nil); err == nil || c.Requests("", "MoveToNewNode") != 0 {
		t.Errorf("asked to move: %v", err)
	}
	if _, err := winrm.Invoke(t.Context(), client, ref, "NoSuchMethod", nil); err == nil || errors.Is(err, winrm.ErrNotSent) {
		t.Errorf("a method that is not there: %v", err)
	}
}
