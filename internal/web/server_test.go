package web

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/protip/protip/rules/report"
)

// pipes is a listener whose connections are in this process, so that their time-outs are the test's time.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	select {
	case <-p.done:
	default:
		close(p.done)
	}
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.conns <- server
	return client
}

// served runs a server over pipes until the test ends.
func served(t *testing.T, h http.Handler) *pipes {
	t.Helper()
	l, server := newPipes(), NewServer(h)
	server.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return l
}

// testSlowBody holds that a request that trickles in is ended after a while, and that nothing acts on it.
func testSlowBody(t *testing.T, with func(testing.TB, Options) Options, route Route, tc RouteCase) {
	agent := hotAgent(t)
	synctest.Test(t, func(t *testing.T) {
		conn, began := tc.dial(t, with(t, options(agent)), route, "Content-Length: 1000"), time.Now()
		var writing sync.WaitGroup
		writing.Go(func() {
			for range 1000 {
				if _, err := conn.Write([]byte(" ")); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		})
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
		writing.Wait()
		if took := time.Since(began); took > readPatience+2*time.Second {
			t.Errorf("slow body: the connection was kept for %s", took)
		}
		if acts := agent.taken(); len(acts) > 0 {
			t.Errorf("slow body: acted: %q", acts)
		}
	})
}

// testSlowReader holds that an answer that nobody reads does not keep its connection for ever.
func testSlowReader(t *testing.T, with func(testing.TB, Options) Options, route Route, tc RouteCase) {
	agent := hotAgent(t)
	synctest.Test(t, func(t *testing.T) {
		conn := tc.dial(t, with(t, options(agent)), route, fmt.Sprintf("Content-Length: %d", len(tc.Body)))
		fmt.Fprint(conn, tc.Body)
		time.Sleep(writePatience + time.Minute)
		if answer, _ := io.ReadAll(conn); len(answer) > 0 {
			t.Errorf("slow reader: the connection was kept for %s, with %d bytes to read", writePatience+time.Minute, len(answer))
		}
		_ = conn.Close()
	})
}

// dial sends the head of a right request, with one more header. Events never end by themselves.
func (c RouteCase) dial(t *testing.T, o Options, route Route, header string) net.Conn {
	t.Helper()
	o.Events = NewEvents(now, slog.New(slog.DiscardHandler))
	t.Cleanup(o.Events.Close)
	r := httptest.NewRequest(route.Method, c.Target, nil)
	_, edit := c.request(bearer(token))
	edit(r)
	conn := served(t, New(o)).dial()
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n", route.Method, c.Target, header)
	if err := r.Header.Write(conn); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "\r\n")
	return conn
}

func TestSlowHeaders(t *testing.T) {
	agent := hotAgent(t)
	synctest.Test(t, func(t *testing.T) {
		conn, began := served(t, New(options(agent))).dial(), time.Now()
		var writing sync.WaitGroup
		writing.Go(func() {
			fmt.Fprint(conn, "GET / HTTP/1.1\r\nX: ")
			for {
				if _, err := conn.Write([]byte("x")); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		})
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
		writing.Wait()
		if took := time.Since(began); took > headerPatience+2*time.Second {
			t.Errorf("the connection was kept for %s", took)
		}
	})
}

// slow takes a while for a report.
type slow struct{ *testAgent }

func (s slow) Report(ctx context.Context, name string, r report.Request) (report.Report, error) {
	select {
	case <-time.After(reportTime - time.Second):
		return s.testAgent.Report(ctx, name, r)
	case <-ctx.Done():
		return report.Report{}, ctx.Err()
	}
}

// TestLongReports: a report that takes longer than a request may take to arrive is not taken for one whose asker is gone.
func TestLongReports(t *testing.T) {
	agent := hotAgent(t)
	synctest.Test(t, func(t *testing.T) {
		conn := served(t, New(options(slow{agent}))).dial()
		fmt.Fprint(conn, "GET /api/v1/reports/growth?since=1d HTTP/1.1\r\nHost: localhost\r\n\r\n")
		answer, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || !strings.Contains(answer, "200 OK") {
			t.Errorf("%q, %v", answer, err)
		}
		_ = conn.Close()
	})
}

// TestStreamsLastOverHTTP2: a stream on which little happens is not ended, and one that nobody reads is.
func TestStreamsLastOverHTTP2(t *testing.T) {
	agent := hotAgent(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
		cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		o := options(agent)
		o.Events = NewEvents(now, slog.New(slog.DiscardHandler))
		l, server := newPipes(), NewServer(New(o))
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}}
		go func() { _ = server.ServeTLS(l, "", "") }()
		transport := &http.Transport{
			DialContext:       func(context.Context, string, string) (net.Conn, error) { return l.dial(), nil },
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
			ForceAttemptHTTP2: true,
		}
		res, err := (&http.Client{Transport: transport}).Get("https://localhost/api/v1/events")
		if err != nil {
			t.Fatal(err)
		}
		beats := 0
		for lines := bufio.NewScanner(res.Body); beats < 60 && lines.Scan(); {
			if lines.Text() == ":" {
				beats++
			}
		}
		if res.ProtoMajor != 2 || beats != 60 {
			t.Errorf("HTTP/%d, %d beats, want a quarter of an hour of them", res.ProtoMajor, beats)
		}
		_ = res.Body.Close()
		transport.CloseIdleConnections()
		o.Events.Close()
		_ = server.Close()
	})
}
