package web

import (
	"bufio"
	"bytes"
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

// TestSlowBodies: a request that trickles in is ended after a while, on every route, and nothing acts on it.
func TestSlowBodies(t *testing.T) {
	agent := hotAgent(t)
	o := options(agent)
	o.Alerts = Alerts{Receiver: &inbox{}, Token: func() (string, error) { return token, nil }}
	for _, r := range newServer(o).routes() {
		t.Run(r.pattern(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o.Events = NewEvents(now, slog.New(slog.DiscardHandler))
				o.Events.Close()
				conn, began := served(t, New(o)).dial(), time.Now()
				var writing sync.WaitGroup
				writing.Go(func() {
					fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\n",
						r.Method, routeCases[r.pattern()].Target, token)
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
					t.Errorf("the connection was kept for %s", took)
				}
				if acts := agent.taken(); len(acts) > 0 {
					t.Errorf("acted: %q", acts)
				}
			})
		})
	}
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

// TestSlowReaders: an answer that nobody reads does not keep its connection for ever.
func TestSlowReaders(t *testing.T) {
	o := options(hotAgent(t))
	wrote := make(chan error, 1)
	o.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, err := w.Write(bytes.Repeat([]byte("x"), 1<<20))
		wrote <- err
	})
	synctest.Test(t, func(t *testing.T) {
		conn, began := served(t, New(o)).dial(), time.Now()
		fmt.Fprint(conn, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
		for len(wrote) == 0 && time.Since(began) < time.Hour {
			time.Sleep(time.Minute)
		}
		if took := time.Since(began); took > writePatience+time.Minute || <-wrote == nil {
			t.Errorf("the connection was kept for %s", took)
		}
		_ = conn.Close()
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
