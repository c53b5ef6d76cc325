package web

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/protip/protip/internal/alertmanager"
)

// webhookPath is where Alertmanager sends alerts.
const webhookPath = "/api/v1/alertmanager"

// AlertReceiver takes what Alertmanager sends. When it returns nil, the message is on disk.
type AlertReceiver interface {
	Receive(ctx context.Context, m alertmanager.Message) error
}

// receiveAlerts is Alertmanager's webhook. Its token is its own and lets nothing act: the most that an alert becomes is a tip.
func (s *server) receiveAlerts(w http.ResponseWriter, r *http.Request) {
	if err := s.checkBearer(r, s.alerts.Token, "alertmanager.receive.token_file"); err != nil {
		if err.code == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", `Bearer realm="protip"`)
		}
		if err.code == http.StatusUnauthorized {
			if wait := s.guesses.byRemote.take(remoteKey(r)); wait > 0 {
				err = tooMany(w, wait)
			}
		}
		s.audits.refused(r, "", "alerts", "", err)
		s.fail(w, r, err)
		return
	}
	m, err := alertmanager.Read(r.Body)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		s.fail(w, r, errTooLarge(large))
		return
	case err != nil:
		s.log.Warn("alerts refused", "remote", r.RemoteAddr, "reason", err)
		s.fail(w, r, badData("%s", err))
		return
	}
	if err := s.alerts.Receiver.Receive(r.Context(), m); err != nil {
		s.fail(w, r, err) // 5xx: Alertmanager sends it again
		return
	}
	s.succeed(w, r, map[string]int{"alerts": len(m.Alerts)})
}

// checkBearer is nil if the request carries the token; without one configured, nobody does.
func (s *server) checkBearer(r *http.Request, token func() (string, error), key string) *apiError {
	want, err := "", error(nil)
	if token != nil {
		want, err = token()
	}
	if err != nil {
		s.log.Error("token cannot be read", "key", key, "err", err)
		return &apiError{http.StatusForbidden, "forbidden", "the token cannot be read: see the agent's log", nil}
	}
	if want = strings.TrimSpace(want); want == "" {
		return &apiError{http.StatusForbidden, "forbidden", "not configured: set " + key, nil}
	}
	if got, ok := bearerToken(r); !ok || !equalSecrets(got, want) {
		return &apiError{http.StatusUnauthorized, "unauthorized", "send the token of " + key + " as: Authorization: Bearer <token>", nil}
	}
	return nil
}
