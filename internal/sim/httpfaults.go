package sim

import (
	"bytes"
	"crypto/tls"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"time"
)

// HTTPFault is a misbehaviour below SOAP: of a proxy, of the connection, or of an answer on its way. Of Status, Words,
// HalfClose, Truncate, Break and Pause one is set.
type HTTPFault struct {
	Method string // as in SOAP, "*" is every method
	Times  int    // how many calls meet it; 0 is all until it is lifted

	Status    int           // answer this status with a page of words, as a proxy does, instead of carrying the call out
	Words     string        // answer a fault of no type that says this, instead of carrying the call out
	HalfClose bool          // end the connection's way back and go on reading, instead of carrying the call out
	Truncate  int           // carry the call out and end the answer's body, properly, after so many bytes
	Break     int           // carry the call out and cut the connection after so many bytes of the answer's body
	Pause     time.Duration // of real time, in the middle of the answer's body
}

// InjectHTTP puts a fault in force and returns what lifts it.
func (vc *VCenter) InjectHTTP(f HTTPFault) (lift func()) {
	return vc.inject(&injected{what: Fault{Method: f.Method}, http: &f, left: f.Times})
}

// below is the fault below SOAP that a request meets, nil if none.
func (fs *faults) below(request []byte) *HTTPFault {
	f := fs.take(func(f *injected) bool { return f.http != nil && calls(request, f.what.Method) })
	if f == nil {
		return nil
	}
	return f.http
}

// calls reports whether a request is a call of the method.
func calls(request []byte, method string) bool {
	return method == "*" || bytes.Contains(request, []byte("<"+method+" ")) || bytes.Contains(request, []byte("<"+method+">"))
}

// answer answers a request as the fault has it.
func (f *HTTPFault) answer(w http.ResponseWriter, r *http.Request, next http.Handler, stopped <-chan struct{}) {
	switch {
	case f.Status != 0:
		http.Error(w, "upstream connect error or disconnect before headers", f.Status)
		return
	case f.Words != "":
		w.WriteHeader(http.StatusInternalServerError)
		var words bytes.Buffer
		_ = xml.EscapeText(&words, []byte(f.Words))
		fmt.Fprintf(w, wordsFault, &words)
		return
	case f.HalfClose:
		halfClose(w, stopped)
		return
	}
	whole := httptest.NewRecorder()
	next.ServeHTTP(whole, r)
	body := whole.Body.Bytes()
	for name, values := range whole.Header() {
		w.Header()[name] = values
	}
	sent := len(body)
	switch {
	case f.Truncate > 0:
		body = body[:min(f.Truncate, len(body))]
		sent = len(body)
	case f.Break > 0:
		body = body[:min(f.Break, len(body))]
	}
	w.Header().Set("Content-Length", fmt.Sprint(sent))
	w.WriteHeader(whole.Code)
	if f.Pause > 0 {
		half := len(body) / 2
		_, _ = w.Write(body[:half])
		_ = http.NewResponseController(w).Flush()
		body = body[half:]
		pause(f.Pause, stopped)
	}
	_, _ = w.Write(body)
	if f.Break > 0 {
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

const wordsFault = `<?xml version="1.0"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>` +
	`<soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>%s</faultstring></soapenv:Fault></soapenv:Body></soapenv:Envelope>`

// halfClose ends the way to the client and reads on until the client or the vCenter ends the connection.
func halfClose(w http.ResponseWriter, stopped <-chan struct{}) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer conn.Close()
	if c, ok := conn.(*tls.Conn); ok {
		_ = c.CloseWrite()
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, _ = io.Copy(io.Discard, conn)
	}()
	select {
	case <-over:
	case <-stopped:
	}
}

func pause(d time.Duration, stopped <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-stopped:
	}
}
