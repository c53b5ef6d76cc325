package winrm

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const process = `<p:Win32_Process xmlns:p="u"><p:Name>%s</p:Name></p:Win32_Process>`

// pages answers a query with pages of one instance each.
func pages(names ...string) func(context.Context, string) (int, string) {
	return func(_ context.Context, envelope string) (int, string) {
		n, verb, end := 0, "Enumerate", ""
		switch {
		case strings.Contains(envelope, "/enumeration/Release<"):
			return http.StatusOK, soap("")
		case strings.Contains(envelope, "/enumeration/Pull<"):
			verb = "Pull"
			if _, err := fmt.Sscanf(between2(envelope, "<n:EnumerationContext>", "<"), "uuid:%d", &n); err != nil {
				return soapFault(0x80338084)
			}
		}
		if n == len(names)-1 {
			end = "<n:EndOfSequence/>"
			if verb == "Enumerate" {
				end = "<w:EndOfSequence/>"
			}
		}
		return http.StatusOK, soap(fmt.Sprintf(`<n:%sResponse><n:EnumerationContext>uuid:%d</n:EnumerationContext><w:Items>`+process+`</w:Items>%s</n:%[1]sResponse>`,
			verb, n+1, names[n], end))
	}
}

func between2(s, from, to string) string {
	_, s, _ = strings.Cut(s, from)
	s, _, _ = strings.Cut(s, to)
	return s
}

var processes = Query{Namespace: "root/cimv2", WQL: "SELECT Name FROM Win32_Process"}

func names(t *testing.T, c *Client) string {
	t.Helper()
	all, err := c.All(t.Context(), processes)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, i := range all {
		list = append(list, i.Text("Name"))
	}
	return strings.Join(list, " ")
}

func TestSealedNTLM(t *testing.T) {
	w := newWindows(t, false, pages("Marker-one", "Marker-two", "Marker-three"))
	c := w.client(t)
	for range 3 {
		if got := names(t, c); got != "Marker-one Marker-two Marker-three" {
			t.Fatalf("got %s", got)
		}
	}
	if n := w.logins(); n != 1 {
		t.Errorf("%d handshakes for 9 messages, one after the other", n)
	}
	if tr := c.Traffic(); tr.Requests != 9 || tr.Sent == 0 || tr.Received == 0 {
		t.Errorf("traffic is %+v", tr)
	}
	noSecret(t, w.onWire())
}

// noSecret holds that nothing that went over a plain connection tells a password or a message.
func noSecret(t *testing.T, wire string) {
	t.Helper()
	if !strings.Contains(wire, "POST /wsman") {
		t.Fatal("nothing went over the wire: nothing was tried")
	}
	basic := base64.StdEncoding.EncodeToString([]byte(testUser + ":" + testPassword))
	for _, secret := range []string{"Marker", testPassword, string(utf16le("Marker")), basic, "Authorization: Basic", "Envelope", "SELECT"} {
		if strings.Contains(wire, secret) {
			t.Errorf("%q went readable over a plain connection", secret)
		}
	}
	for _, token := range regexp.MustCompile(`Negotiate ([A-Za-z0-9+/=]+)`).FindAllStringSubmatch(wire, -1) {
		if b, err := base64.StdEncoding.DecodeString(token[1]); err != nil || strings.Contains(string(b), string(utf16le("Marker"))) {
			t.Errorf("a token tells the password: %q %v", b, err)
		}
	}
}

// TestNothingReadableEver takes a client through what makes others fall back to plain text.
func TestNothingReadableEver(t *testing.T) {
	status := func(n int) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(n); return true }
	}
	onProof := func(f func(http.ResponseWriter)) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			token, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(r.Header.Get("Authorization"), "Negotiate "))
			if len(token) > 8 && token[8] == 3 {
				f(w)
				return true
			}
			return false
		}
	}
	for _, c := range []struct {
		name   string
		before func(http.ResponseWriter, *http.Request) bool
		change func(*windows)
		want   error
	}{
		{"503 to the hello", status(503), nil, ErrUnavailable},
		{"200 to the hello", status(200), nil, ErrUnavailable},
		{"302 to the hello", status(302), nil, ErrUnavailable},
		{"only Basic is offered", func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("WWW-Authenticate", `Basic realm="WSMAN"`)
			w.WriteHeader(401)
			return true
		}, nil, ErrUnavailable},
		{"503 to the proof", onProof(func(w http.ResponseWriter) { w.WriteHeader(503) }), nil, ErrUnavailable},
		{"the connection is closed after the proof", onProof(func(w http.ResponseWriter) { w.Header().Set("Connection", "close") }), nil, ErrUnavailable},
		{"a challenge without sealing", nil, func(w *windows) { w.offers &^= 0x20 }, nil},
		{"a challenge of 56 bits", nil, func(w *windows) { w.offers &^= 0x20000000 }, nil},
		{"a challenge without extended security", nil, func(w *windows) { w.offers &^= 0x80000 }, nil},
		{"another password", nil, func(w *windows) { w.password = "x" }, ErrCredentials},
		{"garbage as a challenge", func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("WWW-Authenticate", "Negotiate "+base64.StdEncoding.EncodeToString([]byte("NTLMSSP\x00\x02\x00\x00\x00"+strings.Repeat("\xff", 40))))
			w.WriteHeader(401)
			return true
		}, nil, nil},
		{"an answer that is not sealed", nil, nil, nil},
	} {
		w := newWindows(t, false, pages("Marker"))
		w.before = c.before
		if c.change != nil {
			c.change(w)
		}
		if c.name == "an answer that is not sealed" {
			w.before = func(rw http.ResponseWriter, r *http.Request) bool {
				if r.ContentLength < 500 {
					return false
				}
				rw.Header().Set("Content-Type", soapType)
				_, _ = io.WriteString(rw, "<x/>")
				return true
			}
		}
		client := w.client(t)
		_, err := client.All(t.Context(), processes)
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "Marker&1") {
			t.Errorf("%s: the password is in the error: %v", c.name, err)
		}
		noSecret(t, w.onWire())
	}
}

func TestBasicIsForHTTPS(t *testing.T) {
	w := newWindows(t, true, pages("one"))
	if got := names(t, w.client(t, func(o *Options) { o.Auth = Basic })); got != "one" {
		t.Errorf("got %s", got)
	}
	plain := newWindows(t, false, pages("one"))
	opts := Options{URL: plain.URL, Auth: Basic, Username: testUser, Password: func() (string, error) { return testPassword, nil }}
	if _, err := New(opts); err == nil || !strings.Contains(err.Error(), "readable") {
		t.Errorf("basic over plain http: %v", err)
	}
	if got := names(t, plain.client(t, func(o *Options) { o.Auth, o.AllowPlainBasic = Basic, true })); got != "one" {
		t.Errorf("asked for by name: %s", got)
	}
}

func TestNTLMOverHTTPSIsBoundToIt(t *testing.T) {
	w := newWindows(t, true, pages("one", "two"))
	c := w.client(t)
	if got := names(t, c); got != "one two" {
		t.Fatalf("got %s", got)
	}
	cert := sha256.Sum256(w.Certificate().Raw)
	data := append([]byte("tls-server-end-point:"), cert[:]...)
	bindings := append(make([]byte, 16), binary.LittleEndian.AppendUint32(nil, uint32(len(data)))...)
	if want := md5.Sum(append(bindings, data...)); string(w.bindings) != string(want[:]) {
		t.Errorf("bound to %x, want %x", w.bindings, want)
	}
}

func TestTLSSettingsHold(t *testing.T) {
	w := newWindows(t, true, pages("one"))
	strict := w.client(t, func(o *Options) { o.TLS.InsecureSkipVerify = false })
	if _, err := strict.All(t.Context(), processes); err == nil || !errors.Is(err, ErrNotSent) && !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown certificate: %v", err)
	}
	pem := pemOf(w.Certificate().Raw)
	named := w.client(t, func(o *Options) {
		o.TLS.InsecureSkipVerify, o.TLS.CA, o.TLS.ServerName = false, pem, "example.com"
	})
	if got := names(t, named); got != "one" {
		t.Errorf("got %s", got)
	}
	misnamed := w.client(t, func(o *Options) {
		o.TLS.InsecureSkipVerify, o.TLS.CA, o.TLS.ServerName = false, pem, "other.test"
	})
	if _, err := misnamed.All(t.Context(), processes); err == nil || !strings.Contains(err.Error(), "other.test") {
		t.Errorf("a certificate of another name: %v", err)
	}
}

func pemOf(der []byte) string {
	return "-----BEGIN CERTIFICATE-----\n" + base64.StdEncoding.EncodeToString(der) + "\n-----END CERTIFICATE-----\n"
}

func TestPasswordIsReadAtEachLogin(t *testing.T) {
	w := newWindows(t, false, pages("one"))
	var password atomic.Value
	password.Store(testPassword)
	logins := &Logins{}
	c := w.client(t, func(o *Options) {
		o.Password = func() (string, error) { return password.Load().(string), nil }
		o.Logins = logins
	})
	names(t, c)
	w.setPassword("second-Marker")
	w.CloseClientConnections()
	refused := func(n int) {
		t.Helper()
		if _, err := c.All(t.Context(), processes); !errors.Is(err, ErrCredentials) {
			t.Fatalf("attempt %d: %v", n, err)
		}
	}
	before := strings.Count(w.onWire(), "Negotiate TlRM")
	for n := range 5 {
		refused(n)
	}
	if n := strings.Count(w.onWire(), "Negotiate TlRM") - before; n > 6 {
		t.Errorf("%d tokens for five attempts with one wrong password: it was tried more than once", n)
	}
	password.Store("second-Marker")
	if got := names(t, c); got != "one" {
		t.Errorf("after the file was rotated: %s", got)
	}
}

func TestOneWrongPasswordIsTriedAtOneHost(t *testing.T) {
	for _, auth := range []Auth{NTLM, Basic} {
		t.Run(string(auth), func(t *testing.T) { oneHost(t, auth) })
	}
}

func oneHost(t *testing.T, auth Auth) {
	var hosts []*windows
	logins := &Logins{patience: time.Hour}
	var wg sync.WaitGroup
	for range 8 {
		w := newWindows(t, false, pages("one"))
		w.setPassword("another")
		hosts = append(hosts, w)
		c := w.client(t, func(o *Options) { o.Logins, o.Auth, o.AllowPlainBasic = logins, auth, auth == Basic })
		wg.Go(func() {
			if _, err := c.All(t.Context(), processes); !errors.Is(err, ErrCredentials) || !c.Refused() {
				t.Errorf("got %v, refused: %v", err, c.Refused())
			}
		})
	}
	wg.Wait()
	tried := 0
	for _, w := range hosts {
		if strings.Contains(w.onWire(), "POST") {
			tried++
		}
	}
	if tried != 1 {
		t.Errorf("the wrong password went to %d hosts", tried)
	}
}

// TestLoginsAreOfOneSecret: a lone attempt is waited for by who has the same secret and by nobody else; one that hangs makes room for one other;
// a secret is held back longer each time.
func TestLoginsAreOfOneSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, b := &Logins{}, secret{1}, secret{2}
		enter := func(s secret) func(error) {
			t.Helper()
			leave, err := l.enter(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			return leave
		}
		hangs := enter(a)
		enter(b)(nil) // at once
		began := time.Now()
		second := enter(a)
		if waited := time.Since(began); waited != defaultPatience {
			t.Errorf("it waited %s for one that hangs, want %s", waited, defaultPatience)
		}
		third := make(chan error, 1)
		go func() {
			leave, err := l.enter(t.Context(), a)
			if err == nil {
				leave(nil)
			}
			third <- err
		}()
		synctest.Wait()
		if len(third) > 0 {
			t.Error("two were let in for one that hangs")
		}
		refused := &refusal{"u"}
		second(refused)
		if err := <-third; !errors.Is(err, ErrCredentials) {
			t.Errorf("after a refusal: %v", err)
		}
		hangs(refused) // at the same time, as it were
		for _, held := range []time.Duration{holdOff, 2 * holdOff, 4 * holdOff, 8 * holdOff, longestHoldOff, longestHoldOff} {
			time.Sleep(held - time.Second)
			if _, err := l.enter(t.Context(), a); !errors.Is(err, ErrCredentials) {
				t.Fatalf("sent before %s were over: %v", held, err)
			}
			time.Sleep(time.Second)
			enter(a)(refused)
		}
		time.Sleep(longestHoldOff)
		enter(a)(nil)
		time.Sleep(time.Hour)
		enter(a)(refused)
		time.Sleep(holdOff)
		enter(a)(nil)
	})
}

func TestPagesAndRelease(t *testing.T) {
	w := newWindows(t, false, pages("one", "two", "three"))
	stop := errors.New("enough")
	err := w.client(t).Enumerate(t.Context(), processes, func(i Instance) error {
		if i.Text("Name") == "two" {
			return stop
		}
		return nil
	})
	if err != stop {
		t.Errorf("got %v", err)
	}
	last := w.seen[len(w.seen)-1]
	if len(w.seen) != 3 || !strings.Contains(last, "<n:Release><n:EnumerationContext>uuid:2</n:EnumerationContext></n:Release>") {
		t.Errorf("%d messages, the last is %s", len(w.seen), last)
	}
}

func TestTooLargeIsAskedForInPieces(t *testing.T) {
	var asked []string
	w := newWindows(t, false, func(ctx context.Context, envelope string) (int, string) {
		n := between2(envelope, "MaxElements>", "<")
		asked = append(asked, n)
		if len(n) > 2 {
			return soapFault(0x80338048)
		}
		return pages("one", "two")(ctx, envelope)
	})
	c := w.client(t)
	for _, want := range []string{"20000 512 64 64", "64 64"} {
		asked = nil
		if got := names(t, c); got != "one two" {
			t.Errorf("got %s", got)
		}
		if got := strings.Join(asked, " "); got != want {
			t.Errorf("asked for %s, want %s", got, want)
		}
	}
	w.answer = func(context.Context, string) (int, string) { return soapFault(0x80338048) }
	if _, err := w.client(t).All(t.Context(), processes); !errors.Is(err, ErrTooLarge) {
		t.Errorf("one instance that is too large: %v", err)
	}
}

func TestAnswersThatNeverEnd(t *testing.T) {
	for name, body := range map[string]string{
		"no context":  `<n:EnumerateResponse/>`,
		"nothing yet": `<n:PullResponse><n:EnumerationContext>1</n:EnumerationContext></n:PullResponse>`,
	} {
		w := newWindows(t, false, func(context.Context, string) (int, string) { return 200, soap(body) })
		if _, err := w.client(t).All(t.Context(), processes); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w := newWindows(t, false, func(context.Context, string) (int, string) {
		return 200, strings.Repeat("<x>", 1<<20)
	})
	c := w.client(t, func(o *Options) { o.MaxEnvelope = 100_000 })
	if _, err := c.All(t.Context(), processes); err == nil || !strings.Contains(err.Error(), "larger than it may be") {
		t.Errorf("an endless answer: %v", err)
	}
}

func TestHungHostHoldsNobodyUp(t *testing.T) {
	hung := newWindows(t, false, func(ctx context.Context, _ string) (int, string) {
		<-ctx.Done()
		return 200, ""
	})
	well := newWindows(t, false, pages("one"))
	logins := &Logins{}
	share := func(o *Options) { o.Logins, o.MaxConnections = logins, 1 }
	slow, fine := hung.client(t, share), well.client(t, share)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			begin := time.Now()
			if _, err := slow.All(ctx, processes); !IsTimeout(err) || time.Since(begin) > 10*time.Second {
				t.Errorf("after %s: %v", time.Since(begin), err)
			}
		})
	}
	if got := names(t, fine); got != "one" {
		t.Errorf("got %s", got)
	}
	wg.Wait()
}

func TestAcceptsAndSaysNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, scheme := range []string{"http", "https"} {
		c, err := New(Options{URL: scheme + "://" + l.Addr().String(), Username: testUser, Password: func() (string, error) { return testPassword, nil }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_, err = Invoke(ctx, c, Ref{Namespace: "root/cimv2", Class: "X"}, "Do", nil)
		cancel()
		if !IsTimeout(err) || !errors.Is(err, ErrNotSent) {
			t.Errorf("%s: %v", scheme, err)
		}
		c.Close()
	}
}

func TestCloseEndsCalls(t *testing.T) {
	began := make(chan struct{})
	w := newWindows(t, false, func(ctx context.Context, _ string) (int, string) {
		close(began)
		<-ctx.Done()
		return 200, ""
	})
	c := w.client(t)
	done := make(chan error)
	go func() {
		_, err := c.All(t.Context(), processes)
		done <- err
	}()
	<-began
	c.Close()
	if err := <-done; err == nil {
		t.Error("a call outlived its client")
	}
	if _, err := c.All(t.Context(), processes); !errors.Is(err, errClosed) {
		t.Errorf("a call after the end: %v", err)
	}
}

// TestInvokeIsSentOnce cuts the connection after a method has run, and before.
func TestInvokeIsSentOnce(t *testing.T) {
	var ran atomic.Int32
	w := newWindows(t, false, func(_ context.Context, envelope string) (int, string) {
		if strings.Contains(envelope, "_INPUT") {
			ran.Add(1)
			panic(http.ErrAbortHandler)
		}
		return pages("one")(nil, envelope)
	})
	c := w.client(t)
	names(t, c)
	_, err := Invoke(t.Context(), c, Ref{Namespace: "root/mscluster", Class: "MSCluster_ResourceGroup"}, "MoveToNewNodeParams", nil)
	if err == nil || errors.Is(err, ErrNotSent) || ran.Load() != 1 {
		t.Errorf("cut off after it ran: %v, ran %d times", err, ran.Load())
	}
	w.Close()
	if _, err = Invoke(t.Context(), c, Ref{Namespace: "root/mscluster", Class: "MSCluster_ResourceGroup"}, "MoveToNewNodeParams", nil); !errors.Is(err, ErrNotSent) || ran.Load() != 1 {
		t.Errorf("nobody there: %v, ran %d times", err, ran.Load())
	}
	if _, err = Invoke(t.Context(), c, Ref{Namespace: "root/mscluster", Class: "A"}, "Do<", nil); !errors.Is(err, ErrNotSent) {
		t.Errorf("no method's name: %v", err)
	}
}

// TestKeptConnectionThatDied has the host close a connection between two questions.
func TestKeptConnectionThatDied(t *testing.T) {
	w := newWindows(t, false, pages("one"))
	c := w.client(t)
	for range 3 {
		names(t, c)
		w.mu.Lock()
		for _, conn := range w.conns {
			conn.Close()
		}
		w.mu.Unlock()
	}
	if n := w.logins(); n != 3 {
		t.Errorf("%d log-ins", n)
	}
}

func TestParallelCallsDoNotMix(t *testing.T) {
	w := newWindows(t, false, func(_ context.Context, envelope string) (int, string) {
		name := between2(envelope, `Name="Name">`, "<")
		return 200, soap(`<p:X xmlns:p="u"><p:Name>` + name + `</p:Name></p:X>`)
	})
	c := w.client(t)
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			for m := range 20 {
				want := fmt.Sprint(n, "-", m)
				got, err := c.Get(t.Context(), Ref{"root/cimv2", "X", map[string]string{"Name": want}})
				if err != nil || got.Text("Name") != want {
					t.Errorf("got %s, %v, want %s", got.Text("Name"), err, want)
				}
			}
		})
	}
	wg.Wait()
	if n := w.logins(); n > DefaultMaxConnections {
		t.Errorf("%d connections, at most %d", n, DefaultMaxConnections)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	password := func() (string, error) { return "x", nil }
	for _, c := range []struct {
		name string
		opts Options
		want string
	}{
		{"no scheme", Options{URL: "host"}, "write https://"},
		{"another scheme", Options{URL: "ftp://host"}, "not a URL"},
		{"a password in the URL", Options{URL: "https://u:Marker@host", Username: "u", Password: password}, "belong elsewhere"},
		{"nobody", Options{URL: "https://host"}, "needed"},
		{"kerberos over http", Options{URL: "http://host", Auth: Kerberos}, "not sealed"},
		{"kerberos without a realm", Options{URL: "https://host", Auth: Kerberos, Username: "u", Password: password}, "realm"},
		{"certificate over http", Options{URL: "http://host", Auth: Certificate}, "use https"},
		{"certificate without one", Options{URL: "https://host", Auth: Certificate}, "needed"},
		{"an unknown way", Options{URL: "https://host", Auth: "credssp"}, "no way to log in"},
	} {
		_, err := New(c.opts)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "Marker") {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
