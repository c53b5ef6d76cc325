package guest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	promconfig "github.com/prometheus/common/config"

	"github.com/protip/protip/internal/inventory"
)

// maxPage is how much of a page a probe waits for.
const maxPage = 64 << 10

// prober asks whether services answer. It is used by many goroutines.
type prober struct {
	client *http.Client
	dialer net.Dialer
}

// newProber sends no credentials and makes a new connection each time, so that its latency means the same each time.
func newProber(tls promconfig.TLSConfig) (*prober, error) {
	client, err := promconfig.NewClientFromConfig(promconfig.HTTPClientConfig{TLSConfig: tls, FollowRedirects: true}, "guest_probe",
		promconfig.WithUserAgent("protip"), promconfig.WithKeepAlivesDisabled(), promconfig.WithHTTP2Disabled())
	if err != nil {
		return nil, err
	}
	return &prober{client: client}, nil
}

// probe asks one service. No answer, or a wrong one, is a service that failed; it has no latency then.
func (p *prober) probe(ctx context.Context, of Probe) answer {
	ask, where := p.http, of.HTTP
	if of.TCP != "" {
		ask, where = p.tcp, of.TCP
	}
	r := reading{name: of.Name, typ: of.Type(), state: inventory.ServiceRunning}
	began := time.Now()
	from, err := ask(ctx, where)
	if err != nil {
		r.state = inventory.ServiceFailed
		err = explain(err)
	} else {
		r.latency, r.measured = time.Since(began).Seconds(), true
	}
	return answer{readings: []reading{r}, evidence: evidence{addr: from}, err: err}
}

// Type is how the service is seen: http or tcp.
func (p Probe) Type() string {
	if p.TCP != "" {
		return "tcp"
	}
	return "http"
}

// http waits for a page that begins with a status from 200 to 299, after redirects, and for its first 64 KiB.
func (p *prober) http(ctx context.Context, page string) (netip.Addr, error) {
	var from remote
	req, err := http.NewRequestWithContext(from.note(ctx), http.MethodGet, page, nil)
	if err != nil {
		return netip.Addr{}, err
	}
	res, err := p.client.Do(req)
	if err != nil {
		return from.addr(), err
	}
	defer res.Body.Close()
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return from.addr(), fmt.Errorf("HTTP status %d", res.StatusCode)
	}
	_, err = io.Copy(io.Discard, io.LimitReader(res.Body, maxPage))
	return from.addr(), err
}

func (p *prober) tcp(ctx context.Context, address string) (netip.Addr, error) {
	conn, err := p.dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	return addrOf(conn), nil
}
