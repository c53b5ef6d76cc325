package web

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// How much the event stream keeps and bears.
const (
	keptEvents     = 1024
	keptEventBytes = 4 << 20
	eventClients   = 256
	// eventBeat is how long a stream may be silent: a client that is gone is noticed when it is written to.
	eventBeat = 15 * time.Second
	// eventPatience is how long a client may take to read what it was sent.
	eventPatience = 10 * time.Second
)

// Events is what happened of late, for any number of readers. It keeps each event once, in a ring that all readers share; a
// reader is only a place in it. So Publish never waits for anyone, and a reader that is slower than the ring is long loses its
// place. Its methods may be called from any goroutine.
type Events struct {
	log   *slog.Logger
	epoch string // tells the numbers of this process from those of another

	mu      sync.Mutex
	ring    []event
	bytes   int
	next    uint64        // number of the event to come
	news    chan struct{} // closed at the next event
	closed  bool
	clients int
}

// event is one, written out for the stream.
type event struct {
	number uint64
	frame  []byte
}

// NewEvents keeps nothing yet. Started tells this run of the agent from others.
func NewEvents(started time.Time, log *slog.Logger) *Events {
	return &Events{log: log, epoch: strconv.FormatInt(started.UnixNano(), 36), next: 1, news: make(chan struct{})}
}

// News is something that happened; exactly one of its parts is set.
type News struct {
	At     time.Time
	Source *inventory.Source // went up or down
	Change *inventory.Change
	Tip    *rules.Change
	Action *remediation.Action // took a step
}

// shown is the news by its kind, one word, and as the stream shows it.
func (n News) shown() (kind string, about map[string]any) {
	about = map[string]any{"at": n.At}
	switch {
	case n.Source != nil:
		kind, about["source"] = "source", Source{
			Name: n.Source.Name, Platform: n.Source.Platform, IntervalSeconds: n.Source.Interval.Seconds(),
			Synced: n.Source.Synced, Up: n.Source.Up, Error: n.Source.Error, LastSuccess: n.Source.LastSuccess,
		}
	case n.Change != nil:
		kind, about["change"] = "change", n.Change
	case n.Tip != nil:
		kind, about["tip"], about["from"], about["dropped"] = "tip", seen(n.Tip.Tip), n.Tip.From, n.Tip.Dropped
	default:
		kind, about["action"] = "action", n.Action
	}
	return kind, about
}

// Publish tells of news.
func (e *Events) Publish(n News) {
	kind, about := n.shown()
	body, err := json.Marshal(about)
	if err != nil {
		e.log.Error("event not told", "kind", kind, "err", err)
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	// JSON has no line breaks of its own: one data line is the whole event.
	frame := fmt.Appendf(nil, "id: %s\nevent: %s\ndata: %s\n\n", e.id(e.next), kind, body)
	e.ring, e.bytes = append(e.ring, event{e.next, frame}), e.bytes+len(frame)
	for len(e.ring) > keptEvents || e.bytes > keptEventBytes {
		e.bytes -= len(e.ring[0].frame)
		e.ring[0] = event{}
		e.ring = e.ring[1:]
	}
	e.next++
	close(e.news)
	e.news = make(chan struct{})
}

// Close ends every stream, so that the server can end.
func (e *Events) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.closed {
		e.closed = true
		close(e.news)
	}
}

func (e *Events) id(number uint64) string { return e.epoch + "-" + strconv.FormatUint(number, 10) }

// after is what came since the reader was at a place, and a channel that is closed when there is more. It is not whole if events
// before the first of them are lost.
func (e *Events) after(place uint64) (frames [][]byte, now uint64, whole bool, news <-chan struct{}, closed bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now = e.next - 1
	oldest := e.next - uint64(len(e.ring))
	whole = place+1 >= oldest
	for _, ev := range e.ring {
		if ev.number > place {
			frames = append(frames, ev.frame)
		}
	}
	return frames, now, whole, e.news, e.closed
}

// placeBehind is where a client that names the last event it got goes on; not known are IDs of other runs, and what never was.
func (e *Events) placeBehind(lastID string) (place uint64, known bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	epoch, number, _ := strings.Cut(lastID, "-")
	place, err := strconv.ParseUint(number, 10, 64)
	if err != nil || epoch != e.epoch || place >= e.next {
		return e.next - 1, false
	}
	return place, true
}

// enter counts a client in, if there is room for one more.
func (e *Events) enter() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.clients >= eventClients {
		return false
	}
	e.clients++
	return true
}

func (e *Events) leave() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.clients--
}

// streamEvents is the stream: server-sent events from now on, or from behind Last-Event-ID. Where events are lost to the client, it is
// told by an event reset that it has to read the state anew.
func (s *server) streamEvents(w http.ResponseWriter, r *http.Request) {
	if _, err := query(r); err != nil {
		s.fail(w, r, err)
		return
	}
	if s.events == nil {
		s.fail(w, r, &apiError{http.StatusNotFound, "not_found", "this agent has no event stream", nil})
		return
	}
	if !s.events.enter() {
		w.Header().Set("Retry-After", "10")
		s.fail(w, r, &apiError{http.StatusServiceUnavailable, "unavailable", "too many read the event stream already", nil})
		return
	}
	defer s.events.leave()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // a proxy that gathers answers would keep the events
	if r.Method == http.MethodHead {
		return
	}
	place, known := s.events.placeBehind(r.Header.Get("Last-Event-ID"))
	mayRead := func() bool {
		u, _ := s.identify(r)
		return u.Role >= Viewer
	}
	s.events.stream(w, r, place, known || r.Header.Get("Last-Event-ID") == "", mayRead)
}

// stream writes until the client goes, is too slow or may not read any more, or the agent ends.
func (e *Events) stream(w http.ResponseWriter, r *http.Request, place uint64, resumed bool, mayRead func() bool) {
	out := http.NewResponseController(w)
	send := func(text []byte) bool {
		_ = out.SetWriteDeadline(time.Now().Add(eventPatience))
		if _, err := w.Write(text); err != nil {
			return false
		}
		err := out.Flush()
		_ = out.SetWriteDeadline(time.Time{}) // HTTP/2 ends a stream at its deadline, whether or not somebody writes
		return err == nil
	}
	// A first event ID makes a client that reconnects before anything happened go on from here.
	if !send(fmt.Appendf(nil, "retry: 3000\nid: %s\n\n", e.id(place))) {
		return
	}
	beat := time.NewTicker(eventBeat)
	defer beat.Stop()
	for first := true; ; first = false {
		frames, now, whole, news, closed := e.after(place)
		switch {
		case first && (!resumed || !whole):
			// What is kept is not what was missed: the state is read anew, and the stream goes on from now.
			if !send(fmt.Appendf(nil, "id: %s\nevent: reset\ndata: {}\n\n", e.id(now))) {
				return
			}
			frames = nil
		case !whole:
			return // slower than the ring is long: it may come back, and is told
		}
		place = now
		for _, frame := range frames {
			if !send(frame) {
				return
			}
		}
		if closed {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-news:
		case <-beat.C:
			if !mayRead() || !send([]byte(":\n\n")) {
				return
			}
		}
	}
}
