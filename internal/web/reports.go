package web

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/common/model"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/rules/report"
)

// Reporter makes reports.
type Reporter interface {
	// Report makes a report of the agent's own history, whose Past and Ceiling it fills in. Without a history it is ErrConflict.
	Report(ctx context.Context, name string, r report.Request) (report.Report, error)
}

// A report asks for weeks of the whole fleet: one is made at a time, and not for longer than this.
const (
	reportTime     = 2 * time.Minute
	reportsAtATime = 1
	mostSteps      = 10_000
	maxThresholds  = 8
	defaultPast    = "30d"
)

func (s *server) report(r *http.Request) (any, error) {
	name := r.PathValue("name")
	if !slices.Contains(report.Names(), name) {
		return nil, &apiError{http.StatusNotFound, "not_found", fmt.Sprintf("no report %q: want one of %q", name, report.Names()), nil}
	}
	q, err := query(r, append([]string{"since", "until", "source", "cluster", "host", "tag"}, ofReport[name]...)...)
	if err != nil {
		return nil, err
	}
	st, err := s.agent.Status(r.Context())
	if err != nil {
		return nil, err
	}
	request, err := reportRequest(name, q, st.Now)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), reportTime)
	defer cancel()
	if !s.reports.enter(ctx) {
		return nil, fmt.Errorf("%w: another report is being made", ErrUnavailable)
	}
	defer s.reports.leave()
	made, err := s.agent.Report(ctx, name, request)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("%w: not made within %s: ask for less, or type protip report %s", ErrUnavailable, reportTime, name)
	case err != nil:
		return nil, err
	}
	var body bytes.Buffer
	err = made.JSON(&body)
	return json.RawMessage(body.Bytes()), err
}

// ofReport are the parameters that one report has beside the others'.
var ofReport = map[string][]string{"growth": {"threshold", "reserve", "more_hosts", "more_vms"}}

func reportRequest(name string, q url.Values, now time.Time) (report.Request, error) {
	r := report.Request{
		Scope:      report.Scope{Source: q.Get("source"), Cluster: q.Get("cluster"), Host: q.Get("host"), Tag: q.Get("tag")},
		Thresholds: []float64{0.8, 0.95}, Reserve: 1,
	}
	since, err := parseAgo("since", cmp.Or(q.Get("since"), defaultPast))
	if err != nil {
		return r, err
	}
	until, err := parseAgo("until", cmp.Or(q.Get("until"), "0s"))
	if err != nil {
		return r, err
	}
	rough := history.Range{Start: now.Add(-since), End: now.Add(-until)}
	step := report.StepOf(name, rough)
	if length := since - until; length < 3*step || length > mostSteps*step {
		return r, badData("since and until: between them are %s, want from %s to %s", model.Duration(max(length, 0)), model.Duration(3*step), model.Duration(mostSteps*step))
	}
	end := rough.End.Truncate(step)
	r.Range = history.Range{Start: end.Add(until - since).Truncate(step), End: end, Step: step}
	if thresholds := q["threshold"]; len(thresholds) > 0 {
		r.Thresholds = nil
		for _, text := range thresholds {
			t, err := strconv.ParseFloat(text, 64)
			if err != nil || !(t > 0 && t <= 10) || len(thresholds) > maxThresholds {
				return r, badData("threshold %q: want up to %d utilisations, such as 0.8", text, maxThresholds)
			}
			r.Thresholds = append(r.Thresholds, t)
		}
	}
	for _, count := range []struct {
		name string
		into *int
	}{{"reserve", &r.Reserve}, {"more_hosts", &r.MoreHosts}, {"more_vms", &r.MoreVMs}} {
		if q.Has(count.name) {
			if *count.into, err = parseCount(count.name, q.Get(count.name)); err != nil {
				return r, err
			}
		}
	}
	return r, nil
}
