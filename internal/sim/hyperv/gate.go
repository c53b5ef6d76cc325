package hyperv

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// gate decides who may enter. A proof by NTLM holds for its connection, all others for one request.
type gate struct {
	domain, netbios  string
	allowUnencrypted bool

	mu       sync.Mutex
	accounts []*account
	open     map[net.Conn]*visitor
}

// account is a user of the domain.
type account struct {
	name, password    string
	readOnly, expired bool
}

func newGate(users []User, domain string, allowUnencrypted bool) *gate {
	g := &gate{open: map[net.Conn]*visitor{}, domain: domain, netbios: strings.ToUpper(strings.SplitN(domain, ".", 2)[0]), allowUnencrypted: allowUnencrypted}
	for _, u := range users {
		g.accounts = append(g.accounts, &account{name: u.Name, password: u.Password, readOnly: u.ReadOnly, expired: u.Expired})
	}
	return g
}

// find is the account of a name as a client may write it, nil if there is none.
func (g *gate) find(user, domain string) *account {
	if d, u, found := strings.Cut(user, `\`); found {
		domain, user = d, u
	} else if u, d, found := strings.Cut(user, "@"); found {
		domain, user = d, u
	}
	if domain != "" && !strings.EqualFold(domain, g.netbios) && !strings.EqualFold(domain, g.domain) && domain != "." {
		return nil
	}
	i := slices.IndexFunc(g.accounts, func(a *account) bool { return strings.EqualFold(a.name, user) })
	if i < 0 {
		return nil
	}
	return g.accounts[i]
}

// SetPassword gives a user another password. Connections that proved the old one by NTLM go on.
func (c *Cluster) SetPassword(user, password string) error {
	return c.gate.change(user, func(a *account) { a.password = password })
}

// ExpirePassword makes a user's password be refused until SetPassword.
func (c *Cluster) ExpirePassword(user string) error {
	return c.gate.change(user, func(a *account) { a.expired = true })
}

func (g *gate) change(user string, f func(*account)) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.find(user, "")
	if a == nil {
		return fmt.Errorf("user %s: %w", user, ErrUnknown)
	}
	a.expired = false
	f(a)
	return nil
}

// visitor is one connection.
type visitor struct {
	handshake *ntlmServer
	user      *account
	sealing   *sealing
}

type visitorKey struct{}

// meet remembers a connection until it is closed.
func (g *gate) meet(ctx context.Context, conn net.Conn) context.Context {
	v := &visitor{}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open[conn] = v
	return context.WithValue(ctx, visitorKey{}, v)
}

func (g *gate) seeOff(conn net.Conn, state http.ConnState) {
	if state == http.StateClosed || state == http.StateHijacked {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.open, conn)
	}
}

// OpenLogins is how many connections are open that somebody proved himself on by NTLM.
func (c *Cluster) OpenLogins() int {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	n := 0
	for _, v := range c.gate.open {
		if v.user != nil {
			n++
		}
	}
	return n
}

// ForgetLogins makes all connections be cut on which somebody proved himself, as a restart of the service does.
func (c *Cluster) ForgetLogins() {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	for conn, v := range c.gate.open {
		if v.user != nil {
			conn.Close()
			delete(c.gate.open, conn)
		}
	}
}

// admission is what the gate said to a request.
type admission struct {
	user      *account
	challenge string // an answer's WWW-Authenticate; the request is not carried out
	tried     bool   // there was a proof, and it failed
	fresh     bool   // the proof was given with this request
	basic     bool
}

// admit looks at a request's proof. What a failed one is answered does not tell why.
func (g *gate) admit(r *http.Request, v *visitor, machine string) admission {
	g.mu.Lock()
	defer g.mu.Unlock()
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	switch {
	case strings.HasSuffix(scheme, "/https/mutual"):
		if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
			if a := g.find(r.TLS.PeerCertificates[0].Subject.CommonName, ""); a != nil && !a.expired {
				return admission{user: a, fresh: true}
			}
		}
		return admission{tried: true}
	case strings.EqualFold(scheme, "Basic"):
		user, password, _ := r.BasicAuth()
		a := g.find(user, "")
		if r.TLS == nil && !g.allowUnencrypted || a == nil || a.password != password || a.expired {
			return admission{tried: true, basic: true}
		}
		return admission{user: a, fresh: true, basic: true}
	case strings.EqualFold(scheme, "Negotiate"), strings.EqualFold(scheme, "NTLM"):
		return g.negotiate(scheme, token, v, machine)
	case scheme == "" && v.user != nil:
		return admission{user: v.user}
	}
	return admission{tried: scheme != ""}
}

func (g *gate) negotiate(scheme, token string, v *visitor, machine string) admission {
	message, err := base64.StdEncoding.DecodeString(strings.TrimSpace(token))
	if err != nil || len(message) < 12 || !bytes.HasPrefix(message, ntlmSignature) {
		return admission{tried: true}
	}
	v.user, v.sealing = nil, nil
	if binary.LittleEndian.Uint32(message[8:]) == 1 {
		v.handshake = &ntlmServer{machine: machine, domain: g.netbios, dnsDomain: g.domain}
		challenge, err := v.handshake.respond(message)
		if err != nil {
			return admission{tried: true}
		}
		return admission{challenge: scheme + " " + base64.StdEncoding.EncodeToString(challenge)}
	}
	if v.handshake == nil {
		return admission{tried: true}
	}
	handshake := v.handshake
	v.handshake = nil
	name, sealing, err := handshake.accept(message, func(user, domain string) (string, bool) {
		a := g.find(user, domain)
		if a == nil || a.expired {
			return "", false
		}
		return a.password, true
	})
	if err != nil {
		return admission{tried: true}
	}
	v.user, v.sealing = g.find(name, ""), sealing
	return admission{user: v.user, fresh: true}
}

// What a sealed body looks like (MS-WSMV 2.2.9.1): two parts, the first tells the content's type and length, the second is the
// length of the signature, the signature, and the sealed content. Lines end in CRLF but for the content.
const (
	sealedType     = `multipart/encrypted;protocol="application/HTTP-SPNEGO-session-encrypted";boundary="Encrypted Boundary"`
	sealedProtocol = "application/HTTP-SPNEGO-session-encrypted"
	soapType       = "application/soap+xml;charset=UTF-8"
)

func isSealed(contentType string) bool { return strings.HasPrefix(contentType, "multipart/encrypted") }

// unseal is the content of a sealed body.
func (v *visitor) unseal(body []byte) ([]byte, error) {
	const boundary = "--Encrypted Boundary"
	head, rest, found := bytes.Cut(body, []byte("Content-Type: application/octet-stream\r\n"))
	if !found || !bytes.HasPrefix(head, []byte(boundary)) {
		return nil, fmt.Errorf("sealed body: no content")
	}
	payload, found := bytes.CutSuffix(bytes.TrimSuffix(rest, []byte("\r\n")), []byte(boundary+"--"))
	if !found || len(payload) < 20 {
		return nil, fmt.Errorf("sealed body: it does not end")
	}
	if length := binary.LittleEndian.Uint32(payload); length != 16 {
		return nil, fmt.Errorf("sealed body: a signature of %d bytes", length)
	}
	plain, err := v.sealing.unwrap(payload[20:], payload[4:20])
	if err != nil {
		return nil, fmt.Errorf("sealed body: %w", err)
	}
	_, said, _ := bytes.Cut(head, []byte("Length="))
	said, _, _ = bytes.Cut(said, []byte("\r\n"))
	if n, err := strconv.Atoi(string(said)); err != nil || n != len(plain) {
		return nil, fmt.Errorf("sealed body: it says that it has %q bytes and has %d", said, len(plain))
	}
	return plain, nil
}

func (v *visitor) seal(plain []byte) []byte {
	sealed, signature := v.sealing.wrap(plain)
	var b bytes.Buffer
	fmt.Fprintf(&b, "--Encrypted Boundary\r\n\tContent-Type: %s\r\n\tOriginalContent: type=%s;Length=%d\r\n", sealedProtocol, soapType, len(plain))
	b.WriteString("--Encrypted Boundary\r\n\tContent-Type: application/octet-stream\r\n")
	_ = binary.Write(&b, binary.LittleEndian, uint32(len(signature)))
	b.Write(signature)
	b.Write(sealed)
	b.WriteString("--Encrypted Boundary--\r\n")
	return b.Bytes()
}
