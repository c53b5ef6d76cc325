package config

import (
	"reflect"
	"strings"
	"testing"
)

const windowsGuests = `sources:
  - {name: lab, type: vsphere, url: "https://vc", username: u, password_file: password}
  - name: guests
    type: guest
    username: CORP\reader
    password_file: password
    windows:
      - {host: sql-01.example.com, vm: lab/sql-01}
      - {host: "http://10.0.0.5:5985", name: web}
    probes: [{name: pg, tcp: "db1:5432"}]
    services:
      - {type: windows, names: [W3SVC, 'MSSQL\$.*']}
      - {type: performance, class: Win32_PerfRawData_PerfDisk_LogicalDisk, property: AvgDisksecPerTransfer, name: disk, names: ['C:'], latency: mean}
`

func TestWindowsGuests(t *testing.T) {
	dir := folder(t)
	cfg, err := parse(dir, windowsGuests)
	if err != nil {
		t.Fatal(err)
	}
	src := cfg.Sources[1]
	if a, b := src.Windows[0].DisplayName(), src.Windows[1].DisplayName(); a != "sql-01.example.com:5986" || b != "web" {
		t.Errorf("hosts are called %s and %s", a, b)
	}
	again, err := parse(dir, cfg.String())
	if err != nil {
		t.Fatalf("what is printed is refused: %v", err)
	}
	again.at, cfg.at = nil, nil
	if !reflect.DeepEqual(again, cfg) {
		t.Errorf("what is printed means something else:\n%s\n%s", cfg, again)
	}
}

func TestWindowsGuestsThatAreWrong(t *testing.T) {
	dir := folder(t)
	for _, tc := range []struct{ was, is, want string }{
		{"host: sql-01.example.com", `host: "https://a:b@sql"`, "sources[1].windows[0].host holds a user or a password"},
		{"vm: lab/sql-01", "vm: sql-01", "sources[1].windows[0].vm is not source/VM"},
		{`"http://10.0.0.5:5985", name: web`, "sql-01.example.com", "sources[1].windows[1] has the name"},
		{"    windows:", "    auth: kerberos\n    realm: CORP\n    windows:", "sources[1].auth is kerberos and a host is spoken to over plain http"},
		{"    password_file: password\n    windows", "    windows", "sources[1].password_file"},
		{"    probes:", "    targets: [{url: \"http://a:9100\"}]\n    probes:", "sources[1].windows is beside targets, which would be sent its password"},
		{"    probes:", "    bearer_token_file: password\n    probes:", "sources[1].bearer_token_file says nothing to Windows hosts"},
		{"type: windows, names", "type: systemd, names", "systemd"},
		{"class: Win32_PerfRawData_PerfDisk_LogicalDisk", "class: Win32_Process", "services[1].class is no performance class"},
		{"property: AvgDisksecPerTransfer", `property: "Name FROM Win32_Process"`, "services[1].property is no property's name"},
		{"latency: mean", "latency: quantile", "quantile"},
		{"latency: mean", "latency: mean, metric: up", "services[1].metric says nothing of type performance"},
		{"PerfRawData_PerfDisk", "PerfFormattedData_PerfDisk", "services[1].latency is mean, and the class's numbers are finished ones"},
		{", name: disk", "", "services[1].name is missing"},
	} {
		text := strings.Replace(windowsGuests, tc.was, tc.is, 1)
		if text == windowsGuests {
			t.Fatalf("%q is not in it", tc.was)
		}
		if _, err := parse(dir, text); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.is, err, tc.want)
		}
	}
	alone := strings.NewReplacer("    windows:\n", "    targets: [{url: \"https://a:9100\"}]\n    auth: ntlm\n", "      - {host: sql-01.example.com, vm: lab/sql-01}\n", "",
		"      - {host: \"http://10.0.0.5:5985\", name: web}\n", "").Replace(windowsGuests)
	if _, err := parse(dir, alone); err == nil || !strings.Contains(err.Error(), "sources[1].auth says nothing without windows") {
		t.Errorf("without windows: %v", err)
	}
}
