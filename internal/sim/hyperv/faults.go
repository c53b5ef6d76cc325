package hyperv

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// Fault is a misbehaviour of the service. The first that is made for a request is met by it, after it was let in.
type Fault struct {
	Node   string // name of the node, or GUID of the VM whose guest it is; "" is every endpoint
	Action string // Identify, Enumerate, Pull, Release, Get, Create, Command, Receive, Signal, Delete, or a method's name; "" is every one
	Class  string // that is asked for; "" is every one
	Times  int    // how many requests meet it; 0 is all until it is lifted

	Delay time.Duration // of real time, before anything else

	// One of these, or none.
	Code       uint32 // the fault of WS-Management of that number: QuotaShells, QuotaOperations, OperationTimedOut, EnvelopeTooLarge, ...
	HRESULT    uint32 // the WMI provider's error
	Status     int    // an HTTP status, with a page of words; 401 asks for credentials
	Hang       bool   // no answer until the fault is lifted or the endpoint stops
	Garbage    []byte // these bytes as the answer, with status 200 and the content type of SOAP, sealed if the connection seals
	Truncate   int    // carry it out and end the answer after so many bytes, properly
	LoseAnswer bool   // carry it out and cut the connection
	TooLarge   int    // EnvelopeTooLarge, if the client asks for more than so many elements
}

// Faults of WS-Management by their number.
const (
	OperationTimedOut     uint32 = 2150858793
	QuotaShells           uint32 = 2150859173
	QuotaOperations       uint32 = 2150859174
	QuotaUser             uint32 = 2150859175
	EnvelopeTooLarge      uint32 = 2150858790
	AccessDenied          uint32 = 5
	resourceNotFound      uint32 = 2150858752
	enumerationInvalid    uint32 = 2150858884
	filterCannotProcess   uint32 = 2150859042
	invalidBody           uint32 = 2150858791
	invalidSelectors      uint32 = 2150858843
	providerNotCapable    uint32 = 2150859010
	wmiAccessDenied       uint32 = 2150859012
	namespacesDiffer      uint32 = 2150859018
	wbemInvalidClass      uint32 = 0x80041010
	wbemInvalidNamespace  uint32 = 0x8004100E
	wbemInvalidQuery      uint32 = 0x80041017
	wbemInvalidMethod     uint32 = 0x8004102E
	wbemInvalidParameter  uint32 = 0x80041008
	wbemNotFound          uint32 = 0x80041002
	wbemAccessDenied      uint32 = 0x80041003
	wbemProviderIncapable uint32 = 0x80041024
)

type injected struct {
	what   Fault
	left   int
	lifted chan struct{}
}

// faults are those in force, oldest first.
type faults struct {
	mu   sync.Mutex
	list []*injected
}

// Inject puts a fault in force and returns what lifts it.
func (c *Cluster) Inject(f Fault) (lift func()) { return c.faults.inject(f) }

func (fs *faults) inject(f Fault) (lift func()) {
	in := &injected{what: f, left: f.Times, lifted: make(chan struct{})}
	fs.mu.Lock()
	fs.list = append(fs.list, in)
	fs.mu.Unlock()
	return sync.OnceFunc(func() {
		fs.mu.Lock()
		fs.list = slices.DeleteFunc(fs.list, func(x *injected) bool { return x == in })
		fs.mu.Unlock()
		close(in.lifted)
	})
}

// take is the fault that a request meets, nil if none.
func (fs *faults) take(endpoint string, rq *request) *injected {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for i, f := range fs.list {
		if !f.what.concerns(endpoint, rq) {
			continue
		}
		if f.left--; f.left == 0 {
			fs.list = slices.Delete(fs.list, i, i+1)
		}
		return f
	}
	return nil
}

func (f Fault) concerns(endpoint string, rq *request) bool {
	matches := func(want, have string) bool { return want == "" || strings.EqualFold(want, have) }
	return matches(f.Node, endpoint) && matches(f.Action, rq.verb) && matches(f.Class, rq.className()) &&
		(f.TooLarge == 0 || rq.maxElements > f.TooLarge)
}

// calls counts what clients did.
type calls struct {
	mu      sync.Mutex
	count   map[[2]string]int // by endpoint and action
	bytes   map[string]int
	logins  int
	refused int

	plainBodies, plainBasic int
}

func (c *calls) came(endpoint, action string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count == nil {
		c.count = map[[2]string]int{}
	}
	c.count[[2]string{endpoint, action}]++
}

func (c *calls) answered(endpoint string, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bytes == nil {
		c.bytes = map[string]int{}
	}
	c.bytes[endpoint] += bytes
}

// Requests is how many requests came to an endpoint ("": to all of them) from users who may enter, those included that met a
// fault. Action is as in Fault.
func (c *Cluster) Requests(endpoint, action string) int {
	c.calls.mu.Lock()
	defer c.calls.mu.Unlock()
	sum := 0
	for key, n := range c.calls.count {
		if (endpoint == "" || key[0] == endpoint) && (action == "" || key[1] == action) {
			sum += n
		}
	}
	return sum
}

// AnsweredBytes is how many bytes of SOAP an endpoint ("": all of them) answered.
func (c *Cluster) AnsweredBytes(endpoint string) int {
	c.calls.mu.Lock()
	defer c.calls.mu.Unlock()
	sum := 0
	for name, n := range c.calls.bytes {
		if endpoint == "" || name == endpoint {
			sum += n
		}
	}
	return sum
}

// Logins is how often somebody proved, and Refused how often somebody failed to prove, who he is.
func (c *Cluster) Logins() int {
	c.calls.mu.Lock()
	defer c.calls.mu.Unlock()
	return c.calls.logins
}

// Refused is how often somebody failed to prove who he is. Asking what proofs are taken is not a failure.
func (c *Cluster) Refused() int {
	c.calls.mu.Lock()
	defer c.calls.mu.Unlock()
	return c.calls.refused
}

// Exposed is what went over plain HTTP readable to anybody: credentials of Basic, and bodies that nobody sealed.
func (c *Cluster) Exposed() (credentials, bodies int) {
	c.calls.mu.Lock()
	defer c.calls.mu.Unlock()
	return c.calls.plainBasic, c.calls.plainBodies
}
