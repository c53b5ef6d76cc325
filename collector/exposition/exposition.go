// Package exposition shows the fleet and protip's own metrics to Prometheus, rendered on change and copied on scrape.
// It promises contiguous families, no timestamps, no sample that grew too old, and never a scrape lost to an object's name.
// It must not import anything of protip but the inventory.
package exposition

import (
	"bytes"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/protip/protip/internal/inventory"
)

// formats are what is offered. Prometheus asks for OpenMetrics 1.0 first; 0.0.1 is what a client gets that names no version.
var formats = []expfmt.Format{expfmt.FmtOpenMetrics_1_0_0, expfmt.FmtOpenMetrics_0_0_1, expfmt.FmtText}

// Exposition is the handler of /metrics. It keeps every object's lines and renders again only those that changed since the
// last scrape; see DESIGN.md. It may serve several scrapes at once.
type Exposition struct {
	snapshot func() *inventory.Snapshot
	registry prometheus.Gatherer
	log      *slog.Logger

	mu      sync.Mutex
	fleet   *fleet
	readers int // scrapes that still write bytes of fleet
}

var _ http.Handler = (*Exposition)(nil)

// New serves the registry's metrics and then the fleet's. snapshot is called once for each scrape, by one scrape at a time;
// it should expire old samples first (inventory.Fleet.Expire).
func New(snapshot func() *inventory.Snapshot, registry prometheus.Gatherer, log *slog.Logger) *Exposition {
	return &Exposition{snapshot: snapshot, registry: registry, log: log, fleet: newFleet(log)}
}

// ServeHTTP answers a scrape in the format and encoding it accepts.
func (e *Exposition) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	format := expfmt.NegotiateAccept(r.Header, formats...)
	zip := acceptsGzip(r.Header)
	body, done := e.body(format, zip)
	defer done()

	h := w.Header()
	h.Set("Content-Type", string(format))
	h.Set("Vary", "Accept, Accept-Encoding")
	if zip {
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Content-Length", strconv.Itoa(length(body)))
	if r.Method == http.MethodHead {
		return
	}
	for _, part := range body {
		if _, err := w.Write(part); err != nil {
			return // the scraper hung up
		}
	}
}

// body is the answer in parts, which must not be used after done.
func (e *Exposition) body(format expfmt.Format, zip bool) (parts [][]byte, done func()) {
	openMetrics := format.FormatType() == expfmt.TypeOpenMetrics
	head := &block{raw: e.own(format)}
	tail := &block{}
	if openMetrics {
		tail.raw = []byte("# EOF\n")
	}

	e.mu.Lock()
	defer e.mu.Unlock()
	e.fleet.update(e.snapshot(), e.readers == 0)
	blocks := append([]*block{head}, e.fleet.blocks(openMetrics)...)
	blocks = append(blocks, tail)
	if zip {
		parts = e.fleet.zip.member(blocks)
	} else {
		for _, b := range blocks {
			parts = append(parts, b.raw)
		}
	}
	e.readers++
	return parts, func() {
		e.mu.Lock()
		e.readers--
		e.mu.Unlock()
	}
}

// own renders the registry. What cannot be gathered costs only itself.
func (e *Exposition) own(format expfmt.Format) []byte {
	families, err := e.registry.Gather()
	if err != nil {
		e.log.Error("some of protip's own metrics could not be gathered", "err", err)
	}
	var buf bytes.Buffer
	enc := expfmt.NewEncoder(&buf, format) // never closed: the fleet follows before the end
	for _, family := range families {
		if err := enc.Encode(family); err != nil {
			e.log.Error("metric could not be encoded", "name", family.GetName(), "err", err)
		}
	}
	return buf.Bytes()
}

// acceptsGzip reads Accept-Encoding (RFC 9110, 12.5.3) as far as one encoding is concerned.
func acceptsGzip(h http.Header) bool {
	for part := range strings.SplitSeq(strings.Join(h.Values("Accept-Encoding"), ","), ",") {
		name, params, _ := strings.Cut(part, ";")
		if !strings.EqualFold(strings.TrimSpace(name), "gzip") {
			continue
		}
		q, isWeight := strings.CutPrefix(strings.ReplaceAll(params, " ", ""), "q=")
		if weight, err := strconv.ParseFloat(q, 64); isWeight && err == nil && weight == 0 {
			return false
		}
		return true
	}
	return false
}

func length(parts [][]byte) int {
	n := 0
	for _, part := range parts {
		n += len(part)
	}
	return n
}
