package web

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"
)

const (
	annasPassword = "correct battery horse"
	viewerToken   = "a-long-token-of-a-program"
)

// closed serves to users only: anna acts and eve reads, by password; a program reads, by token; ivan acts, by certificate.
func closed(t testing.TB, agent Agent) Options {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(annasPassword), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	o := options(agent)
	o.Access = func() Access {
		return Access{
			Accounts: map[string]Account{"anna": {Operator, string(hash)}, "eve": {Viewer, string(hash)}},
			Tokens:   map[[sha256.Size]byte]User{sha256.Sum256([]byte(viewerToken)): {"program", Viewer}},
			Subjects: map[string]User{"CN=ivan,OU=ops": {"ivan", Operator}},
		}
	}
	return o
}

// logIn sends the login form.
func logIn(h http.Handler, name, password, next string, edit ...func(*http.Request)) *httptest.ResponseRecorder {
	return form(h, "/login", url.Values{"name": {name}, "password": {password}, "next": {next}}, edit...)
}

func form(h http.Handler, target string, fields url.Values, edit ...func(*http.Request)) *httptest.ResponseRecorder {
	edit = append(edit, func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") })
	return do(h, "POST", target, fields.Encode(), edit...)
}

// withCookies sends the cookies that an answer set.
func withCookies(w *httptest.ResponseRecorder) func(*http.Request) {
	return func(r *http.Request) {
		for _, c := range w.Result().Cookies() {
			r.AddCookie(c)
		}
	}
}

func TestLogIn(t *testing.T) {
	agent := hotAgent(t)
	h := New(closed(t, agent))

	w := do(h, "GET", "/?refresh=5", "")
	if at := w.Header().Get("Location"); w.Code != 303 || at != "/login?next=%2F%3Frefresh%3D5" {
		t.Fatalf("a page: %d to %q, want the login form", w.Code, at)
	}
	if w := do(h, "GET", "/login?next=%2F%3Frefresh%3D5", ""); w.Code != 200 || !strings.Contains(w.Body.String(), `value="/?refresh=5"`) {
		t.Fatalf("login form: %d %s", w.Code, w.Body)
	}
	w = logIn(h, "anna", annasPassword, "/?refresh=5")
	if at := w.Header().Get("Location"); w.Code != 303 || at != "/?refresh=5" {
		t.Fatalf("log in: %d to %q %s", w.Code, at, w.Body)
	}
	c := w.Result().Cookies()[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Secure || c.Path != "/" || c.Domain != "" {
		t.Errorf("cookie: %s", c)
	}
	if w := do(h, "GET", "/", "", withCookies(w)); w.Code != 200 {
		t.Errorf("the page, logged in: %d", w.Code)
	}
	if got := do(h, "POST", "/api/v1/pause", "", withCookies(w)); got.Code != 200 || agent.taken()[0] != "pause  by anna because" {
		t.Errorf("pause: %d, acts %q", got.Code, agent.taken())
	}
	if got := do(h, "POST", "/api/v1/pause", "", withCookies(w), crossSite); got.Code != 403 {
		t.Errorf("pause by a page of another site: %d", got.Code)
	}
	if out := do(h, "POST", "/logout", "", withCookies(w)); out.Code != 303 || out.Result().Cookies()[0].MaxAge >= 0 {
		t.Errorf("log out: %d %v", out.Code, out.Result().Cookies())
	}
	if got := do(h, "POST", "/api/v1/pause", "", withCookies(w)); got.Code != 401 || !strings.Contains(got.Body.String(), "session has ended") {
		t.Errorf("after logging out: %d %s", got.Code, got.Body)
	}
}

func TestLogInByToken(t *testing.T) {
	h := New(closed(t, hotAgent(t)))
	for secret, want := range map[string]int{token: 200, viewerToken: 403} {
		w := logIn(h, "", secret, "")
		if w.Code != 303 {
			t.Fatalf("log in: %d %s", w.Code, w.Body)
		}
		if got := do(h, "POST", "/api/v1/pause", "", withCookies(w)); got.Code != want {
			t.Errorf("pause: %d, want %d", got.Code, want)
		}
	}
}

func TestWrongLogins(t *testing.T) {
	h := New(closed(t, hotAgent(t)))
	for _, tc := range []struct{ name, password string }{
		{"anna", "wrong battery horse"},
		{"anna", ""},
		{"anna", annasPassword + strings.Repeat("x", 72)},
		{"nobody", annasPassword},
		{"", annasPassword},
		{"", ""},
		{"operator token", token},
		{"program", viewerToken},
	} {
		w := logIn(h, tc.name, tc.password, "", func(r *http.Request) { r.RemoteAddr = "198.51.100.7:1" })
		if w.Code != 401 || !strings.Contains(w.Body.String(), "Wrong name or password") || len(w.Result().Cookies()) > 0 {
			t.Errorf("%q, %q: %d %s", tc.name, tc.password, w.Code, w.Body)
		}
	}
	if w := logIn(h, "anna", annasPassword, "", crossSite); w.Code != 403 {
		t.Errorf("login by a page of another site: %d", w.Code)
	}
}

// TestNextIsLocal: the login form leads nowhere else.
func TestNextIsLocal(t *testing.T) {
	h := New(closed(t, hotAgent(t)))
	for next, want := range map[string]string{
		"/tips?state=active": "/tips?state=active", "": "/", "//evil.example": "/", "https://evil.example": "/", `/\evil.example`: "/",
		"/\t/evil.example": "/", "javascript:alert(1)": "/", "evil.example": "/", "/%zz": "/", "/" + strings.Repeat("x", 3000): "/",
		"/a//b": "/a//b",
	} {
		if at := logIn(h, "anna", annasPassword, next).Header().Get("Location"); at != want {
			t.Errorf("next %q leads to %q, want %q", next, at, want)
		}
	}
}

// TestSessionsRestOnTheirProof: who leaves, changes the password or gets another role does so at once.
func TestSessionsRestOnTheirProof(t *testing.T) {
	agent := hotAgent(t)
	o := closed(t, agent)
	access, secret := o.Access(), token
	o.Access = func() Access { return access }
	o.OperatorToken = func() (string, error) { return secret, nil }
	h := New(o)
	anna, operator, program := logIn(h, "anna", annasPassword, ""), logIn(h, "", token, ""), logIn(h, "", viewerToken, "")
	pause := func(session *httptest.ResponseRecorder) int {
		return do(h, "POST", "/api/v1/pause", "", withCookies(session)).Code
	}

	was := access.Accounts["anna"]
	access.Accounts["anna"] = Account{Viewer, was.Bcrypt}
	if got := pause(anna); got != 403 {
		t.Errorf("who is a viewer now: %d", got)
	}
	hash, _ := bcrypt.GenerateFromPassword([]byte("another"), bcrypt.MinCost)
	access.Accounts["anna"] = Account{Operator, string(hash)}
	if got := pause(anna); got != 401 {
		t.Errorf("with a changed password: %d", got)
	}
	access.Accounts["anna"] = was
	if got := pause(anna); got != 401 {
		t.Errorf("a session came back: %d", got)
	}
	if got := pause(operator); got != 200 {
		t.Errorf("session of the operator token: %d", got)
	}
	secret = "rotated"
	if got := pause(operator); got != 401 {
		t.Errorf("session of a rotated token: %d", got)
	}
	clear(access.Tokens)
	if got := do(h, "GET", "/api/v1/status", "", withCookies(program)).Code; got != 401 {
		t.Errorf("session of a removed token: %d", got)
	}
}

func TestSessionsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(closed(t, hotAgent(t)))
		w := logIn(h, "eve", annasPassword, "")
		time.Sleep(sessionLife - time.Second)
		if got := do(h, "GET", "/api/v1/status", "", withCookies(w)).Code; got != 200 {
			t.Errorf("before its end: %d", got)
		}
		time.Sleep(2 * time.Second)
		if got := do(h, "GET", "/api/v1/status", "", withCookies(w)).Code; got != 401 {
			t.Errorf("after its end: %d", got)
		}
	})
}

func TestSessionsAreBounded(t *testing.T) {
	s := newSessions()
	first := s.begin("anna", proof{name: "anna"})
	for range maxUserSessions {
		s.begin("eve", proof{name: "eve"})
	}
	eves := s.begin("eve", proof{})
	if _, ok := s.find(first); !ok || len(s.byID) != maxUserSessions+1 {
		t.Errorf("one user's sessions ended another's: %d are left", len(s.byID))
	}
	for i := range 2 * maxSessions {
		s.begin(strings.Repeat("x", i), proof{})
	}
	if _, ok := s.find(eves); ok || len(s.byID) != maxSessions {
		t.Errorf("%d sessions", len(s.byID))
	}
}

// TestGuessesAreSlowed: neither one address nor one name can be tried at will, and who is right is not in the way of who is not.
func TestGuessesAreSlowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(closed(t, hotAgent(t)))
		from := func(address string) func(*http.Request) { return func(r *http.Request) { r.RemoteAddr = address } }
		for i := range 10 {
			if w := logIn(h, "anna", "wrong", "", from("[2001:db8::1]:1")); w.Code != 401 {
				t.Fatalf("guess %d: %d", i, w.Code)
			}
		}
		w := logIn(h, "anna", annasPassword, "", from("[2001:db8::2]:1")) // the same network
		if w.Code != 429 || w.Header().Get("Retry-After") != "30" || !strings.Contains(w.Body.String(), "too many failed logins") {
			t.Errorf("one guess too many: %d, retry after %q", w.Code, w.Header().Get("Retry-After"))
		}
		for range 50 {
			if w := logIn(h, "anna", annasPassword, "", from("192.0.2.1:1")); w.Code != 303 {
				t.Fatalf("the right password from elsewhere: %d", w.Code)
			}
		}
		guess := func(i int) int {
			return logIn(h, "anna", "wrong", "", from("198.51.100."+string(rune('0'+i%10))+":1")).Code
		}
		for i := range 20 {
			if got := guess(i); got != 401 {
				t.Fatalf("guess %d from many addresses: %d", i, got)
			}
		}
		if got := guess(1); got != 429 {
			t.Errorf("one guess too many of one name: %d", got)
		}
		time.Sleep(31 * time.Second)
		if w := logIn(h, "anna", annasPassword, "", from("[2001:db8::1]:1")); w.Code != 303 {
			t.Errorf("a while later: %d", w.Code)
		}
	})
}

func TestGuessedTokensAreSlowed(t *testing.T) {
	h := New(closed(t, hotAgent(t)))
	for range 10 {
		if w := do(h, "GET", "/api/v1/status", "", bearer("guess")); w.Code != 401 {
			t.Fatalf("guess: %d", w.Code)
		}
	}
	if w := do(h, "GET", "/api/v1/status", "", bearer("guess")); w.Code != 429 || w.Header().Get("Retry-After") == "" {
		t.Errorf("one guess too many: %d %s", w.Code, w.Body)
	}
	if w := do(h, "GET", "/api/v1/status", "", bearer(viewerToken)); w.Code != 200 {
		t.Errorf("the right token after them: %d", w.Code)
	}
}

func TestTicket(t *testing.T) {
	agent := hotAgent(t)
	o := options(agent)
	o.Ticket = "one-time"
	h := New(o)
	if w := do(h, "HEAD", "/login?ticket=one-time", ""); len(w.Result().Cookies()) > 0 {
		t.Error("a HEAD logged in")
	}
	if w := do(h, "GET", "/login?ticket=wrong", ""); w.Code != 200 || len(w.Result().Cookies()) > 0 {
		t.Errorf("a wrong ticket: %d", w.Code)
	}
	w := do(h, "GET", "/login?ticket=one-time", "")
	if w.Code != 303 || w.Header().Get("Location") != "/" {
		t.Fatalf("ticket: %d %s", w.Code, w.Body)
	}
	if got := do(h, "POST", "/api/v1/pause", "", withCookies(w)); got.Code != 200 || agent.taken()[0] != "pause  by one-time login because" {
		t.Errorf("pause: %d %q", got.Code, agent.taken())
	}
	if w := do(h, "GET", "/login?ticket=one-time", ""); w.Code != 200 || len(w.Result().Cookies()) > 0 || !strings.Contains(w.Body.String(), "used already") {
		t.Errorf("a second time: %d %s", w.Code, w.Body)
	}
	o.Ticket = ""
	if w := do(New(o), "GET", "/login?ticket=", ""); len(w.Result().Cookies()) > 0 {
		t.Error("no ticket logged in")
	}
}

// TestCertificates: only a certificate that the server has verified names its owner.
func TestCertificates(t *testing.T) {
	h := New(closed(t, hotAgent(t)))
	cert := &x509.Certificate{Subject: pkix.Name{CommonName: "ivan", OrganizationalUnit: []string{"ops"}}}
	stranger := &x509.Certificate{Subject: pkix.Name{CommonName: "ivan"}}
	for name, tc := range map[string]struct {
		state tls.ConnectionState
		want  int
	}{
		"verified":            {tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}, VerifiedChains: [][]*x509.Certificate{{cert}}}, 200},
		"not verified":        {tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}, 401},
		"of somebody unknown": {tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{stranger}}}, 401},
	} {
		w := do(h, "POST", "/api/v1/pause", "", func(r *http.Request) { r.TLS = &tc.state })
		if w.Code != tc.want {
			t.Errorf("%s: %d, want %d", name, w.Code, tc.want)
		}
	}
	w := logIn(h, "eve", annasPassword, "", func(r *http.Request) { r.TLS = &tls.ConnectionState{} })
	if c := w.Result().Cookies()[0]; !c.Secure || !strings.HasPrefix(c.Name, "__Host-") {
		t.Errorf("cookie over TLS: %s", c)
	}
}

// TestPages: routes of other packages pass the same guard.
func TestPages(t *testing.T) {
	o := closed(t, hotAgent(t))
	var by By
	o.Pages = []Route{
		{Method: "GET", Path: "/page", Needs: Viewer, Page: true, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			plain(w, 200, "hello "+UserFrom(r.Context()).Name)
		})},
		Form("/do/{id}", func(_ context.Context, b By, r *http.Request) (string, error) {
			by = b
			return "/page?id=" + r.PathValue("id"), map[string]error{"bad": badData("no such thing")}[r.PathValue("id")]
		}),
	}
	o.ShowError = func(w http.ResponseWriter, _ *http.Request, code int, text string) { plain(w, code, "<h1>"+text) }
	h := New(o)
	anna, eve := logIn(h, "anna", annasPassword, ""), logIn(h, "eve", annasPassword, "")
	why := url.Values{"why": {" because "}, "next": {"/page"}}

	if w := do(h, "GET", "/page", "", withCookies(eve)); w.Body.String() != "hello eve\n" {
		t.Errorf("page: %d %s", w.Code, w.Body)
	}
	for _, tc := range []struct {
		name, target string
		edit         func(*http.Request)
		code         int
		at, body     string
	}{
		{"nobody", "/do/x", func(*http.Request) {}, 303, "/login?next=%2Fpage", ""},
		{"a viewer", "/do/x", withCookies(eve), 403, "", "<h1>eve has the role viewer"},
		{"another site", "/do/x", func(r *http.Request) { withCookies(anna)(r); crossSite(r) }, 403, "", "another origin"},
		{"an operator", "/do/x", withCookies(anna), 303, "/page?id=x", ""},
		{"an error", "/do/bad", withCookies(anna), 400, "", "<h1>no such thing"},
	} {
		by = By{}
		w := form(h, tc.target, why, tc.edit)
		if w.Code != tc.code || w.Header().Get("Location") != tc.at || !strings.Contains(w.Body.String(), tc.body) {
			t.Errorf("%s: %d to %q %s", tc.name, w.Code, w.Header().Get("Location"), w.Body)
		}
		if acted := by.Who != ""; acted != (tc.name == "an operator" || tc.name == "an error") || acted && (by.Who != "anna" || by.Why != "because") {
			t.Errorf("%s: by %+v", tc.name, by)
		}
	}
}
