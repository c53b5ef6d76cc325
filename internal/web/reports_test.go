package web

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
)

func TestReports(t *testing.T) {
	h := New(options(hotAgent(t)))
	type answer struct {
		Report string
		Tables map[string][]map[string]any
	}
	for target, rows := range map[string]int{
		"host-utilization?since=1d":                                          2,
		"host-utilization?since=1d&host=esx1.example":                        1,
		"host-utilization?since=1d&cluster=nowhere":                          0,
		"growth?since=2d&threshold=0.5&threshold=0.9&reserve=0&more_hosts=1": 6,
		"vm-allocation?since=1d":                                             0,
		"vm-utilization?since=1d":                                            0,
	} {
		got, _ := ask[answer](t, h, "/api/v1/reports/"+target)
		n := 0
		for _, table := range got.Tables {
			n = max(n, len(table))
		}
		if name, _, _ := strings.Cut(target, "?"); got.Report != name || n != rows {
			t.Errorf("%s: %d rows, want %d: %v", target, n, rows, got)
		}
	}
	for target, want := range map[string]struct {
		code int
		text string
	}{
		"weather":                          {404, "want one of"},
		"growth?since=1h":                  {400, "between them are 1h, want from 3h to"},
		"growth?since=9y":                  {400, "between them are 9y"},
		"growth?since=1d&until=2d":         {400, "between them are 0s"},
		"growth?threshold=high":            {400, "such as 0.8"},
		"growth?threshold=NaN":             {400, "such as 0.8"},
		"growth?more_hosts=-1":             {400, "more_hosts"},
		"vm-allocation?threshold=0.8":      {400, `unknown parameter`},
		"growth?since=yesterday":           {400, "such as 12h or 30d"},
		"vm-allocation?since=30d&until=-1": {400, "such as 12h or 30d"},
	} {
		w := do(h, "GET", "/api/v1/reports/"+target, "")
		if w.Code != want.code || !strings.Contains(w.Body.String(), want.text) {
			t.Errorf("%s: %d %s, want %d %s", target, w.Code, w.Body, want.code, want.text)
		}
	}
}

// TestOneReportAtATime: who waits too long for another's is told to come again.
func TestOneReportAtATime(t *testing.T) {
	agent := hotAgent(t)
	synctest.Test(t, func(t *testing.T) {
		s := newServer(options(agent))
		if !s.reports.enter(t.Context()) {
			t.Fatal("no place for the first")
		}
		ask := func() *httptest.ResponseRecorder {
			return do(s.read(s.report), "GET", "/?since=1d", "", func(r *http.Request) { r.SetPathValue("name", "growth") })
		}
		if w := ask(); w.Code != 503 || !strings.Contains(w.Body.String(), "another report is being made") {
			t.Errorf("beside another: %d %s", w.Code, w.Body)
		}
		s.reports.leave()
		if w := ask(); w.Code != 200 {
			t.Errorf("after it: %d %s", w.Code, w.Body)
		}
	})
}
