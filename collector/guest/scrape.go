package guest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"

	dto "github.com/prometheus/client_model/go"
	promconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Bounds of one answer. What is not asked for is read and dropped line by line, so that memory is bounded by maxKept.
const (
	maxBody   = 10 << 20
	maxLine   = 16 << 10
	maxKept   = 2 << 20
	maxSeries = 10_000 // that are kept
	parsing   = 4      // answers at a time: what is parsed is many times larger than its text
)

// Faults of an answer that is too much.
var (
	errBody   = fmt.Errorf("the answer is larger than %d MiB", maxBody>>20)
	errLine   = fmt.Errorf("a line is longer than %d KiB", maxLine>>10)
	errSeries = fmt.Errorf("more than %d series, or %d MiB of them, belong to what is asked for", maxSeries, maxKept>>20)
)

// scraper reads targets. It is used by many goroutines.
type scraper struct {
	client   *http.Client
	mappings []mapping
	wanted   map[string]bool // names of series
	parse    chan struct{}
}

// newScraper follows no redirect: credentials go to the address that the configuration names, and nowhere else.
func newScraper(cfg promconfig.HTTPClientConfig, mappings []mapping, machines bool) (*scraper, error) {
	cfg.FollowRedirects = false
	client, err := promconfig.NewClientFromConfig(cfg, "guest", promconfig.WithUserAgent("protip"), promconfig.WithHTTP2Disabled())
	if err != nil {
		return nil, err
	}
	s := &scraper{client: client, mappings: mappings, wanted: map[string]bool{}, parse: make(chan struct{}, parsing)}
	for _, name := range evidenceFamilies {
		s.wanted[name] = true
	}
	if machines {
		for _, name := range machineSeries {
			s.wanted[name] = true
		}
	}
	for i := range mappings {
		for _, name := range mappings[i].series() {
			s.wanted[name] = true
		}
	}
	return s, nil
}

// scrape asks a target once.
func (s *scraper) scrape(ctx context.Context, target string, past *past) answer {
	return s.get(ctx, target, func(families map[string]*dto.MetricFamily) answer { return read(s.mappings, families, past) })
}

// get asks a target once for what is wanted, and makes an answer of it that also tells which machine it came from.
func (s *scraper) get(ctx context.Context, target string, read func(map[string]*dto.MetricFamily) answer) answer {
	text, from, err := s.fetch(ctx, target)
	if err != nil {
		return answer{err: explain(err)}
	}
	s.parse <- struct{}{}
	defer func() { <-s.parse }()
	families, err := parse(text)
	if err != nil {
		return answer{err: err}
	}
	ans := read(families)
	ans.evidence = evidenceOf(families)
	ans.evidence.addr = from
	return ans
}

// fetch is the part of a target's answer that is asked for, and the address that gave it.
func (s *scraper) fetch(ctx context.Context, target string) ([]byte, netip.Addr, error) {
	var from remote
	req, err := http.NewRequestWithContext(from.note(ctx), http.MethodGet, target, nil)
	if err != nil {
		return nil, netip.Addr{}, err
	}
	req.Header.Set("Accept", "text/plain;version=0.0.4;q=1,*/*;q=0.1")
	res, err := s.client.Do(req)
	if err != nil {
		return nil, netip.Addr{}, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, netip.Addr{}, fmt.Errorf("HTTP status %d", res.StatusCode)
	}
	kept, err := filter(res.Body, s.wanted)
	return kept, from.addr(), err
}

func parse(text []byte) (map[string]*dto.MetricFamily, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("not Prometheus' text format: %s", clip(err.Error(), 200))
	}
	return families, nil
}

// filter reads an exposition and keeps the lines of wanted series and their types.
func filter(r io.Reader, wanted map[string]bool) ([]byte, error) {
	limited := &io.LimitedReader{R: r, N: maxBody + 1}
	lines := bufio.NewReaderSize(limited, maxLine)
	var kept []byte
	series, skip := 0, false // skip: the rest of a long line that nobody wants
	for {
		line, err := lines.ReadSlice('\n')
		if limited.N == 0 {
			return nil, errBody
		}
		full := errors.Is(err, bufio.ErrBufferFull)
		if !skip && isWanted(line, wanted) {
			if full {
				return nil, errLine
			}
			kept = append(kept, line...)
			if series++; series > maxSeries || len(kept) > maxKept {
				return nil, errSeries
			}
		}
		skip = full
		switch {
		case full:
		case errors.Is(err, io.EOF):
			if n := len(kept); n > 0 && kept[n-1] != '\n' {
				kept = append(kept, '\n')
			}
			return kept, nil
		case err != nil:
			return nil, err
		}
	}
}

func isWanted(line []byte, wanted map[string]bool) bool {
	line = bytes.TrimLeft(line, " \t")
	if comment, ok := bytes.CutPrefix(line, []byte("#")); ok {
		fields := bytes.Fields(comment[:min(len(comment), maxName)])
		return len(fields) == 3 && string(fields[0]) == "TYPE" && wanted[string(fields[1])]
	}
	if i := bytes.IndexAny(line, "{ \t"); i > 0 {
		return wanted[string(line[:i])]
	}
	return false
}

// remote is the address that a request was first sent to: what it was redirected to is somebody else.
type remote struct{ first atomic.Pointer[netip.Addr] }

func (r *remote) note(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) {
		addr := addrOf(c.Conn)
		r.first.CompareAndSwap(nil, &addr)
	}})
}

func (r *remote) addr() netip.Addr {
	if addr := r.first.Load(); addr != nil {
		return *addr
	}
	return netip.Addr{}
}

func addrOf(conn net.Conn) netip.Addr {
	if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// explain leaves out what changes from one attempt to the next (our own port), so that the log can tell what is new, and the
// target's URL, whose query may be nobody's business.
func explain(err error) error {
	var asked *url.Error
	if errors.As(err, &asked) {
		if asked.Timeout() {
			return context.DeadlineExceeded
		}
		err = asked.Err
	}
	var op *net.OpError
	if errors.As(err, &op) {
		if op.Timeout() {
			return context.DeadlineExceeded
		}
		return fmt.Errorf("%s: %w", op.Op, op.Err)
	}
	return err
}

// clip makes one short printable line of what a stranger wrote.
func clip(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "") + "..."
	}
	return s
}
