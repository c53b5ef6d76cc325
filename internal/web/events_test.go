package web

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/rules"
)

// heard is one event as a client reads it.
type heard struct{ id, kind, data string }

// listener is a client of the stream.
type listener struct {
	t    *testing.T
	body *bufio.Scanner
	stop func()
}

func serveEvents(t *testing.T) (*Events, *httptest.Server) {
	t.Helper()
	o := options(hotAgent(t))
	o.Events = NewEvents(now, slog.New(slog.DiscardHandler))
	server := httptest.NewUnstartedServer(New(o))
	server.Config.ReadTimeout = time.Second // must not end a stream
	server.Start()
	t.Cleanup(func() { o.Events.Close(); server.Close() })
	return o.Events, server
}

func listen(t *testing.T, server *httptest.Server, lastID string) *listener {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	r, err := http.NewRequestWithContext(ctx, "GET", server.URL+"/api/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	if lastID != "" {
		r.Header.Set("Last-Event-ID", lastID)
	}
	answer, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if answer.StatusCode != 200 || answer.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s %v", answer.Status, answer.Header)
	}
	return &listener{t, bufio.NewScanner(answer.Body), func() { stop(); answer.Body.Close() }}
}

// next is the next event; its kind is empty at the end of the stream.
func (l *listener) next() (h heard) {
	for l.body.Scan() {
		name, value, _ := strings.Cut(l.body.Text(), ": ")
		switch {
		case name == "id":
			h.id = value
		case name == "event":
			h.kind = value
		case name == "data":
			h.data = value
		case name == "" && h.kind != "":
			return h
		}
	}
	return heard{}
}

func moved(name string) News {
	return News{At: now, Change: &inventory.Change{Kind: inventory.Moved, Source: "muc", ID: muc("vm", "vm-1"), Name: name}}
}

func TestEventsAreToldAndResumed(t *testing.T) {
	events, server := serveEvents(t)
	events.Publish(moved("before"))
	client := listen(t, server, "")
	events.Publish(moved("first\nevent: tip"))
	events.Publish(News{At: now, Tip: &rules.Change{Tip: rules.Tip{ID: "a1b2c3", Evidence: []rules.Evidence{{Name: "x", Value: math.NaN()}}}}})
	first, second := client.next(), client.next()
	var got struct{ Change inventory.Change }
	if err := json.Unmarshal([]byte(first.data), &got); err != nil || first.kind != "change" || got.Change.Name != "first\nevent: tip" {
		t.Errorf("first: %+v %v", first, err)
	}
	if second.kind != "tip" || !strings.Contains(second.data, `"value":null`) || strings.Contains(second.data, "next_command") {
		t.Errorf("second: %+v", second)
	}
	client.stop()

	if again := listen(t, server, first.id); again.next() != second {
		t.Error("a client that comes back does not get what it missed")
	}
	for name, id := range map[string]string{"other run": "x-1", "garbage": "-", "the future": strings.Replace(second.id, "-3", "-99", 1)} {
		if got := listen(t, server, id).next(); got.kind != "reset" {
			t.Errorf("%s: %+v, want reset", name, got)
		}
	}
	for i := range keptEvents {
		events.Publish(moved(fmt.Sprint(i)))
	}
	late := listen(t, server, first.id)
	if got := late.next(); got.kind != "reset" {
		t.Errorf("what was missed is lost: %+v, want reset", got)
	}
	events.Publish(moved("after"))
	if got := late.next(); !strings.Contains(got.data, `"after"`) {
		t.Errorf("after the reset: %+v", got)
	}
	events.Close()
	if got := late.next(); got.kind != "" {
		t.Errorf("after the end: %+v", got)
	}
}

func TestEventsKeptAreBounded(t *testing.T) {
	events := NewEvents(now, slog.New(slog.DiscardHandler))
	for range 3 * keptEvents {
		events.Publish(moved(strings.Repeat("x", 8<<10)))
	}
	if events.bytes > keptEventBytes || len(events.ring) > keptEvents || len(events.ring) == 0 {
		t.Errorf("%d events of %d bytes are kept", len(events.ring), events.bytes)
	}
}

// TestEventClientsComeAndGo has 200 clients at once, one of which never reads, and then none.
func TestEventClientsComeAndGo(t *testing.T) {
	events, server := serveEvents(t)
	before := runtime.NumGoroutine()
	var clients []*listener
	for range 200 {
		clients = append(clients, listen(t, server, ""))
	}
	deaf, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	fmt.Fprintf(deaf, "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
	events.Publish(moved("web"))
	for i, c := range clients {
		if got := c.next(); got.kind != "change" {
			t.Fatalf("client %d: %+v", i, got)
		}
	}
	await(t, "the deaf client is in", func() bool { return events.readers() == 201 })
	for _, c := range clients {
		c.stop()
	}
	deaf.Close()
	server.Client().CloseIdleConnections()
	await(t, "every client is counted out", func() bool { return events.readers() == 0 })
	await(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before+5 })
}

func TestEventClientsAreBounded(t *testing.T) {
	o := options(hotAgent(t))
	o.Events = NewEvents(now, slog.New(slog.DiscardHandler))
	for range eventClients {
		if !o.Events.enter() {
			t.Fatal("refused below the bound")
		}
	}
	if w := do(New(o), "GET", "/api/v1/events", ""); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	o.Events = nil
	if w := do(New(o), "GET", "/api/v1/events", ""); w.Code != 404 {
		t.Errorf("without events: %d", w.Code)
	}
}

// stuck is a client whose connection takes nothing within the time it is given.
type stuck struct {
	http.ResponseWriter
	deadline time.Time
}

func (s *stuck) Write([]byte) (int, error)            { return 0, fmt.Errorf("i/o timeout at %s", s.deadline) }
func (s *stuck) SetWriteDeadline(end time.Time) error { s.deadline = end; return nil }

func TestStuckClientsAreDropped(t *testing.T) {
	o := options(hotAgent(t))
	o.Events = NewEvents(now, slog.New(slog.DiscardHandler))
	w := &stuck{ResponseWriter: httptest.NewRecorder()}
	New(o).ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/events", nil))
	if w.deadline.IsZero() || o.Events.readers() != 0 {
		t.Errorf("deadline %s, %d readers", w.deadline, o.Events.readers())
	}
}

func (e *Events) readers() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.clients
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// TestStreamsOutliveTheReadTimeout waits longer than the server lets a request be read: a stream is not one that is slow to come.
func TestStreamsOutliveTheReadTimeout(t *testing.T) {
	events, server := serveEvents(t)
	client := listen(t, server, "")
	time.Sleep(1200 * time.Millisecond)
	events.Publish(moved("web"))
	if got := client.next(); got.kind != "change" {
		t.Errorf("the stream ended: %+v", got)
	}
}
