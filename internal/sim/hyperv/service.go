package hyperv

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// machine is what an endpoint serves: a node, a guest, or a Virtual Server host.
type machine interface {
	name() string
	product() string // what Identify tells as ProductVersion
	// instances are all of a class, as they are now.
	instances(cl *class) ([]*instance, *fault)
	// invoke carries out a method on an instance and returns the names and values of its out-parameters.
	invoke(target *instance, m string, in *element) (out map[string]any, f *fault)
}

// endpoint serves one machine at a plain and at a TLS port. It can stop and start again at the same addresses.
type endpoint struct {
	key           string // name of the node, GUID of the guest's VM
	machine       machine
	gate          *gate
	faults        *faults
	calls         *calls
	opt           *Options
	schema        *schema
	shutters      func() map[string]bool
	cert          tls.Certificate
	roots         *x509.CertPool
	plain, secure string

	mu      sync.Mutex
	servers []*http.Server
	down    chan struct{} // closed when it stops

	contexts contexts
	shells   shells
}

// open makes an endpoint and starts it.
func (c *Cluster) open(name string, m machine, names ...string) error {
	cert, err := c.pki.host(names...)
	if err != nil {
		return err
	}
	e := &endpoint{
		key: name, machine: m, gate: c.gate, faults: &c.faults, calls: &c.calls, opt: &c.opt, schema: c.schema, cert: cert, roots: c.pki.pool,
		plain: "127.0.0.1:0", secure: "127.0.0.1:0",
		shutters: func() map[string]bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.model.shutters
		},
	}
	c.endpoints[name] = e
	return e.start()
}

// StopEndpoint makes a node's or a guest's service be gone, as if the machine had no power; the cluster does not notice. Start
// it again with StartEndpoint.
func (c *Cluster) StopEndpoint(name string) { c.endpoint(name).stop() }

// Stop stops all endpoints, and Start starts those again whose node is not down. The model lives on meanwhile.
func (c *Cluster) Stop() {
	for _, e := range c.endpoints {
		e.stop()
	}
}

// Start serves again after Stop, at the same addresses.
func (c *Cluster) Start() error {
	down := look(c, func(m *model) map[string]bool {
		names := map[string]bool{}
		for _, n := range m.nodes {
			names[n.name] = n.state == NodeDown
		}
		return names
	})
	for name, e := range c.endpoints {
		if down[name] {
			continue
		}
		if err := e.start(); err != nil {
			return err
		}
	}
	return nil
}

// StartEndpoint serves again, at the same address.
func (c *Cluster) StartEndpoint(name string) error { return c.endpoint(name).start() }

func (e *endpoint) start() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.servers != nil {
		return nil
	}
	plain, err := net.Listen("tcp", e.plain)
	if err != nil {
		return fmt.Errorf("serve %s: %w", e.machine.name(), err)
	}
	secure, err := net.Listen("tcp", e.secure)
	if err != nil {
		plain.Close()
		return fmt.Errorf("serve %s: %w", e.machine.name(), err)
	}
	e.plain, e.secure = plain.Addr().String(), secure.Addr().String()
	e.down = make(chan struct{})
	for _, l := range []net.Listener{plain, tls.NewListener(secure, &tls.Config{
		Certificates: []tls.Certificate{e.cert}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: e.roots, MinVersion: tls.VersionTLS12,
	})} {
		s := &http.Server{
			Handler: http.HandlerFunc(e.serve), ConnContext: e.gate.meet, ConnState: e.gate.seeOff, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0),
		}
		e.servers = append(e.servers, s)
		go s.Serve(l) //nolint:errcheck // it ends when the endpoint stops
	}
	return nil
}

func (e *endpoint) stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.servers == nil {
		return
	}
	close(e.down)
	for _, s := range e.servers {
		s.Close()
	}
	e.servers = nil
	e.contexts.forget()
	e.shells.forget()
}

func (e *endpoint) stopped() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.down
}

// serve is one HTTP request: proof, seal, fault, answer.
func (e *endpoint) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Server", "Microsoft-HTTPAPI/2.0")
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest+4096))
	if err != nil {
		http.Error(w, "Request too large", http.StatusRequestEntityTooLarge)
		return
	}
	if !strings.HasPrefix(r.URL.Path, "/wsman") {
		http.NotFound(w, r)
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		http.Error(w, "", http.StatusMethodNotAllowed)
		return
	}
	if living, is := e.machine.(interface{ alive() bool }); is && !living.alive() {
		panic(http.ErrAbortHandler)
	}
	v := r.Context().Value(visitorKey{}).(*visitor)
	if r.Header.Get("WSMANIDENTIFY") != "" && r.Header.Get("Authorization") == "" && bytes.Contains(body, []byte("Identify")) {
		e.answerIdentify(w, v, false)
		return
	}
	in := e.gate.admit(r, v, e.machine.name())
	e.noteAdmission(in, r, body)
	if in.user == nil {
		e.askForProof(w, r, in)
		return
	}
	if len(body) == 0 {
		w.Header().Set("Content-Type", soapType)
		w.WriteHeader(http.StatusOK)
		return
	}
	sealed := isSealed(r.Header.Get("Content-Type"))
	switch {
	case sealed && v.sealing == nil:
		http.Error(w, "", http.StatusBadRequest)
		return
	case sealed:
		if body, err = v.unseal(body); err != nil {
			http.Error(w, "", http.StatusBadRequest)
			return
		}
	case r.TLS == nil && !e.gate.allowUnencrypted:
		http.Error(w, "", http.StatusInternalServerError) // as Windows: no word why
		return
	}
	reply := e.answer(r.Context(), in.user, body)
	reply.send(w, v, sealed)
}

func (e *endpoint) noteAdmission(in admission, r *http.Request, body []byte) {
	e.calls.mu.Lock()
	defer e.calls.mu.Unlock()
	if in.fresh {
		e.calls.logins++
	}
	if in.tried {
		e.calls.refused++
	}
	if r.TLS != nil {
		return
	}
	if in.basic {
		e.calls.plainBasic++
	}
	if len(body) > 0 && !isSealed(r.Header.Get("Content-Type")) {
		e.calls.plainBodies++
	}
}

func (e *endpoint) askForProof(w http.ResponseWriter, r *http.Request, in admission) {
	if in.challenge != "" {
		w.Header().Set("WWW-Authenticate", in.challenge)
	} else {
		w.Header().Add("WWW-Authenticate", "Negotiate")
		if r.TLS != nil || e.gate.allowUnencrypted {
			w.Header().Add("WWW-Authenticate", `Basic realm="WSMAN"`)
		}
	}
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusUnauthorized)
}

// reply is an answer on its way.
type reply struct {
	status int
	body   []byte
	plain  bool // not SOAP, never sealed
	cut    bool // instead of answering
	end    int  // of the body, 0: all
}

func (a reply) send(w http.ResponseWriter, v *visitor, sealed bool) {
	if a.cut {
		panic(http.ErrAbortHandler)
	}
	body, kind := a.body, soapType
	switch {
	case a.plain:
		kind = "text/html; charset=us-ascii"
		if a.status == http.StatusUnauthorized {
			w.Header().Add("WWW-Authenticate", "Negotiate")
		}
	case sealed && v.sealing != nil:
		body, kind = v.seal(body), sealedType
	}
	if a.end > 0 && a.end < len(body) {
		body = body[:a.end]
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	w.WriteHeader(a.status)
	_, _ = w.Write(body)
}

// answer carries out a message, unless a fault has it otherwise.
func (e *endpoint) answer(ctx context.Context, user *account, body []byte) reply {
	if bytes.Contains(body, []byte(nsIdentity)) {
		e.calls.came(e.key, "Identify")
		return reply{status: http.StatusOK, body: e.identify(true)}
	}
	rq, bad := readRequest(body)
	if rq == nil {
		return e.failed(nil, bad)
	}
	rq.user = user
	e.calls.came(e.key, rq.verb)
	in := e.faults.take(e.key, rq)
	if in == nil {
		return e.carryOut(ctx, rq, bad)
	}
	f := in.what
	if f.Delay > 0 && !e.pause(ctx, f.Delay) {
		return reply{cut: true}
	}
	switch {
	case f.Hang:
		select {
		case <-in.lifted:
		case <-e.stopped():
		case <-ctx.Done():
		}
		return reply{cut: true}
	case f.TooLarge > 0:
		return e.failed(rq, serviceFault(EnvelopeTooLarge))
	case f.Code != 0:
		return e.failed(rq, serviceFault(f.Code))
	case f.HRESULT != 0:
		return e.failed(rq, wmiFault(f.HRESULT, ""))
	case f.Status != 0:
		return reply{status: f.Status, plain: true, body: []byte("<html><body>" + http.StatusText(f.Status) + "</body></html>")}
	case f.Garbage != nil:
		return reply{status: http.StatusOK, body: f.Garbage}
	}
	out := e.carryOut(ctx, rq, bad)
	out.end, out.cut = f.Truncate, f.LoseAnswer
	return out
}

// pause waits, and reports whether there is still somebody to answer.
func (e *endpoint) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-e.stopped():
	}
	return false
}

func (e *endpoint) failed(rq *request, f *fault) reply {
	var w writer
	w.fault(e.opt.Locale, e.machine.name(), newUUID(), rq, f)
	return reply{status: http.StatusInternalServerError, body: w.Bytes()}
}

func (e *endpoint) carryOut(ctx context.Context, rq *request, bad *fault) reply {
	var w writer
	f := bad
	if f == nil {
		f = e.dispatch(ctx, rq, &w)
	}
	if f == nil && w.Len() > e.limit(rq) {
		f = serviceFault(EnvelopeTooLarge)
	}
	e.calls.answered(e.key, w.Len())
	if f != nil {
		return e.failed(rq, f)
	}
	return reply{status: http.StatusOK, body: w.Bytes()}
}

// limit is how many bytes the answer may have.
func (e *endpoint) limit(rq *request) int { return min(rq.maxEnvelope, e.opt.MaxEnvelope) }

// dispatch carries out a request and writes its answer.
func (e *endpoint) dispatch(ctx context.Context, rq *request, w *writer) *fault {
	switch rq.action {
	case nsEnumeration + "/Enumerate":
		return e.enumerate(rq, w)
	case nsEnumeration + "/Pull":
		return e.pull(rq, w)
	case nsEnumeration + "/Release":
		return e.release(rq, w)
	case nsTransfer + "/Get":
		return e.get(rq, w)
	case nsTransfer + "/Create", nsTransfer + "/Delete", nsShell + "/Command", nsShell + "/Receive", nsShell + "/Signal", nsShell + "/Send":
		if rq.resource != shellURI {
			return serviceFault(resourceNotFound)
		}
		return e.shell(ctx, rq, w)
	}
	if rq.namespace != "" && strings.HasPrefix(rq.action, rq.resource+"/") {
		return e.invoke(rq, w)
	}
	return &fault{code: 2150858753, sender: true, subcode: "a:ActionNotSupported", text: "The action " + rq.action + " is not supported."}
}

// identify is the answer to Identify. Those who have not proved who they are do not learn the version.
func (e *endpoint) identify(known bool) []byte {
	version := "OS: 0.0.0 SP: 0.0 Stack: 3.0"
	if known {
		version = e.machine.product()
	}
	return []byte(`<s:Envelope xml:lang="` + e.opt.Locale + `" xmlns:s="` + nsSOAP + `"><s:Header/><s:Body><wsmid:IdentifyResponse xmlns:wsmid="` + nsIdentity +
		`"><wsmid:ProtocolVersion>http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd</wsmid:ProtocolVersion><wsmid:ProductVendor>Microsoft Corporation</wsmid:ProductVendor><wsmid:ProductVersion>` +
		version + `</wsmid:ProductVersion></wsmid:IdentifyResponse></s:Body></s:Envelope>`)
}

func (e *endpoint) answerIdentify(w http.ResponseWriter, v *visitor, known bool) {
	reply{status: http.StatusOK, body: e.identify(known)}.send(w, v, false)
}

func newUUID() string {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic(errors.Join(errors.New("no random numbers"), err)) // crypto/rand does not fail
	}
	h := strings.ToUpper(hex.EncodeToString(b[:]))
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}
