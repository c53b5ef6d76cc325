package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"time"
)

var (
	//go:embed login.html
	loginHTML string
	//go:embed login.css
	loginCSS string
)

var loginTemplate = template.Must(template.New("login").Parse(loginHTML))

// At most passwordChecks passwords are compared at a time, each for some tenths of a second of a CPU; who waits longer is told to come again.
const (
	passwordChecks   = 2
	passwordPatience = 5 * time.Second
)

// loginView is what the login form shows.
type loginView struct {
	User    User   // who is logged in already
	Name    string // as it was typed
	Next    string // where to go then
	Message string // what went wrong
}

// showLogin is the form. A one-time ticket logs in at once.
func (s *server) showLogin(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	view := loginView{User: UserFrom(r.Context()), Next: localPath(q.Get("next"))}
	if ticket := q.Get("ticket"); ticket != "" && r.Method == http.MethodGet {
		if s.useTicket(ticket) {
			s.logIn(w, r, User{ticketName, Operator}, proof{kind: byTicket}, view.Next)
			return
		}
		view.Message = "This link was used already, or is of another run."
	}
	s.loginPage(w, r, http.StatusOK, view)
}

// useTicket reports whether it is the ticket; there is no second time.
func (s *server) useTicket(ticket string) bool {
	want := s.ticket.Load()
	return want != nil && *want != "" && equalSecrets(ticket, *want) && s.ticket.CompareAndSwap(want, nil)
}

// login takes the form: a name and a password, or a token alone.
func (s *server) login(w http.ResponseWriter, r *http.Request) {
	if err := parseForm(r); err != nil {
		s.pageError(w, r, err)
		return
	}
	name, secret := strings.TrimSpace(r.PostFormValue("name")), r.PostFormValue("password")
	view := loginView{Name: name, Next: localPath(r.PostFormValue("next"))}
	u, p, refusal := s.check(w, r, name, secret)
	if refusal != nil {
		s.audits.refused(r, "", "login", s.claimed(name), refusal)
		view.Message = refusal.text
		s.loginPage(w, r, refusal.code, view)
		return
	}
	s.logIn(w, r, u, p, view.Next)
}

var errWrongLogin = &apiError{http.StatusUnauthorized, "unauthorized", "Wrong name or password.", nil}

// check is whose name and secret these are. Every try counts against address and name until it was right.
func (s *server) check(w http.ResponseWriter, r *http.Request, name, secret string) (u User, p proof, refusal *apiError) {
	remote := remoteKey(r)
	if wait := s.guesses.byRemote.take(remote); wait > 0 {
		return u, p, tooMany(w, wait)
	}
	var ok bool
	if name == "" {
		p = proof{kind: byToken, sum: sha256.Sum256([]byte(strings.TrimSpace(secret)))}
		u, ok = s.tokenUser(p.sum)
	} else {
		if wait := s.guesses.byName.take(name); wait > 0 {
			return u, p, tooMany(w, wait)
		}
		if !s.checks.enter(r.Context()) {
			w.Header().Set("Retry-After", "5")
			return u, p, &apiError{http.StatusServiceUnavailable, "unavailable", "Too many log in at the same time: try again.", nil}
		}
		access := s.access()
		u, ok = access.password(name, secret)
		p = proof{kind: byPassword, name: name, sum: sha256.Sum256([]byte(access.Accounts[name].Bcrypt))}
		s.checks.leave()
	}
	if !ok {
		return u, p, errWrongLogin
	}
	s.guesses.byRemote.giveBack(remote)
	s.guesses.byName.giveBack(name)
	return u, p, nil
}

// claimed is the name of a failed login, for the audit. One that nobody has is not kept: it may be a password in the wrong field.
func (s *server) claimed(name string) string {
	if _, known := s.access().Accounts[name]; known || name == "" {
		return name
	}
	return "unknown name"
}

// logIn begins a session; one that the browser had ends.
func (s *server) logIn(w http.ResponseWriter, r *http.Request, u User, p proof, next string) {
	s.sessions.end(sessionID(r))
	setSession(w, r, s.sessions.begin(u.Name, p), sessionLife)
	s.agent.Note(r.Context(), By{Who: u.Name, Remote: r.RemoteAddr}, "login", "", nil)
	seeOther(w, next)
}

func (s *server) logout(w http.ResponseWriter, r *http.Request) {
	if u := UserFrom(r.Context()); u.Name != "" {
		s.agent.Note(r.Context(), By{Who: u.Name, Remote: r.RemoteAddr}, "logout", "", nil)
	}
	s.sessions.end(sessionID(r))
	setSession(w, r, "", -time.Second)
	seeOther(w, "/login")
}

func (s *server) loginPage(w http.ResponseWriter, r *http.Request, code int, view loginView) {
	var body bytes.Buffer
	if err := loginTemplate.Execute(&body, view); err != nil {
		s.log.Error("login page", "err", err)
		plain(w, http.StatusInternalServerError, "the page cannot be made: see the agent's log")
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(body.Bytes())
}

// pageError is what a person is told instead of a page.
func (s *server) pageError(w http.ResponseWriter, r *http.Request, err error) {
	known := s.known(r, err)
	w.Header().Set("Cache-Control", "no-store")
	if s.showError != nil {
		s.showError(w, r, known.code, known.text)
		return
	}
	plain(w, known.code, known.text)
}

// parseForm reads a form's fields from the body.
func parseForm(r *http.Request) error {
	err := r.ParseForm()
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return errTooLarge(tooLarge)
	case err != nil:
		return badData("form: %s", err)
	}
	return nil
}

// localPath is a path of this site, / if it is anything else: browsers read a backslash as a slash, and skip control characters.
func localPath(path string) string {
	u, err := url.Parse(path)
	strange := func(c rune) bool { return c < ' ' || c == '\\' || c == 0x7f }
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") ||
		strings.ContainsFunc(path, strange) || len(path) > 2048 {
		return "/"
	}
	return path
}

// loginFor is the login form that leads on to a path.
func loginFor(path string) string {
	if path = localPath(path); path == "/" {
		return "/login"
	}
	return "/login?next=" + url.QueryEscape(path)
}

// seeOther leads on to a path of this site.
func seeOther(w http.ResponseWriter, path string) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Location", localPath(path))
	w.WriteHeader(http.StatusSeeOther)
}

// turns are places for work that costs CPU.
type turns chan struct{}

// enter waits for a place, but not for long.
func (t turns) enter(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, passwordPatience)
	defer cancel()
	select {
	case t <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (t turns) leave() { <-t }
