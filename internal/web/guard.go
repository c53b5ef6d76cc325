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
		s.fail(w, r, &apiError{http.StatusForbidden, "forbidden", "a page of another origin may not act here", nil})
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
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
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

// act is a route that changes something: it checks the token, reads the body strictly and calls do with its author.
func act[B interface{ why() string }](s *server, do func(context.Context, By, *http.Request, B) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.authorize(r); err != nil {
			if err.code == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", `Bearer realm="protip"`)
			}
			s.log.Warn("act refused", "path", r.URL.Path, "remote", r.RemoteAddr, "reason", err.text)
			s.fail(w, r, err)
			return
		}
		var body B
		if err := decodeStrict(r.Body, &body); err != nil {
			s.fail(w, r, err)
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), actTimeout)
		defer cancel()
		answer, err := do(ctx, By{Who: "operator token", Remote: r.RemoteAddr, Why: body.why()}, r, body)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		s.succeed(w, r, answer)
	})
}

// authorize is nil if the request carries the operator's token.
func (s *server) authorize(r *http.Request) *apiError {
	want, err := "", error(nil)
	if s.token != nil {
		want, err = s.token()
	}
	if err != nil {
		s.log.Error("operator token cannot be read", "err", err)
		return &apiError{http.StatusForbidden, "forbidden", "the operator token cannot be read: see the agent's log", nil}
	}
	want = strings.TrimSpace(want) // files end with a newline
	if want == "" {
		return &apiError{http.StatusForbidden, "forbidden", "nothing may act through this API: no operator token is configured. " +
			"Put a long random token into a file, name it in the config as web.operator_token_file, and restart protip", nil}
	}
	scheme, got, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || !equalSecrets(strings.TrimSpace(got), want) {
		return &apiError{http.StatusUnauthorized, "unauthorized", "send the operator token as: Authorization: Bearer <token>", nil}
	}
	return nil
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
