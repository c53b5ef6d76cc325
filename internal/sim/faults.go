package sim

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/vmware/govmomi/vim25/types"
)

// Fault is a misbehaviour of one method.
type Fault struct {
	Method string // as in SOAP: QueryPerf, Login, MigrateVM_Task; "*" is every method
	Times  int    // how many calls meet it; 0 is all until it is lifted

	Fault      types.BaseMethodFault // answer this instead of carrying the call out
	Delay      time.Duration         // of real time before anything else
	Hang       bool                  // do not answer until the fault is lifted or the vCenter stops
	LoseAnswer bool                  // carry the call out and cut the connection instead of answering
}

// injected is a fault in force.
type injected struct {
	what   Fault
	http   *HTTPFault // nil: of SOAP
	left   int
	lifted chan struct{}
}

// faults are those in force, oldest first; a call meets the first that is made for it.
type faults struct {
	mu   sync.Mutex
	list []*injected
}

// Inject puts a fault in force and returns what lifts it.
func (vc *VCenter) Inject(f Fault) (lift func()) { return vc.inject(&injected{what: f, left: f.Times}) }

func (vc *VCenter) inject(in *injected) (lift func()) {
	in.lifted = make(chan struct{})
	vc.faults.mu.Lock()
	vc.faults.list = append(vc.faults.list, in)
	vc.faults.mu.Unlock()
	return sync.OnceFunc(func() {
		vc.faults.mu.Lock()
		vc.faults.list = slices.DeleteFunc(vc.faults.list, func(x *injected) bool { return x == in })
		vc.faults.mu.Unlock()
		close(in.lifted)
	})
}

// take is the fault that a call meets, nil if none. Faults that lose the answer are met on the way out (losing), all others on
// the way in.
func (fs *faults) take(match func(*injected) bool) *injected {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for i, f := range fs.list {
		if !match(f) {
			continue
		}
		if f.left--; f.left == 0 {
			fs.list = slices.Delete(fs.list, i, i+1)
		}
		return f
	}
	return nil
}

// meet lets a call meet its fault, if there is one, and returns what to answer instead of carrying it out.
func (fs *faults) meet(method string, stopped <-chan struct{}) types.BaseMethodFault {
	f := fs.take(func(f *injected) bool {
		return f.http == nil && !f.what.LoseAnswer && (f.what.Method == method || f.what.Method == "*")
	})
	if f == nil {
		return nil
	}
	if f.what.Delay > 0 {
		pause(f.what.Delay, stopped)
	}
	if f.what.Hang {
		select {
		case <-f.lifted:
		case <-stopped:
			return &types.RequestCanceled{}
		}
	}
	return f.what.Fault
}

// losing reports whether the answer to a request is to be lost.
func (fs *faults) losing(request []byte) bool {
	return fs.take(func(f *injected) bool { return f.what.LoseAnswer && calls(request, f.what.Method) }) != nil
}

const maxRequest = 64 << 20

// faultyAnswers carries requests out, unless a fault below SOAP has it otherwise, and cuts the connection where the answer is
// to be lost.
func (g *gateway) faultyAnswers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		g.vc.extensionLogin(r, body)
		if f := g.vc.faults.below(body); f != nil {
			f.answer(w, r, next, g.vc.stopped())
			return
		}
		if g.vc.faults.losing(body) {
			next.ServeHTTP(nowhere{header: http.Header{}}, r)
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(w, r)
	})
}

// nowhere is where lost answers go.
type nowhere struct{ header http.Header }

func (n nowhere) Header() http.Header       { return n.header }
func (nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (nowhere) WriteHeader(int)             {}

// counts is what clients did, by method and for migrations by VM.
type counts struct {
	mu         sync.Mutex
	methods    map[string]int
	migrations map[types.ManagedObjectReference]int
}

func (c *counts) call(method string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.methods == nil {
		c.methods = map[string]int{}
	}
	c.methods[method]++
}

func (c *counts) migration(vm types.ManagedObjectReference) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.migrations == nil {
		c.migrations = map[types.ManagedObjectReference]int{}
	}
	c.migrations[vm]++
}

// Calls is how often a method was called, whatever came of it.
func (vc *VCenter) Calls(method string) int {
	vc.counts.mu.Lock()
	defer vc.counts.mu.Unlock()
	return vc.counts.methods[method]
}

// Logins is how often somebody tried to log in, with right or wrong words.
func (vc *VCenter) Logins() int { return vc.Calls("Login") + vc.Calls("LoginExtensionByCertificate") }

// MigrationCalls is how many MigrateVM_Task and RelocateVM_Task calls each VM has received, the refused ones too.
func (vc *VCenter) MigrationCalls() map[types.ManagedObjectReference]int {
	vc.counts.mu.Lock()
	defer vc.counts.mu.Unlock()
	return maps.Clone(vc.counts.migrations)
}
