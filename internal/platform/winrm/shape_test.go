package winrm

import (
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

type service struct {
	Name    string        `cim:"Name"`
	Note    *string       `cim:"Description"`
	Path    *string       `cim:"PathName"`
	Process uint32        `cim:"ProcessId"`
	Started bool          `cim:"Started"`
	Since   *time.Time    `cim:"InstallDate"`
	Wait    time.Duration `cim:"WaitHint"`
	IPs     []string      `cim:"address"` // CIM's names have no case
	Gone    *uint64       `cim:"NotThere"`
	Absent  uint64        `cim:"NorThis"`
	Config  Instance      `cim:"Config"`
	Other   int           // has no tag
}

func instances(t *testing.T, name string) []Instance {
	t.Helper()
	var all []Instance
	if _, err := decodePage(answerFile(t, name), func(i Instance) error {
		all = append(all, i)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestDecodeTellsNullFromMissing(t *testing.T) {
	s, err := NewShape[service]()
	if err != nil {
		t.Fatal(err)
	}
	got := service{Absent: 7, Note: new(string)}
	missing, err := s.Decode(instances(t, "values.xml")[0], &got)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"NotThere", "NorThis", "Config"}; !reflect.DeepEqual(missing, want) {
		t.Errorf("missing %q, want %q", missing, want)
	}
	empty, since := "", time.Date(2021, 10, 31, 1, 30, 15, 250e6, time.UTC)
	if got.Since == nil || !got.Since.Equal(since) {
		t.Errorf("since %v, want %v", got.Since, since)
	}
	got.Since = nil
	want := service{
		Name: "Größe & <Maß> ☺", Path: &empty, Process: 4711, Started: true, Wait: 100 * time.Second,
		IPs: []string{"192.0.2.7", "2001:db8::7", "192.0.2.8"}, Absent: 7,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if names := strings.Join(s.Properties(), ","); !strings.HasPrefix(names, "Name,Description,PathName") {
		t.Errorf("properties are %s", names)
	}
}

func TestDecodeReferencesAndObjects(t *testing.T) {
	var link struct {
		Group Ref    `cim:"GroupComponent"`
		Part  *Ref   `cim:"PartComponent"`
		Rank  uint16 `cim:"Rank"`
	}
	if missing, err := Decode(instances(t, "associations.xml")[0], &link); err != nil || missing != nil {
		t.Fatal(missing, err)
	}
	if link.Group.Class != "Msvm_ComputerSystem" || link.Group.Namespace != "root/virtualization/v2" ||
		link.Group.Selectors["Name"] != "AAAAAAAA-0000-4000-8000-000000000001" || link.Part.Class != "Msvm_Processor" || link.Rank != 3 {
		t.Errorf("got %+v", link)
	}
	var s service
	if _, err := Decode(instances(t, "values.xml")[1], &s); err != nil || s.Config.Class != "Acme_Config" || s.Config.Text("Address") != "here" {
		t.Errorf("got %+v, %v", s.Config, err)
	}
}

func TestDecodeCostsTheOneValueThatIsWrong(t *testing.T) {
	var got struct {
		A uint8   `cim:"A"`
		B int64   `cim:"B"`
		C float64 `cim:"C"`
		D bool    `cim:"D"`
		E string  `cim:"E"`
		F Ref     `cim:"F"`
		G []uint8 `cim:"G"`
		H *int    `cim:"H"`
	}
	scalar := func(s string) Value { return Value{Kind: Scalar, Text: s} }
	array := func(s ...string) Value {
		v := Value{Kind: Array}
		for _, x := range s {
			v.Items = append(v.Items, scalar(x))
		}
		return v
	}
	_, err := Decode(Instance{Class: "X", Properties: []Property{
		{"A", scalar("256")},
		{"B", scalar("-3")},
		{"C", scalar("NaN")},
		{"D", scalar("maybe")},
		{"E", array("a", "b")},
		{"F", scalar("x")},
		{"G", array("1", "-1")},
		{"H", scalar("12 monkeys")},
	}}, &got)
	for _, name := range []string{"X.A", "X.C", "X.D", "X.E", "X.F", "X.G", "X.H"} {
		if err == nil || !strings.Contains(err.Error(), name+":") {
			t.Errorf("no error names %s: %v", name, err)
		}
	}
	if got.B != -3 || got.A != 0 || got.C != 0 || got.G != nil || got.H != nil {
		t.Errorf("got %+v", got)
	}
}

func TestShapeRefusesFieldsThatHoldNothing(t *testing.T) {
	if _, err := NewShape[struct {
		A chan int `cim:"A"`
	}](); err == nil {
		t.Error("a channel holds a property")
	}
	if _, err := NewShape[struct {
		a int `cim:"A"` //nolint:unused // it is what is refused
	}](); err == nil {
		t.Error("a field that is not exported holds a property")
	}
}

func TestTimes(t *testing.T) {
	noon := time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)
	for s, want := range map[string]time.Time{
		"2024-02-29T12:00:00Z":            noon,
		"2024-02-29T14:00:00+02:00":       noon,
		"2024-02-29T12:00:00":             noon,
		"20240229140000.000000+120":       noon,
		"20240229070000.000000-300":       noon,
		" 2024-02-29T12:00:00.000000000Z": noon,
	} {
		if got, err := ParseTime(s); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "yesterday", "2023-02-29T12:00:00Z", "20240229140000.000000", "00000001020304.500000:000", "20240229140000.000000+x"} {
		if got, err := ParseTime(s); err == nil {
			t.Errorf("%q is %v", s, got)
		}
	}
}

func TestIntervals(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"P0DT0H1M40S":               100 * time.Second,
		"P1DT2H3M4.5S":              26*time.Hour + 3*time.Minute + 4500*time.Millisecond,
		"P0Y0M2DT0H":                48 * time.Hour,
		"PT0.25S":                   250 * time.Millisecond,
		"00000001020304.500000:000": 26*time.Hour + 3*time.Minute + 4500*time.Millisecond,
	} {
		if got, err := ParseInterval(s); err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "P", "PT", "P1Y", "P1M", "1D", "P1DT1", "P1S", "PT1H1H", "PT-1S", "PTNaNS", "PT1e9S", "P999999999D", "20240229140000.000000+120"} {
		if got, err := ParseInterval(s); err == nil {
			t.Errorf("%q is %v", s, got)
		}
	}
}

func TestRates(t *testing.T) {
	const second = TicksPerSecond
	for _, c := range []struct {
		name      string
		prev, now Sample
		want      float64
		ok        bool
	}{
		{"half of the time", Sample{0, 0}, Sample{5 * second, 10 * second}, 0.5, true},
		{"nothing", Sample{7, 0}, Sample{7, second}, 0, true},
		{"three processors' worth", Sample{1, 1}, Sample{1 + 3*second, 1 + second}, 3, true},
		{"large numbers keep their difference", Sample{math.MaxUint64 - 10, math.MaxUint64 - 20}, Sample{math.MaxUint64 - 5, math.MaxUint64 - 10}, 0.5, true},
		{"no time", Sample{1, 5}, Sample{2, 5}, 0, false},
		{"time went back", Sample{1, 5}, Sample{2, 4}, 0, false},
		{"the counter was reset", Sample{9, 5}, Sample{2, 6}, 0, false},
		{"a 32-bit counter wrapped", Sample{math.MaxUint32, 5}, Sample{3, 6}, 0, false},
	} {
		if got, ok := Ratio(c.prev, c.now); got != c.want || ok != c.ok {
			t.Errorf("%s: %v, %v, want %v, %v", c.name, got, ok, c.want, c.ok)
		}
	}
	if got, ok := PerSecond(Sample{100, 0}, Sample{300, 20 * second}, second); got != 10 || !ok {
		t.Errorf("per second: %v, %v", got, ok)
	}
	if _, ok := PerSecond(Sample{100, 0}, Sample{300, 20 * second}, 0); ok {
		t.Error("a frequency of 0 gives a rate")
	}
}

func TestObjects(t *testing.T) {
	o := &Object{Class: "Msvm_VirtualSystemMigrationSettingData", Members: []Member{
		{Name: "MigrationType", Type: "uint16", Values: []string{"32768"}},
		{Name: "DestinationIPAddressList", Type: "string", Array: true, Values: []string{"192.0.2.1", `a<b>&"c"`}},
		{Name: "Nothing", Type: "string"},
	}}
	text, err := o.XML()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "object.golden", text+"\n")
	back, err := ParseObject(text)
	if err != nil {
		t.Fatal(err)
	}
	if list, _ := back.Get("DestinationIPAddressList"); len(list.List()) != 2 || list.Items[1].Text != `a<b>&"c"` || back.Text("MigrationType") != "32768" {
		t.Errorf("read back: %+v", back)
	}
	if v, ok := back.Get("Nothing"); !ok || v.Kind != Null {
		t.Errorf("a member without a value is %+v, %v", v, ok)
	}
	for _, wrong := range []*Object{nil, {}, {Class: "a b"}, {Class: "A", Members: []Member{{Name: `x"`, Type: "string"}}}, {Class: "A", Members: []Member{{Name: "X", Type: "string", Values: []string{"1", "2"}}}}} {
		if text, err := wrong.XML(); err == nil {
			t.Errorf("written: %s", text)
		}
	}
}
