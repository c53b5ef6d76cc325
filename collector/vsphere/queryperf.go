package vsphere

import (
	"bytes"
	"context"
	"errors"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"

	platform "github.com/protip/protip/internal/platform/vsphere"
)

// realtime is the interval of the samples that hosts keep for an hour, in seconds.
const realtime = 20

// maxSamples is how many samples of one entity are asked for or believed: what a host keeps.
const maxSamples = 180

// ask is what is asked of one VM or host: its newest samples, count of them.
type ask struct {
	ref   string // MoRef value
	count int
}

// series are one object's answered samples.
type series struct {
	ref   string
	times []time.Time // the vCenter's, each the end of an interval; in whatever order they came
	// values of the n-th counter that was asked for are len(times) from n*len(times) on; one that is missing is NaN.
	values []float64
}

// answer is what one call was answered. Its storage is used again: nothing of it may be kept after release.
type answer struct {
	of     *counted
	series []series
	times  []time.Time
	values []float64
}

var answers = sync.Pool{New: func() any { return new(answer) }}

func (a *answer) release() {
	a.series, a.times, a.values = a.series[:0], a.times[:0], a.values[:0]
	answers.Put(a)
}

// queryPerf asks for counters of objects of one kind in one call. The caller releases the answer.
func queryPerf(ctx context.Context, c *platform.Conn, of *counted, asks []ask) (*answer, error) {
	request := newPerfRequest(c.ServiceContent.PerfManager.Value, of, asks)
	a := answers.Get().(*answer)
	a.of = of
	err := c.Call(ctx, "QueryPerf", request.size(), request.append, func(s *platform.Scanner) error { return a.read(s, asks) })
	if err != nil {
		a.release()
		return nil, err
	}
	return a, nil
}

// perfRequest asks for each counter of the object as a whole (instance ""), as CSV.
type perfRequest struct {
	manager, kind string
	asks          []ask
	rest          []byte // of what is asked of each object: the same for all
}

func newPerfRequest(manager string, of *counted, asks []ask) *perfRequest {
	b := make([]byte, 0, 128+64*len(of.ids))
	b = append(b, "</maxSample>"...)
	for _, id := range of.ids {
		b = append(b, "<metricId><counterId>"...)
		b = strconv.AppendInt(b, int64(id), 10)
		b = append(b, "</counterId><instance/></metricId>"...)
	}
	b = append(b, "<intervalId>"...)
	b = strconv.AppendInt(b, realtime, 10)
	b = append(b, "</intervalId><format>csv</format></querySpec>"...)
	return &perfRequest{manager, of.kind, asks, b}
}

func (r *perfRequest) size() int { return 128 + len(r.asks)*(len(r.rest)+96) }

func (r *perfRequest) append(b []byte) []byte {
	b = append(b, `<QueryPerf xmlns="urn:vim25"><_this type="PerformanceManager">`...)
	b = platform.AppendText(b, r.manager)
	b = append(b, "</_this>"...)
	for _, a := range r.asks {
		b = append(b, `<querySpec><entity type="`...)
		b = append(b, r.kind...)
		b = append(b, `">`...)
		b = platform.AppendText(b, a.ref)
		b = append(b, "</entity><maxSample>"...)
		b = strconv.AppendInt(b, int64(min(a.count, maxSamples)), 10)
		b = append(b, r.rest...)
	}
	return append(b, "</QueryPerf>"...)
}

// read reads a QueryPerfResponse. What is not of an object that was asked for, or not in CSV, is passed
// over.
func (a *answer) read(s *platform.Scanner, asks []ask) error {
	r := perfReader{Scanner: s, answer: a, counters: a.of.ids, asks: asks, seen: make([]bool, len(a.of.ids))}
	a.series = slices.Grow(a.series, len(asks))
	for s.Child() { // returnval
		if string(s.Type()) != "PerfEntityMetricCSV" {
			s.Skip()
			continue
		}
		if err := r.entity(); err != nil {
			return err
		}
	}
	return s.Err()
}

// perfReader reads the answer to asks for counters.
type perfReader struct {
	*platform.Scanner
	*answer
	counters []int32
	asks     []ask

	next  int            // in asks, mostly of the next entity
	byRef map[string]int // of asks, made for an answer in another order
	info  []byte         // sampleInfoCSV of the last entity: mostly they are all the same
	at    []time.Time    // of it
	guess int            // in counters: they mostly come in the order that was asked
	seen  []bool         // which of the counters the entity has
}

var errOrder = errors.New("answer has the times of samples twice, or behind their values")

// entity reads the samples of one object.
func (r *perfReader) entity() error {
	found, first, timed := -1, len(r.values), false
	clear(r.seen)
	r.guess = 0
	for r.usual(r.values[first:]); r.Child(); r.usual(r.values[first:]) {
		switch string(r.Name()) {
		case "entity":
			if string(r.Attr("type")) == r.of.kind {
				found = r.find(r.Text())
			} else {
				r.Skip()
			}
		case "sampleInfoCSV":
			if timed {
				return errOrder
			}
			timed = true
			r.setTimes(r.Text())
		case "value":
			if !timed {
				timed = true
				r.setTimes(nil)
			}
			if err := r.counter(r.values[first:]); err != nil {
				return err
			}
		default:
			r.Skip()
		}
	}
	if !timed {
		r.setTimes(nil)
	}
	if found < 0 {
		r.values = r.values[:first]
		return r.Err()
	}
	if len(r.series) == len(r.asks) {
		return errors.New("answer has more objects than were asked for")
	}
	r.series = append(r.series, series{ref: r.asks[found].ref, times: r.at, values: r.values[first:len(r.values):len(r.values)]})
	return r.Err()
}

// find is the place of an object in asks, -1 if it was not asked for.
func (r *perfReader) find(ref []byte) int {
	if next := r.next; next < len(r.asks) && r.asks[next].ref == string(ref) {
		r.next++
		return next
	}
	if r.byRef == nil {
		r.byRef = make(map[string]int, len(r.asks))
		for i := range r.asks {
			r.byRef[r.asks[i].ref] = i
		}
	}
	i, ok := r.byRef[string(ref)]
	if !ok {
		return -1
	}
	r.next = i + 1
	return i
}

// setTimes reads the entity's times and makes room for its values, all of which are missing so far.
func (r *perfReader) setTimes(csv []byte) {
	if len(csv) == 0 {
		r.at = nil
	} else if !bytes.Equal(csv, r.info) {
		from := len(r.times)
		r.times = appendTimes(r.times, csv)
		r.at = r.times[from:len(r.times):len(r.times)]
	}
	r.info = append(r.info[:0], csv...)
	n := len(r.at) * len(r.counters)
	if cap(r.values)-len(r.values) < n { // mostly all have as many
		r.values = slices.Grow(r.values, n*max(len(r.asks)-len(r.series), 1))
	}
	for range n {
		r.values = append(r.values, math.NaN())
	}
}

// counter reads the values of one counter into its entity's. One that was not asked for, is of a part of its object, or has not one
// value for each time is left out.
func (r *perfReader) counter(values []float64) error {
	n, named, read := -1, false, false
	for r.Child() {
		switch string(r.Name()) {
		case "id":
			if named || read {
				return errors.New("answer has a counter's id twice, or behind its values")
			}
			named = true
			var err error
			if n, err = r.counterID(); err != nil {
				return err
			}
		case "value":
			text := r.Text()
			if !named || read {
				return errors.New("answer has values of no counter, or of one twice")
			}
			read = true
			if n < 0 {
				continue
			}
			if r.seen[n] {
				return errors.New("answer has a counter twice")
			}
			r.seen[n] = true
			readValues(values[n*len(r.at):(n+1)*len(r.at)], text)
		default:
			r.Skip()
		}
	}
	return r.Err()
}

// usual reads counters that stand next in the form that vCenters write, as many as are in the buffer: nine elements in ten are
// theirs. What has another form is left to counter.
func (r *perfReader) usual(values []float64) {
	if len(values) == 0 {
		return
	}
	for {
		b := r.Ahead()
		rest, ok := bytes.CutPrefix(b, []byte("<value><id><counterId>"))
		if !ok {
			return
		}
		id, n := int64(0), 0
		for n < len(rest) && n < 9 && rest[n] >= '0' && rest[n] <= '9' {
			id = id*10 + int64(rest[n]-'0')
			n++
		}
		if n == 0 {
			return
		}
		if rest, ok = bytes.CutPrefix(rest[n:], []byte("</counterId><instance></instance></id><value>")); !ok {
			return
		}
		if n = bytes.IndexByte(rest, '<'); n < 0 {
			return
		}
		text := rest[:n]
		if rest, ok = bytes.CutPrefix(rest[n:], []byte("</value></value>")); !ok || bytes.IndexByte(text, '&') >= 0 {
			return
		}
		if n = r.place(int32(id)); n >= 0 {
			if r.seen[n] {
				return
			}
			r.seen[n] = true
			readValues(values[n*len(r.at):(n+1)*len(r.at)], text)
		}
		r.Pass(len(b) - len(rest))
	}
}

// counterID reads a PerfMetricId: the counter's place in counters, -1 if it was not asked for or is of a part of its object.
func (r *perfReader) counterID() (int, error) {
	n, named, whole := -1, false, true
	for r.Child() {
		switch string(r.Name()) {
		case "counterId":
			id, ok := parseValue(r.Text())
			if !ok || id > math.MaxInt32 || named {
				return -1, errors.New("answer has a counter whose id cannot be read")
			}
			n, named = r.place(int32(id)), true
		case "instance":
			whole = whole && len(r.Text()) == 0
		default:
			r.Skip()
		}
	}
	if !named && r.Err() == nil {
		return -1, errors.New("answer has a counter without an id")
	}
	if !whole {
		n = -1
	}
	return n, r.Err()
}

func (r *perfReader) place(id int32) int {
	n := r.guess
	if n >= len(r.counters) || r.counters[n] != id {
		if n = slices.Index(r.counters, id); n < 0 {
			return -1
		}
	}
	r.guess = n + 1
	return n
}

// appendTimes reads "20,2026-03-01T10:00:20Z,20,2026-03-01T10:00:40Z": interval and time of each sample. It appends none if one
// is not of the interval that was asked for or cannot be read: values could then not be told apart.
func appendTimes(to []time.Time, csv []byte) []time.Time {
	from := len(to)
	for rest := csv; len(rest) > 0; {
		var interval, at []byte
		interval, rest, _ = bytes.Cut(rest, []byte(","))
		at, rest, _ = bytes.Cut(rest, []byte(","))
		t, err := time.Parse(time.RFC3339, string(at))
		if err != nil || string(interval) != "20" || len(to)-from == maxSamples {
			return to[:from]
		}
		to = append(to, t)
	}
	return to
}

// readValues reads "12,,-1,7" into values, which are missing (NaN) so far, if it has as many. An empty value, and a negative one
// (the vCenter's -1), is one it does not have.
func readValues(values []float64, csv []byte) {
	fields := 1
	for _, c := range csv {
		if c == ',' {
			fields++
		}
	}
	if len(csv) == 0 || fields != len(values) {
		return
	}
	for i := range values {
		end := 0
		for end < len(csv) && csv[end] != ',' {
			end++
		}
		if n, ok := parseValue(csv[:end]); ok {
			values[i] = n
		}
		csv = csv[min(end+1, len(csv)):]
	}
}

// parseValue reads a whole number that is not negative.
func parseValue(b []byte) (float64, bool) {
	n := int64(0)
	for _, c := range b {
		if c < '0' || c > '9' || n > math.MaxInt64/10-1 {
			return parseOddValue(b)
		}
		n = n*10 + int64(c-'0')
	}
	return float64(n), len(b) > 0
}

// parseOddValue reads one that is not digits alone.
func parseOddValue(b []byte) (float64, bool) {
	n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64)
	return float64(n), err == nil && n >= 0
}
