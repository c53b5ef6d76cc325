package web

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// Role is what somebody may do. Each may what the ones before it may.
type Role int

// Roles.
const (
	None     Role = iota
	Viewer        // reads
	Operator      // also acts
)

func (r Role) String() string {
	switch r {
	case Viewer:
		return "viewer"
	case Operator:
		return "operator"
	}
	return "none"
}

// User is who asks. Nobody in particular has no name.
type User struct {
	Name string
	Role Role
}

type userKey struct{}

// UserFrom is who a request is from, in the context of every handler that New serves.
func UserFrom(ctx context.Context) User {
	u, _ := ctx.Value(userKey{}).(User)
	return u
}

// Access says who may what. The zero value lets nobody but who shows the operator token do anything.
type Access struct {
	Anonymous Role               // of who shows nothing: Viewer where anybody may read
	Accounts  map[string]Account // who logs in with a password, by name
	Tokens    map[[sha256.Size]byte]User
	Subjects  map[string]User // of verified client certificates, as RFC 2253 writes them
}

// Account is who logs in with a password.
type Account struct {
	Role   Role
	Bcrypt string // of the password
}

// operators reports whether anybody may act.
func (a Access) operators() bool {
	for _, account := range a.Accounts {
		if account.Role >= Operator {
			return true
		}
	}
	for _, u := range a.Subjects {
		if u.Role >= Operator {
			return true
		}
	}
	for _, u := range a.Tokens {
		if u.Role >= Operator {
			return true
		}
	}
	return false
}

// password is the user of that name and password. A name that nobody has costs as much time as a wrong password.
func (a Access) password(name, password string) (User, bool) {
	account, known := a.Accounts[name]
	if !known {
		names := slices.Sorted(maps.Keys(a.Accounts)) // any will do: only its cost counts
		if len(names) > 0 {
			account = a.Accounts[names[0]]
		}
	}
	if account.Bcrypt == "" || len(password) > maxPassword {
		return User{}, false
	}
	same := bcrypt.CompareHashAndPassword([]byte(account.Bcrypt), []byte(password)) == nil
	return User{name, account.Role}, same && known
}

// maxPassword is how many bytes of a password bcrypt looks at.
const maxPassword = 72

// proof is how somebody showed who they are. A session holds as long as its proof does.
type proof struct {
	kind proofKind
	name string            // of an account
	sum  [sha256.Size]byte // of the token, or of the account's hash
}

type proofKind int

const (
	byPassword proofKind = iota
	byToken
	byTicket
)

// holds is the user that a proof stands for now: roles change, passwords too, and people leave.
func (s *server) holds(p proof) (User, bool) {
	switch p.kind {
	case byPassword:
		account, ok := s.access().Accounts[p.name]
		return User{p.name, account.Role}, ok && sha256.Sum256([]byte(account.Bcrypt)) == p.sum
	case byToken:
		return s.tokenUser(p.sum)
	}
	return User{ticketName, Operator}, true
}

// tokenUser is whose token has that SHA-256. Tokens are looked up by their hash, whose bits say nothing of a guess's.
func (s *server) tokenUser(sum [sha256.Size]byte) (User, bool) {
	if u, ok := s.access().Tokens[sum]; ok {
		return u, true
	}
	token, err := s.operatorToken()
	if err != nil {
		s.log.Error("operator token cannot be read", "err", err)
	}
	return User{operatorTokenName, Operator}, token != "" && sha256.Sum256([]byte(token)) == sum
}

// Names of users that no file lists.
const (
	operatorTokenName = "operator token"
	ticketName        = "one-time login"
)

// operatorToken is the token that acts, empty if none is configured.
func (s *server) operatorToken() (string, error) {
	if s.token == nil {
		return "", nil
	}
	token, err := s.token()
	return strings.TrimSpace(token), err // files end with a newline
}

// identify is who a request is from: by its bearer token, else its session, else its client certificate. Who shows something that
// does not count is nobody in particular, and stale says what it was.
func (s *server) identify(r *http.Request) (u User, stale string) {
	nobody := User{Role: s.access().Anonymous}
	if token, ok := bearerToken(r); ok {
		if u, ok := s.tokenUser(sha256.Sum256([]byte(token))); ok {
			return u, ""
		}
		return nobody, staleToken
	}
	id := sessionID(r)
	if p, ok := s.sessions.find(id); ok {
		if u, ok := s.holds(p); ok {
			return u, ""
		}
		s.sessions.end(id)
	}
	if subject := certificateSubject(r); subject != "" {
		if u, ok := s.access().Subjects[subject]; ok {
			return u, ""
		}
	}
	if id != "" {
		return nobody, staleSession
	}
	return nobody, ""
}

const (
	staleToken   = "token"
	staleSession = "session"
)

// certificateSubject is whose client certificate was verified, as RFC 2253 writes it; empty if none was.
func certificateSubject(r *http.Request) string {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return ""
	}
	return r.TLS.VerifiedChains[0][0].Subject.String()
}

// bearerToken is the token of a request that has one.
func bearerToken(r *http.Request) (string, bool) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	return token, strings.EqualFold(scheme, "Bearer")
}

// demand lets through who has the route's role, and tells the handler who it is.
func (s *server) demand(route Route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, stale := s.identify(r)
		if u.Role < route.Needs {
			s.refuse(w, r, route, u, stale)
			return
		}
		route.Handler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), userKey{}, u)))
	})
}

// refuse answers who has not the route's role. People are led to the login form.
func (s *server) refuse(w http.ResponseWriter, r *http.Request, route Route, u User, stale string) {
	why := s.refusal(route, u, stale)
	if stale == staleToken && why.code == http.StatusUnauthorized {
		if wait := s.guesses.byRemote.take(remoteKey(r)); wait > 0 {
			why = tooMany(w, wait)
		}
	}
	if stale != "" || u.Name != "" || r.Method == http.MethodPost { // not who only has yet to log in
		s.audits.refused(r, u.Name, route.verb(), route.object(r), why)
	}
	switch {
	case route.Page && why.code == http.StatusUnauthorized && r.Method != http.MethodPost:
		seeOther(w, loginFor(r.URL.RequestURI()))
		return
	case route.Page && why.code == http.StatusUnauthorized:
		seeOther(w, loginFor(r.PostFormValue("next")))
		return
	case why.code == http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer realm="protip"`)
	}
	if route.Page {
		s.pageError(w, r, why)
		return
	}
	s.fail(w, r, why)
}

func (s *server) refusal(route Route, u User, stale string) *apiError {
	if route.Needs == Operator {
		token, err := s.operatorToken()
		switch {
		case err != nil && !s.access().operators():
			s.log.Error("operator token cannot be read", "err", err)
			return &apiError{http.StatusForbidden, "forbidden", "the operator token cannot be read: see the agent's log", nil}
		case token == "" && !s.access().operators():
			return &apiError{http.StatusForbidden, "forbidden", "nothing may act here: no operator is configured. Put a long random token into a file " +
				"and name it in the config as web.operator_token_file, or list users in web.users_file", nil}
		}
	}
	switch {
	case u.Name != "":
		return &apiError{http.StatusForbidden, "forbidden", fmt.Sprintf("%s has the role %s: this needs the role %s", u.Name, u.Role, route.Needs), nil}
	case stale == staleToken:
		return &apiError{http.StatusUnauthorized, "unauthorized", "nobody has this token", nil}
	case stale == staleSession:
		return &apiError{http.StatusUnauthorized, "unauthorized", "the session has ended: log in again", nil}
	}
	return &apiError{http.StatusUnauthorized, "unauthorized", fmt.Sprintf("this needs the role %s: send a token as Authorization: Bearer <token>, or log in at /login", route.Needs), nil}
}
