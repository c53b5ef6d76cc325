package web

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net"
	"net/http"
	"sync"
	"time"
)

// How many sessions there are at most, and for how long. They live in memory: who was logged in logs in again after a restart.
const (
	sessionLife     = 12 * time.Hour
	maxSessions     = 1024
	maxUserSessions = 32
)

// sessions are the browsers that are logged in, by the SHA-256 of the secret that their cookie holds. Its methods may be called from any
// goroutine.
type sessions struct {
	mu   sync.Mutex
	byID map[[sha256.Size]byte]session
}

type session struct {
	proof proof
	user  string
	began time.Time
}

func newSessions() *sessions { return &sessions{byID: map[[sha256.Size]byte]session{}} }

// begin makes a session and is its ID. Where there are too many, the oldest ends: the user's own first.
func (s *sessions) begin(user string, p proof) string {
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // never fails: it ends the process instead
	id := base64.RawURLEncoding.EncodeToString(secret[:])
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.makeRoom(user, now)
	s.byID[sha256.Sum256([]byte(id))] = session{proof: p, user: user, began: now}
	return id
}

func (s *sessions) makeRoom(user string, now time.Time) {
	var oldest, own [sha256.Size]byte
	mine := 0
	for id, session := range s.byID {
		if now.Sub(session.began) >= sessionLife {
			delete(s.byID, id)
			continue
		}
		if first, ok := s.byID[oldest]; !ok || session.began.Before(first.began) {
			oldest = id
		}
		if session.user != user {
			continue
		}
		mine++
		if first, ok := s.byID[own]; !ok || session.began.Before(first.began) {
			own = id
		}
	}
	switch {
	case mine >= maxUserSessions:
		delete(s.byID, own)
	case len(s.byID) >= maxSessions:
		delete(s.byID, oldest)
	}
}

// find is what a session rests on, if it has not ended.
func (s *sessions) find(id string) (proof, bool) {
	if id == "" {
		return proof{}, false
	}
	key := sha256.Sum256([]byte(id))
	s.mu.Lock()
	defer s.mu.Unlock()
	session, ok := s.byID[key]
	if ok && time.Since(session.began) >= sessionLife {
		delete(s.byID, key)
		return proof{}, false
	}
	return session.proof, ok
}

func (s *sessions) end(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byID, sha256.Sum256([]byte(id)))
}

// cookieName has the port in it, because browsers send cookies to every port of a host, and a demo may run beside another agent. With
// TLS its prefix has browsers keep others from setting it.
func cookieName(r *http.Request) string {
	name := "protip"
	if _, port, err := net.SplitHostPort(r.Host); err == nil {
		name += "_" + port
	}
	if overTLS(r) {
		name = "__Host-" + name
	}
	return name
}

// overTLS reports whether the browser speaks TLS, to us or to a proxy that says so. Who lies about it harms only their own cookie.
func overTLS(r *http.Request) bool {
	return r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https"
}

// sessionID is what the request's cookie holds, empty if there is none.
func sessionID(r *http.Request) string {
	c, err := r.Cookie(cookieName(r))
	if err != nil {
		return ""
	}
	return c.Value
}

func setSession(w http.ResponseWriter, r *http.Request, id string, life time.Duration) {
	http.SetCookie(w, &http.Cookie{
		Name: cookieName(r), Value: id, Path: "/", MaxAge: int(life.Seconds()),
		HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: overTLS(r),
	})
}
