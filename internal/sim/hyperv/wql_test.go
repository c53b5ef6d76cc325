package hyperv

import (
	"slices"
	"testing"
)

func TestWQL(t *testing.T) {
	values := map[string]any{
		"Name": `C:\Path\x`, "State": uint32(2), "Big": uint64(1 << 60), "On": true, "Ticks": 12.75, "Owner": "HV-01", "Nothing": nil,
	}
	props := func(name string) any { return values[name] }
	for _, tt := range []struct {
		where string
		want  bool
	}{
		{`State = 2`, true},
		{`State = '2'`, true},
		{`State <> 2`, false},
		{`State != 3`, true},
		{`State >= 2 AND State <= 2`, true},
		{`State > -1`, true},
		{`Owner = 'hv-01'`, true},
		{`Owner = "hv-02" OR State = 2`, true},
		{`NOT Owner = 'hv-01'`, false},
		{`NOT (Owner = 'hv-02' OR State = 3) AND On = TRUE`, true},
		{`On = 'true'`, true},
		{`On = 1`, true},
		{`Owner LIKE 'hv-%'`, true},
		{`Owner LIKE 'hv_0_'`, true},
		{`Owner LIKE '%0'`, false},
		{`Name = 'C:\\Path\\x'`, true},
		{`Nothing IS NULL`, true},
		{`Nothing IS NOT NULL`, false},
		{`State IS NOT NULL`, true},
		{`Nothing = NULL`, true},
		{`Nothing = 2`, false},
		{`Nothing <> 2`, true},
		{`Ticks > 12 and Ticks < 13`, true},
		{`Big > 1000000000000`, true},
		{`Owner > 5`, false},
		{`State = 'x'`, false},
	} {
		q, err := parseWQL("select * from C where " + tt.where)
		if err != nil {
			t.Errorf("%s: %v", tt.where, err)
			continue
		}
		if got := q.where.holds(props); got != tt.want {
			t.Errorf("%s is %v", tt.where, got)
		}
	}
	q, err := parseWQL("SELECT Name,State , Owner\r\nFROM Win32_Service")
	if err != nil || q.class != "Win32_Service" || !slices.Equal(q.columns, []string{"Name", "State", "Owner"}) || q.where != nil {
		t.Errorf("%+v, %v", q, err)
	}
	for _, bad := range []string{
		"", "select", "select * from", "select Name Win32_Service", "select * from C where", "select * from C where x", "select * from C where x = ", "select * from C x",
		"select * from C where (x = 1", "select * from C where x = 'y", "select * from C where x like 3", "select * from C where x is 3", "ASSOCIATORS OF {x}", "select 'x' from C",
		"select * from C where x = 1 2", "select * from C where x = 1.2.3", "update C set x = 1",
	} {
		if q, err := parseWQL(bad); err == nil {
			t.Errorf("%q is %+v", bad, q)
		}
	}
}

func TestLikeTakesNoLongerThanItMust(t *testing.T) {
	long := make([]byte, 10_000)
	for i := range long {
		long[i] = 'a'
	}
	pattern := ""
	for range 2000 {
		pattern += "%a"
	}
	if like(string(long), pattern+"b") {
		t.Error("it matches")
	}
}

func FuzzWQL(f *testing.F) {
	for _, s := range []string{
		"select * from C", `SELECT a, b FROM C WHERE a = 'x\'' AND NOT (b LIKE "%_" OR c IS NOT NULL)`, "select * from C where a <= -1.5", "((((", `'\`, "select * from C where not not not x = true",
	} {
		f.Add(s)
	}
	f.Fuzz(func(_ *testing.T, s string) {
		q, err := parseWQL(s)
		if err != nil {
			return
		}
		if q.where != nil {
			q.where.properties(func(string) {})
			for _, v := range []any{nil, "x", true, uint32(1), 1.5} {
				q.where.holds(func(string) any { return v })
			}
		}
	})
}
