package web

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/protip/protip/internal/alertmanager"
)

const (
	bodyLimit = 64 << 10
	// actTimeout bounds an act, which goes on when its caller hangs up: half of it done is worse than either.
	actTimeout = 30 * time.Second
)

// guard is what every request passes: the host it calls, where it comes from, how much it brings. What it answers tells
// browsers to trust nothing but ourselves.
func (s *server) guard(next http.Handler, loopbackOnly bool) http.Handler {
	origin := http.NewCrossOriginProtection()
	origin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		why := &apiError{http.StatusForbidden, "forbidden", "a page of another origin may not act here", nil}
		u, _ := s.identify(r)
		s.audits.refused(r, u.Name, "cross-origin request", cut(r.URL.Path), why)
		s.fail(w, r, why)
	}))
	next = origin.Handler(limitBodies(next))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, value := range securityHeaders {
			w.Header().Set(name, value)
		}
		if loopbackOnly && !isLoopback(r.Host) {
			s.fail(w, r, &apiError{http.StatusMisdirectedRequest, "forbidden", "call me localhost: this is a demo", nil})
			return
		}
		next.ServeHTTP(w, r)
	})
}

var securityHeaders = map[string]string{
	"Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; connect-src 'self'; " +
		"base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
	"X-Content-Type-Options":     "nosniff",
	"X-Frame-Options":            "DENY",
	"Referrer-Policy":            "no-referrer",
	"Cross-Origin-Opener-Policy": "same-origin",
}

// isLoopback reports whether a Host header names this machine by a name that no DNS server decides.
func isLoopback(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// act is a handler that changes something: it reads the body strictly and calls do with its author. Its route demands an operator.
func act[B interface{ why() string }](s *server, do func(context.Context, By, *http.Request, B) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body B
		if err := decodeStrict(r.Body, &body); err != nil {
			s.fail(w, r, err)
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), actTimeout)
		defer cancel()
		answer, err := do(ctx, byOf(r, body.why()), r, body)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		s.succeed(w, r, answer)
	})
}

func byOf(r *http.Request, why string) By {
	return By{Who: UserFrom(r.Context()).Name, Remote: r.RemoteAddr, Why: why}
}

// Form is the route of a form on a page that acts: it demands an operator and goes on to the page that do names (303). The form's field
// why is what the operator says; a field next is where who has to log in first comes back to. What do reads of the form is in r.PostForm.
func Form(path string, do func(ctx context.Context, by By, r *http.Request) (next string, err error)) Route {
	return Route{Method: http.MethodPost, Path: path, Needs: Operator, Page: true, form: do}
}

func (s *server) form(do func(context.Context, By, *http.Request) (string, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := parseForm(r); err != nil {
			s.pageError(w, r, err)
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), actTimeout)
		defer cancel()
		next, err := do(ctx, byOf(r, strings.TrimSpace(r.PostFormValue("why"))), r)
		if err != nil {
			s.pageError(w, r, err)
			return
		}
		seeOther(w, next)
	})
}

// equalSecrets compares in a time that tells neither content nor length.
func equalSecrets(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// limitBodies ends a body that is longer than its route's bodies are.
func limitBodies(next http.Handler) http.Handler {
	small, large := http.MaxBytesHandler(next, bodyLimit), http.MaxBytesHandler(next, alertmanager.MaxBody)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == webhookPath {
			large.ServeHTTP(w, r)
			return
		}
		small.ServeHTTP(w, r)
	})
}
