package winrm

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/md5" //nolint:gosec // NTLM is made of it
	"crypto/rc4" //nolint:gosec // NTLM is made of it
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf16"

	"golang.org/x/crypto/md4" //lint:ignore SA1019 NTLM is made of it
)

const (
	testUser     = `CORP\watcher`
	testPassword = "Pässword-Marker&1"
)

// windows is a host that serves WS-Management with NTLM, sealed on plain HTTP. It shares no code with the client: it
// computes keys and seals by itself.
type windows struct {
	*httptest.Server
	t        testing.TB
	password string
	// answer is what it serves to an envelope that came through.
	answer func(ctx context.Context, envelope string) (status int, body string)
	// before may take a request over, before any log-in is looked at.
	before func(w http.ResponseWriter, r *http.Request) bool
	offers uint32 // flags of the challenge

	mu         sync.Mutex
	handshakes int
	seen       []string // envelopes that came through
	bindings   []byte   // of the last log-in
	wire       bytes.Buffer
	conns      []net.Conn
}

type connKey struct{}

// login is the state of one connection.
type login struct {
	hello, challenge []byte
	in               bool
	c2s, s2c         *rc4.Cipher
	signIn, signOut  []byte
	seqIn, seqOut    uint32
}

func newWindows(t testing.TB, secure bool, answer func(ctx context.Context, envelope string) (int, string)) *windows {
	w := &windows{t: t, password: testPassword, answer: answer, offers: 0xE28A8235}
	w.Server = httptest.NewUnstartedServer(w)
	w.Config.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, &login{})
	}
	if secure {
		w.StartTLS()
	} else {
		w.Listener = &listener{w.Listener, w}
		w.Start()
	}
	t.Cleanup(func() { w.CloseClientConnections(); w.Close() })
	return w
}

// listener records what goes over the wire.
type listener struct {
	net.Listener
	w *windows
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.w.mu.Lock()
	l.w.conns = append(l.w.conns, c)
	l.w.mu.Unlock()
	return &recorded{c, l.w}, nil
}

type recorded struct {
	net.Conn
	w *windows
}

func (r *recorded) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.w.mu.Lock()
	r.w.wire.Write(p[:n])
	r.w.mu.Unlock()
	return n, err
}

func (r *recorded) Write(p []byte) (int, error) {
	r.w.mu.Lock()
	r.w.wire.Write(p)
	r.w.mu.Unlock()
	return r.Conn.Write(p)
}

// onWire is all that went in both directions.
func (w *windows) onWire() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wire.String()
}

func (w *windows) logins() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.handshakes
}

func (w *windows) setPassword(s string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.password = s
}

func (w *windows) client(t testing.TB, change ...func(*Options)) *Client {
	t.Helper()
	opts := Options{
		URL: w.URL, Username: testUser, Password: func() (string, error) { return testPassword, nil }, OperationTimeout: 20 * time.Second,
	}
	opts.TLS.InsecureSkipVerify = true
	for _, f := range change {
		f(&opts)
	}
	c, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func (w *windows) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if w.before != nil && w.before(rw, r) {
		return
	}
	l := r.Context().Value(connKey{}).(*login)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	scheme, value, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	switch scheme {
	case "Basic":
		user, password, _ := r.BasicAuth()
		l.in = user == testUser && password == w.password
	case "Negotiate":
		token, _ := base64.StdEncoding.DecodeString(value)
		if len(token) > 8 && token[8] == 1 {
			l.in, l.hello, l.challenge = false, token, w.challenge()
			rw.Header().Set("WWW-Authenticate", "Negotiate "+base64.StdEncoding.EncodeToString(l.challenge))
			rw.WriteHeader(http.StatusUnauthorized)
			return
		}
		l.in = w.accept(l, token)
	}
	if !l.in {
		rw.Header().Add("WWW-Authenticate", "Negotiate")
		rw.Header().Add("WWW-Authenticate", `Basic realm="WSMAN"`)
		rw.WriteHeader(http.StatusUnauthorized)
		return
	}
	if len(body) == 0 {
		return // the end of a handshake
	}
	sealed := strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/encrypted")
	if sealed {
		if body, err = l.open(body); err != nil {
			w.t.Errorf("seal of a request: %v", err)
			return
		}
	}
	w.mu.Lock()
	w.seen = append(w.seen, string(body))
	w.mu.Unlock()
	status, answer := w.answer(r.Context(), string(body))
	out := []byte(answer)
	rw.Header().Set("Content-Type", "application/soap+xml;charset=UTF-8")
	if sealed {
		out = l.seal(out)
		rw.Header().Set("Content-Type", `multipart/encrypted;protocol="application/HTTP-SPNEGO-session-encrypted";boundary="Encrypted Boundary"`)
	}
	rw.WriteHeader(status)
	_, _ = rw.Write(out)
}

func utf16le(s string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

func (w *windows) challenge() []byte {
	var info []byte
	for _, av := range []struct {
		id    uint16
		value []byte
	}{{2, utf16le("CORP")}, {1, utf16le("HOST-1")}, {7, []byte{0, 0x80, 0x3e, 0xd5, 0xde, 0xb1, 0x9d, 1}}, {0, nil}} {
		info = binary.LittleEndian.AppendUint16(info, av.id)
		info = append(binary.LittleEndian.AppendUint16(info, uint16(len(av.value))), av.value...)
	}
	name := utf16le("CORP")
	b := []byte("NTLMSSP\x00\x02\x00\x00\x00")
	field := func(n, at int) {
		b = binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(b, uint16(n)), uint16(n))
		b = binary.LittleEndian.AppendUint32(b, uint32(at))
	}
	field(len(name), 56)
	b = binary.LittleEndian.AppendUint32(b, w.offers)
	b = append(b, 1, 2, 3, 4, 5, 6, 7, 8)
	b = append(b, make([]byte, 8)...)
	field(len(info), 56+len(name))
	b = append(b, 10, 0, 0x61, 0x4a, 0, 0, 0, 15)
	return append(append(b, name...), info...)
}

func mac(key []byte, parts ...[]byte) []byte {
	m := hmac.New(md5.New, key)
	m.Write(bytes.Join(parts, nil))
	return m.Sum(nil)
}

func key(exported []byte, magic string) []byte {
	sum := md5.Sum(append(append([]byte{}, exported...), magic+"\x00"...))
	return sum[:]
}

// accept checks a proof, and makes the connection's keys of it.
func (w *windows) accept(l *login, token []byte) bool {
	if len(token) < 88 || l.challenge == nil {
		return false
	}
	field := func(at int) []byte {
		n, off := int(binary.LittleEndian.Uint16(token[at:])), int(binary.LittleEndian.Uint32(token[at+4:]))
		if off+n > len(token) {
			return nil
		}
		return token[off : off+n]
	}
	nt, domain, user, session := field(20), field(28), field(36), field(52)
	if len(nt) < 44 || len(session) != 16 {
		return false
	}
	h := md4.New()
	w.mu.Lock()
	h.Write(utf16le(w.password))
	w.mu.Unlock()
	if !bytes.Equal(domain, utf16le("CORP")) || !bytes.Equal(user, utf16le("watcher")) {
		return false
	}
	owf := mac(h.Sum(nil), utf16le("WATCHER"), domain)
	if !hmac.Equal(nt[:16], mac(owf, []byte{1, 2, 3, 4, 5, 6, 7, 8}, nt[16:])) {
		return false
	}
	exported := make([]byte, 16)
	c, _ := rc4.NewCipher(mac(owf, nt[:16]))
	c.XORKeyStream(exported, session)
	without := bytes.Clone(token)
	clear(without[72:88])
	if !hmac.Equal(token[72:88], mac(exported, l.hello, l.challenge, without)) {
		w.t.Error("the handshake's own signature is wrong")
		return false
	}
	l.signIn, l.signOut = key(exported, "session key to client-to-server signing key magic constant"), key(exported, "session key to server-to-client signing key magic constant")
	l.c2s, _ = rc4.NewCipher(key(exported, "session key to client-to-server sealing key magic constant"))
	l.s2c, _ = rc4.NewCipher(key(exported, "session key to server-to-client sealing key magic constant"))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.handshakes++
	w.bindings = nil
	for av := nt[44:]; len(av) >= 4; {
		id, n := binary.LittleEndian.Uint16(av), int(binary.LittleEndian.Uint16(av[2:]))
		if id == 0 || len(av) < 4+n {
			break
		}
		if id == 10 {
			w.bindings = bytes.Clone(av[4 : 4+n])
		}
		av = av[4+n:]
	}
	return true
}

func (l *login) open(body []byte) ([]byte, error) {
	_, rest, ok := bytes.Cut(body, []byte("Length="))
	digits, rest, ok2 := bytes.Cut(rest, []byte("\r\n"))
	_, payload, ok3 := bytes.Cut(rest, []byte("application/octet-stream\r\n"))
	n, err := strconv.Atoi(string(digits))
	if !ok || !ok2 || !ok3 || err != nil || len(payload) < 20+n || !bytes.Equal(payload[20+n:], []byte("--Encrypted Boundary--\r\n")) {
		return nil, fmt.Errorf("malformed: %q", body[:min(len(body), 300)])
	}
	plain := make([]byte, n)
	l.c2s.XORKeyStream(plain, payload[20:20+n])
	want := make([]byte, 8)
	seq := binary.LittleEndian.AppendUint32(nil, l.seqIn)
	l.c2s.XORKeyStream(want, mac(l.signIn, seq, plain)[:8])
	if !bytes.Equal(payload[:8], []byte{16, 0, 0, 0, 1, 0, 0, 0}) || !bytes.Equal(payload[8:16], want) || !bytes.Equal(payload[16:20], seq) {
		return nil, fmt.Errorf("message %d is not signed", l.seqIn)
	}
	l.seqIn++
	return plain, nil
}

// seal writes as Windows does: with tabs before its headers.
func (l *login) seal(plain []byte) []byte {
	cipher := make([]byte, len(plain))
	l.s2c.XORKeyStream(cipher, plain)
	sum := make([]byte, 8)
	seq := binary.LittleEndian.AppendUint32(nil, l.seqOut)
	l.s2c.XORKeyStream(sum, mac(l.signOut, seq, plain)[:8])
	l.seqOut++
	head := fmt.Sprintf("--Encrypted Boundary\r\n\tContent-Type: application/HTTP-SPNEGO-session-encrypted\r\n\tOriginalContent: type=application/soap+xml;charset=UTF-8;Length=%d\r\n"+
		"--Encrypted Boundary\r\n\tContent-Type: application/octet-stream\r\n", len(plain))
	return bytes.Join([][]byte{[]byte(head), {16, 0, 0, 0, 1, 0, 0, 0}, sum, seq, cipher, []byte("--Encrypted Boundary--\r\n")}, nil)
}

// soap is an envelope around a body.
func soap(body string) string {
	return `<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:n="http://schemas.xmlsoap.org/ws/2004/09/enumeration" xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd"><s:Header/><s:Body>` +
		body + `</s:Body></s:Envelope>`
}

func soapFault(code uint32) (int, string) {
	return http.StatusInternalServerError, soap(fmt.Sprintf(`<s:Fault><s:Detail><f:WSManFault xmlns:f="f" Code="%d"/></s:Detail></s:Fault>`, code))
}
