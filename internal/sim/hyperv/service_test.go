package hyperv_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bodgit/ntlmssp"
	ntlmhttp "github.com/bodgit/ntlmssp/http"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/sim/hyperv"
	"github.com/protip/protip/internal/sim/load"
)

const (
	clusterNS = "root/MSCluster"
	cimv2     = "root/cimv2"
	virtual   = "root/virtualization/v2"
)

func twoNodes(n int) []hyperv.Node {
	first := hyperv.Node{}
	for i := range n {
		first.VMs = append(first.VMs, hyperv.VM{Name: fmt.Sprintf("vm-%d", i), MemoryBytes: 2 << 30})
	}
	return []hyperv.Node{first, {}}
}

func TestQueries(t *testing.T) {
	c := newCluster(t, hyperv.Options{Nodes: []hyperv.Node{{VMs: []hyperv.VM{
		{Name: "one", Dynamic: true, Guest: hyperv.Guest{Hostname: "one", OS: "Windows Server 2022 Datacenter", IPs: []string{"10.0.0.7", "fe80::7"}}},
		{Name: "off", Off: true},
	}}, {}}, Load: load.Steady(load.Use{CPU: 0.5, MemoryConsumed: 0.5})})
	p := client(t, c, "hv-01")

	vms := p.ask(virtual, "SELECT * FROM Msvm_ComputerSystem WHERE Name <> 'HV-01'")
	if len(vms) != 2 || vms[0]["ElementName"] != "one" || vms[0]["EnabledState"] != "2" || vms[1]["EnabledState"] != "3" {
		t.Fatalf("%v", vms)
	}
	if stamp := vms[0]["InstallDate"]; !strings.HasSuffix(stamp, "Z") {
		t.Errorf("InstallDate %q", stamp)
	}
	if vms[0]["LastReplicationTime"] != "nil" {
		t.Errorf("LastReplicationTime %q", vms[0]["LastReplicationTime"])
	}
	s := p.ask(virtual, "SELECT Name, OperationalStatus, MemoryUsage, heartbeat, GuestOperatingSystem FROM Msvm_SummaryInformation WHERE EnabledState = 2")
	if len(s) != 1 || s[0]["MemoryUsage"] != "2457" || s[0]["Heartbeat"] != "2" || len(s[0]) != 5 {
		t.Errorf("%v", s)
	}
	nets := p.ask(virtual, "SELECT IPAddresses FROM Msvm_GuestNetworkAdapterConfiguration")
	if nets[0]["IPAddresses"] != "10.0.0.7,fe80::7" || nets[1]["IPAddresses"] != "nil" {
		t.Errorf("%v", nets)
	}
	kvp := p.ask(virtual, "SELECT GuestIntrinsicExchangeItems FROM Msvm_KvpExchangeComponent WHERE SystemName = '"+c.VMs()[0]+"'")
	if items := kvp[0]["GuestIntrinsicExchangeItems"]; strings.Count(items, "<INSTANCE CLASSNAME=") != 7 || !strings.Contains(items, "<VALUE>one.example.org</VALUE>") {
		t.Errorf("%s", items)
	}
	r := p.ask(clusterNS, "SELECT OwnerGroup, PrivateProperties FROM MSCluster_Resource WHERE Type = 'Virtual Machine'")
	if len(r) != 2 || !strings.Contains(r[0]["PrivateProperties"], strings.ToLower(c.VMs()[0])) {
		t.Errorf("%v", r)
	}
	for i, v := range p.ask(clusterNS, "SELECT * FROM MSCluster_ClusterSharedVolume") {
		part := p.ask(clusterNS, "SELECT Path, TotalSize, FreeSpace FROM MSCluster_DiskPartition")[i]
		if part["Path"] != v["VolumeName"] || part["TotalSize"] != strconv.Itoa(10<<20) {
			t.Errorf("%v of %v", part, v)
		}
	}
	status, body := p.invoke(virtual+"/Msvm_VirtualSystemManagementService", "GetSummaryInformation", []string{"Name", "vmms"}, "")
	if status != 200 || strings.Count(body, "<q:NumberOfProcessors>") != 2 || !strings.Contains(body, "<p:ReturnValue>0</p:ReturnValue>") {
		t.Errorf("%d %s", status, body)
	}
}

func TestWhatIsAbsentIsRefused(t *testing.T) {
	c := newCluster(t, hyperv.Options{Nodes: twoNodes(1)})
	p := client(t, c, "hv-01")
	const counters = "Win32_PerfRawData_HvStats_HyperVHypervisorVirtualProcessor"
	for name, tt := range map[string]struct{ ns, wql, want string }{
		"class":     {cimv2, "SELECT * FROM Win32_NoSuchThing", "0x80041010"},
		"namespace": {"root/nowhere", "SELECT * FROM Win32_Service", "0x8004100e"},
		"column":    {cimv2, "SELECT Name, NoSuch FROM Win32_Service", "0x80041017"},
		"newer":     {cimv2, "SELECT GuestAvailableMemory FROM Win32_PerfRawData_BalancerStats_HyperVDynamicMemoryVM", "0x80041017"},
		"condition": {cimv2, "SELECT Name FROM Win32_Service WHERE NoSuch = 1", "0x80041017"},
		"syntax":    {cimv2, "SELECT Name WHERE", "0x80041017"},
	} {
		t.Run(name, func(t *testing.T) {
			if status, body := p.query(tt.ns, tt.wql); status != 500 || !strings.Contains(body, tt.want) {
				t.Errorf("%d %s", status, body)
			}
		})
	}
	c.DropClass(counters)
	if status, body := p.query(cimv2, "SELECT * FROM "+counters); status != 500 || !strings.Contains(body, "0x80041010") {
		t.Errorf("dropped class: %d %s", status, body)
	}
	c.RestoreClass(counters)
	if len(p.ask(cimv2, "SELECT * FROM "+counters)) == 0 {
		t.Error("a class does not come back")
	}
	c.DropProperty("Msvm_SummaryInformation", "Heartbeat")
	if status, _ := p.query(virtual, "SELECT Heartbeat FROM Msvm_SummaryInformation"); status != 500 {
		t.Errorf("dropped property: %d", status)
	}
	if status, body := p.invoke(clusterNS+"/MSCluster_ResourceGroup", "NoSuchMethod", []string{"Name", "vm-0"}, ""); status != 500 || !strings.Contains(body, "0x8004102e") {
		t.Errorf("method: %d %s", status, body)
	}
	if status, body := p.invoke(clusterNS+"/MSCluster_ResourceGroup", "MoveToNewNode", []string{"Name", "vm-0"}, "<p:Node>hv-02</p:Node>"); status != 500 || !strings.Contains(body, "0x80041008") {
		t.Errorf("parameter: %d %s", status, body)
	}
}

func TestStandaloneHasNoCluster(t *testing.T) {
	c := newCluster(t, hyperv.Options{Standalone: true, NoSummaryQuery: true, Nodes: twoNodes(1)})
	p := client(t, c, "hv-01")
	if status, body := p.query(clusterNS, "SELECT * FROM MSCluster_Node"); status != 500 || !strings.Contains(body, "0x8004100e") {
		t.Errorf("%d %s", status, body)
	}
	if status, body := p.query(virtual, "SELECT * FROM Msvm_SummaryInformation"); status != 500 || !strings.Contains(body, `Code="2150859010"`) {
		t.Errorf("%d %s", status, body)
	}
}

func TestEnvelopesAndPages(t *testing.T) {
	for name, end := range map[string]hyperv.EndOfSequence{"by place": hyperv.EndByPlace, "w": hyperv.EndWSManagement, "n": hyperv.EndWSEnumeration} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, hyperv.Options{EndOfSequence: end, Nodes: twoNodes(60)})
			p := client(t, c, "hv-01")
			p.envelope = 20_000
			status, body := p.query(virtual, "SELECT * FROM Msvm_ComputerSystem")
			all, pulls := rows(t, body), 0
			for strings.Contains(body, "<n:EnumerationContext>uuid:") {
				if status != 200 || len(body) > p.envelope {
					t.Fatalf("status %d, %d bytes", status, len(body))
				}
				_, rest, _ := strings.Cut(body, "<n:EnumerationContext>")
				id, _, _ := strings.Cut(rest, "<")
				pull := p.envelopeOf("http://schemas.xmlsoap.org/ws/2004/09/enumeration/Pull", wmiURI+virtual+"/*", "", `<n:Pull><n:EnumerationContext>`+id+`</n:EnumerationContext><n:MaxElements>32000</n:MaxElements></n:Pull>`)
				status, body = p.post(pull)
				if again, text := p.post(pull); again != 500 || !strings.Contains(text, "n:InvalidEnumerationContext") {
					t.Fatalf("a context is good for two Pulls: %d", again)
				}
				all = append(all, rows(t, body)...)
				pulls++
			}
			if len(all) != 61 || pulls < 2 {
				t.Errorf("%d VMs and hosts by %d Pulls", len(all), pulls)
			}
			want := map[hyperv.EndOfSequence]string{hyperv.EndByPlace: "<n:EndOfSequence/>", hyperv.EndWSManagement: "<w:EndOfSequence/>", hyperv.EndWSEnumeration: "<n:EndOfSequence/>"}[end]
			if !strings.Contains(body, want) {
				t.Errorf("no %s", want)
			}
			p.envelope = 8192
			c.Inject(hyperv.Fault{TooLarge: 100, Times: 1})
			if status, body := p.query(virtual, "SELECT Name FROM Msvm_ComputerSystem"); status != 500 || !strings.Contains(body, `Code="2150858790"`) {
				t.Errorf("%d %s", status, body)
			}
		})
	}
}

func TestQuotas(t *testing.T) {
	c := newCluster(t, hyperv.Options{MaxShells: 2, MaxOperations: 3, Nodes: twoNodes(1), Users: []hyperv.User{{Name: "a", Password: "a"}, {Name: "b", Password: "b"}}})
	p, other := client(t, c, "hv-01"), client(t, c, "hv-01")
	p.user, p.password, other.user, other.password = "a", "a", "b", "b"
	create := p.envelopeOf("http://schemas.xmlsoap.org/ws/2004/09/transfer/Create", "http://schemas.microsoft.com/wbem/wsman/1/windows/shell/cmd", "", `<Shell/>`)
	enumerate := p.envelopeOf(enumerateAction, wmiURI+cimv2+"/Win32_Service", "", "<n:Enumerate/>")
	for name, tt := range map[string]struct {
		envelope string
		allowed  int
		code     string
	}{"shells": {create, 2, "2150859173"}, "operations": {enumerate, 3, "2150859174"}} {
		t.Run(name, func(t *testing.T) {
			for range tt.allowed {
				if status, body := p.post(tt.envelope); status != 200 {
					t.Fatalf("%d %s", status, body)
				}
			}
			if status, body := p.post(tt.envelope); status != 500 || !strings.Contains(body, tt.code) || !strings.Contains(body, "w:QuotaLimit") {
				t.Errorf("one more: %d %s", status, body)
			}
			if status, _ := other.post(tt.envelope); status != 200 {
				t.Errorf("another user: %d", status)
			}
		})
	}
}

func TestNodeStopsInMidEnumeration(t *testing.T) {
	c := newCluster(t, hyperv.Options{Nodes: twoNodes(5)})
	p := client(t, c, "hv-01")
	_, body := p.post(p.envelopeOf(enumerateAction, wmiURI+virtual+"/Msvm_ComputerSystem", "", "<n:Enumerate/>"))
	_, rest, _ := strings.Cut(body, "<n:EnumerationContext>")
	id, _, _ := strings.Cut(rest, "<")
	pull := p.envelopeOf("http://schemas.xmlsoap.org/ws/2004/09/enumeration/Pull", wmiURI+virtual+"/*", "", `<n:Pull><n:EnumerationContext>`+id+`</n:EnumerationContext></n:Pull>`)
	if err := c.SetNodeState("hv-01", hyperv.NodeDown); err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.try(pull); err == nil {
		t.Error("a node that is down answers")
	}
	nodes := client(t, c, "hv-02").ask(clusterNS, "SELECT Name, State FROM MSCluster_Node")
	if nodes[0]["State"] != "1" || nodes[1]["State"] != "0" {
		t.Errorf("%v", nodes)
	}
	if err := c.SetNodeState("hv-01", hyperv.NodeUp); err != nil {
		t.Fatal(err)
	}
	if status, _ := p.post(pull); status != 500 {
		t.Errorf("an enumeration outlives its node: %d", status)
	}
	if len(p.ask(clusterNS, "SELECT Name FROM MSCluster_Node")) != 2 {
		t.Error("the node does not come back at its address")
	}
}

func TestFaults(t *testing.T) {
	c := newCluster(t, hyperv.Options{Nodes: twoNodes(1)})
	p := client(t, c, "hv-01")
	const wql = "SELECT Name FROM Win32_Service"
	for name, tt := range map[string]struct {
		fault  hyperv.Fault
		status int
		words  string
	}{
		"quota":     {hyperv.Fault{Code: hyperv.QuotaOperations}, 500, `Code="2150859174"`},
		"timed out": {hyperv.Fault{Code: hyperv.OperationTimedOut}, 500, "w:TimedOut"},
		"provider":  {hyperv.Fault{HRESULT: 0x800706BA, Class: "win32_service"}, 500, "0x800706ba"},
		"proxy":     {hyperv.Fault{Status: 503}, 503, "Service Unavailable"},
		"expired":   {hyperv.Fault{Status: 401}, 401, ""},
		"garbage":   {hyperv.Fault{Garbage: []byte("<<<")}, 200, "<<<"},
		"truncated": {hyperv.Fault{Truncate: 100}, 200, "<s:Envelope"},
		"delayed":   {hyperv.Fault{Delay: time.Millisecond}, 200, "vmms"},
		"elsewhere": {hyperv.Fault{Node: "hv-02", Status: 503}, 200, "vmms"},
		"other":     {hyperv.Fault{Class: "MSCluster_Node", Status: 503}, 200, "vmms"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.fault.Times = 1
			lift := c.Inject(tt.fault)
			defer lift()
			if status, body := p.query(cimv2, wql); status != tt.status || !strings.Contains(body, tt.words) {
				t.Errorf("%d %s", status, body)
			}
			if name == "elsewhere" || name == "other" {
				return
			}
			if status, _ := p.query(cimv2, wql); status != 200 {
				t.Errorf("the next: %d", status)
			}
		})
	}
	t.Run("lost answer", func(t *testing.T) {
		defer c.Inject(hyperv.Fault{Action: "MoveToNewNode", LoseAnswer: true})()
		uri := wmiURI + clusterNS + "/MSCluster_ResourceGroup"
		_, _, err := p.try(p.envelopeOf(uri+"/MoveToNewNode", uri, `<w:SelectorSet><w:Selector Name="Name">vm-0</w:Selector></w:SelectorSet>`, `<p:MoveToNewNode_INPUT xmlns:p="`+uri+`"><p:NodeName>hv-02</p:NodeName></p:MoveToNewNode_INPUT>`))
		if err == nil || len(c.Migrations()) != 1 {
			t.Errorf("error %v, %d migrations", err, len(c.Migrations()))
		}
	})
	t.Run("hung", func(t *testing.T) {
		lift, before := c.Inject(hyperv.Fault{Node: "hv-01", Hang: true}), c.Requests("hv-01", "")
		done := make(chan error)
		go func() {
			_, _, err := p.try(p.envelopeOf(enumerateAction, wmiURI+cimv2+"/Win32_Service", "", "<n:Enumerate/>"))
			done <- err
		}()
		if len(client(t, c, "hv-02").ask(cimv2, wql)) == 0 {
			t.Error("another node hangs too")
		}
		for deadline := time.Now().Add(time.Minute); c.Requests("hv-01", "") == before && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		select {
		case err := <-done:
			t.Errorf("it answered: %v", err)
		default:
		}
		lift()
		if err := <-done; err == nil {
			t.Error("it answered")
		}
	})
}

func TestWhoMayEnter(t *testing.T) {
	c := newCluster(t, hyperv.Options{Nodes: twoNodes(1), Users: []hyperv.User{
		{Name: "act", Password: "a"}, {Name: "watch", Password: "w", ReadOnly: true}, {Name: "old", Password: "o", Expired: true},
	}})
	for name, tt := range map[string]struct {
		user, password string
		reads, moves   bool
	}{
		"acts": {"act", "a", true, true}, "watches": {`EXAMPLE\watch`, "w", true, false}, "by principal": {"watch@example.org", "w", true, false},
		"expired": {"old", "o", false, false}, "wrong": {"act", "w", false, false}, "nobody": {"none", "", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := client(t, c, "hv-01")
			p.user, p.password = tt.user, tt.password
			if status, _ := p.query(cimv2, "SELECT Name FROM Win32_Service"); (status == 200) != tt.reads || status != 200 && status != 401 {
				t.Errorf("reads: %d", status)
			}
			status, body := p.invoke(clusterNS+"/MSCluster_ResourceGroup", "MoveToNewNode", []string{"Name", "vm-0"}, "<p:NodeName>hv-01</p:NodeName>")
			if (status == 200) != tt.moves {
				t.Errorf("moves: %d %s", status, body)
			}
		})
	}
	p := client(t, c, "hv-01")
	p.user, p.password = "act", "a"
	if err := c.ExpirePassword("act"); err != nil {
		t.Fatal(err)
	}
	if status, _ := p.query(cimv2, "SELECT Name FROM Win32_Service"); status != 401 {
		t.Errorf("after it expired: %d", status)
	}
	if err := c.SetPassword("act", "b"); err != nil {
		t.Fatal(err)
	}
	p.password = "b"
	if status, _ := p.query(cimv2, "SELECT Name FROM Win32_Service"); status != 200 {
		t.Errorf("with another: %d", status)
	}
}

func TestCertificateOfAUser(t *testing.T) {
	c := newCluster(t, hyperv.Options{Nodes: twoNodes(1)})
	for user, want := range map[string]int{hyperv.DefaultUser: 200, "nobody": 401} {
		p := client(t, c, "hv-01")
		cert, err := c.ClientCertificate(user)
		if err != nil {
			t.Fatal(err)
		}
		p.http.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{cert}
		rq, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url, strings.NewReader(p.envelopeOf(enumerateAction, wmiURI+cimv2+"/Win32_Service", "", "<n:Enumerate/>")))
		if err != nil {
			t.Fatal(err)
		}
		rq.Header.Set("Authorization", "http://schemas.dmtf.org/wbem/wsman/1/wsman/secprofile/https/mutual")
		resp, err := p.http.Do(rq)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: status %d, want %d", user, resp.StatusCode, want)
		}
	}
}

// TestNTLMHoldsForItsConnection uses a client of NTLM that nobody here wrote.
func TestNTLMHoldsForItsConnection(t *testing.T) {
	c := newCluster(t, hyperv.Options{Nodes: twoNodes(1)})
	p := client(t, c, "hv-01")
	body := p.envelopeOf(enumerateAction, wmiURI+cimv2+"/Win32_Service", "", "<n:Enumerate/>")
	login, err := ntlmssp.NewClient(ntlmssp.SetUserInfo(hyperv.DefaultUser, hyperv.DefaultPassword), ntlmssp.SetDomain("EXAMPLE"), ntlmssp.SetVersion(ntlmssp.DefaultVersion()))
	if err != nil {
		t.Fatal(err)
	}
	speaks, err := ntlmhttp.NewClient(p.http, login)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(body io.Reader) (int, error) {
		rq, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url, body)
		if err != nil {
			return 0, err
		}
		rq.Header.Set("Content-Type", "application/soap+xml;charset=UTF-8")
		resp, err := speaks.Do(rq)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, err
	}
	for _, body := range []io.Reader{nil, strings.NewReader(body), strings.NewReader(body)} { // the first logs in
		if status, err := ask(body); status != 200 || err != nil {
			t.Fatalf("status %d, %v", status, err)
		}
	}
	if c.Logins() != 1 || c.OpenLogins() != 1 || c.Refused() != 0 {
		t.Errorf("%d log-ins, %d open, %d refused", c.Logins(), c.OpenLogins(), c.Refused())
	}
	c.ForgetLogins()
	if status, err := ask(strings.NewReader(body)); status == 200 || c.OpenLogins() != 0 {
		t.Errorf("after it was forgotten: status %d, %v, %d open", status, err, c.OpenLogins())
	}
}

func TestLocalisedHost(t *testing.T) {
	c := newCluster(t, hyperv.Options{Locale: "de-DE", Nodes: []hyperv.Node{{VMs: []hyperv.VM{{LiveFails: hyperv.LogonTypeNotGranted}}}, {}}, Clock: clock.New(1e6)})
	p := client(t, c, "hv-01")
	if s := p.ask(virtual, "SELECT Caption FROM Msvm_ComputerSystem WHERE ElementName = 'vm-001'"); s[0]["Caption"] != "Virtueller Computer" {
		t.Errorf("%v", s)
	}
	if _, body := p.query(cimv2, "SELECT * FROM Win32_NoSuchThing"); !strings.Contains(body, "0x80041010") || strings.Contains(body, "cannot process") {
		t.Errorf("%s", body)
	}
	if err := c.Move(c.VMs()[0], "hv-02", true); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); c.Truth(c.VMs()[0]).Moving; {
		if time.Now().After(deadline) {
			t.Fatal("it does not end")
		}
		time.Sleep(time.Millisecond)
	}
	if m := c.Migrations()[0]; m.Code != hyperv.LogonTypeNotGranted {
		t.Errorf("%+v", m)
	}
}

func TestNamesAndTheirTraps(t *testing.T) {
	c := newCluster(t, hyperv.Options{Nodes: []hyperv.Node{{VMs: []hyperv.VM{{Name: "twin"}, {Name: "twin"}, {Name: "first"}}}}})
	p := client(t, c, "hv-01")
	const processors = "SELECT Name FROM Win32_PerfRawData_HvStats_HyperVHypervisorVirtualProcessor WHERE Name LIKE '%:Hv VP 0'"
	names := map[string]int{}
	for _, r := range p.ask(cimv2, processors) {
		names[r["Name"]]++
	}
	if names["twin:Hv VP 0"] != 2 || names["first:Hv VP 0"] != 1 {
		t.Errorf("%v", names)
	}
	if err := c.Rename(c.VMs()[2], "second"); err != nil {
		t.Fatal(err)
	}
	if g := p.ask(clusterNS, "SELECT Name FROM MSCluster_ResourceGroup WHERE GroupType = 111"); g[0]["Name"] != "twin" || g[1]["Name"] != "twin (2)" || g[2]["Name"] != "first" {
		t.Errorf("%v", g)
	}
	if s := p.ask(virtual, "SELECT ElementName FROM Msvm_SummaryInformation WHERE Name = '"+c.VMs()[2]+"'"); s[0]["ElementName"] != "second" {
		t.Errorf("%v", s)
	}
	if d := p.ask(cimv2, "SELECT Name FROM Win32_PerfRawData_Counters_HyperVVirtualStorageDevice"); d[2]["Name"] != "C:-ClusterStorage-Volume1-first-first.vhdx" {
		t.Errorf("%v", d)
	}
}

func TestGuest(t *testing.T) {
	c := newCluster(t, hyperv.Options{Nodes: []hyperv.Node{{VMs: []hyperv.VM{{Guest: hyperv.Guest{
		Hostname: "sql01", OS: "Windows Server 2022 Standard", Endpoint: true, Services: []hyperv.Service{{Name: "MSSQLSERVER", State: "Running", StartMode: "Auto"}},
	}}}}, {}}})
	vm := c.VMs()[0]
	p := client(t, c, vm)
	if err := c.SetService(vm, "MSSQLSERVER", "Stopped"); err != nil {
		t.Fatal(err)
	}
	if s := p.ask(cimv2, "SELECT Name, State, Started FROM Win32_Service WHERE StartMode = 'Auto'"); len(s) != 1 || s[0]["State"] != "Stopped" || s[0]["Started"] != "false" {
		t.Errorf("%v", s)
	}
	if status, _ := p.query(virtual, "SELECT * FROM Msvm_ComputerSystem"); status != 500 {
		t.Errorf("a guest is a host: %d", status)
	}
	if err := c.TurnOff(vm); err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.try(p.envelopeOf(enumerateAction, wmiURI+cimv2+"/Win32_Service", "", "<n:Enumerate/>")); err == nil {
		t.Error("a VM that is off answers")
	}
}

func TestVirtualServer(t *testing.T) {
	s, err := hyperv.NewVirtualServer(hyperv.VirtualServerOptions{
		VMs:  []hyperv.VM{{Name: "nt4", MemoryBytes: 512 << 20, Guest: hyperv.Guest{Hostname: "nt4"}}, {Name: "mute", MemoryBytes: 1 << 30}, {Name: "off", Off: true}},
		Load: load.Steady(load.Use{CPU: 0.3, DiskRead: 1e6}),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	p := client(t, s.Host(), s.Name())
	vms := p.ask("root/vm/virtualserver", "SELECT * FROM VirtualMachine")
	if len(vms) != 3 || vms[0]["CpuUtilization"] != "30" || vms[0]["HeartbeatPercentage"] != "100" || vms[1]["HeartbeatPercentage"] != "0" || vms[2]["Uptime"] != "0" || vms[0]["PhysicalMemoryAllocated"] != strconv.Itoa(512<<20) {
		t.Errorf("%v", vms)
	}
	if status, _ := p.query(virtual, "SELECT * FROM Msvm_ComputerSystem"); status != 500 {
		t.Errorf("it has Hyper-V: %d", status)
	}
	if services := p.ask(cimv2, "SELECT Name FROM Win32_Service"); len(services) != 1 || services[0]["Name"] != "Virtual Server" {
		t.Errorf("%v", services)
	}
	if os := p.ask(cimv2, "SELECT Version FROM Win32_OperatingSystem"); os[0]["Version"] != "5.2.3790" {
		t.Errorf("%v", os)
	}
	if _, body := p.post(`<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:wsmid="http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd"><s:Header/><s:Body><wsmid:Identify/></s:Body></s:Envelope>`); !strings.Contains(body, "Stack: 1.1") {
		t.Errorf("%s", body)
	}
}

func TestVMsComeAndGo(t *testing.T) {
	c := newCluster(t, hyperv.Options{Nodes: twoNodes(2)})
	id, err := c.CreateVM("hv-02", hyperv.VM{Name: "vm-0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Place(id, "hv-01"); err != nil {
		t.Fatal(err)
	}
	gone := c.VMs()[0]
	if err := c.Move(gone, "hv-02", true); err != nil {
		t.Fatal(err)
	}
	if err := c.DestroyVM(gone); err != nil {
		t.Fatal(err)
	}
	again, err := c.CreateVM("hv-02", hyperv.VM{})
	if err != nil || again == id || again == gone {
		t.Errorf("%s again, %v", again, err)
	}
	c.Stop()
	p := client(t, c, "hv-01")
	if _, _, err := p.try("x"); err == nil {
		t.Error("it answers although it has stopped")
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	here := p.ask(virtual, "SELECT Name FROM Msvm_ComputerSystem WHERE ElementName LIKE 'vm-%'")
	if len(here) != 2 || here[1]["Name"] != id {
		t.Errorf("%v", here)
	}
	if g := p.ask(clusterNS, "SELECT Name FROM MSCluster_ResourceGroup WHERE GroupType = 111"); len(g) != 3 || g[1]["Name"] != "vm-0 (2)" {
		t.Errorf("%v", g)
	}
}

func TestBadOptions(t *testing.T) {
	for name, opt := range map[string]hyperv.Options{
		"OS":     {OS: "windows95"},
		"node":   {Nodes: []hyperv.Node{{Name: "a"}, {Name: "A"}}},
		"GUID":   {Nodes: []hyperv.Node{{VMs: []hyperv.VM{{ID: "x"}, {ID: "X"}}}}},
		"volume": {Nodes: []hyperv.Node{{VMs: []hyperv.VM{{Volume: "none"}}}}},
	} {
		if c, err := hyperv.New(opt); err == nil {
			c.Close()
			t.Errorf("%s: no error", name)
		}
	}
}
