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

// receiveAlerts is Alertmanager's webhook. Its token and its certificate let nothing act: the most that an alert becomes is a tip.
func (s *server) receiveAlerts(w http.ResponseWriter, r *http.Request) {
	if err := s.checkSender(r); err != nil {
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

// checkSender is nil if the request shows the token or the certificate that alerts are taken with; with neither configured, nobody does.
func (s *server) checkSender(r *http.Request) *apiError {
	subject, want, err := "", "", error(nil)
	if s.alerts.Subject != nil {
		subject = s.alerts.Subject()
	}
	if subject != "" && certificateSubject(r) == subject {
		return nil
	}
	if s.alerts.Token != nil {
		want, err = s.alerts.Token()
	}
	want = strings.TrimSpace(want)
	got, _ := bearerToken(r)
	switch {
	case err != nil:
		s.log.Error("token cannot be read", "key", "alertmanager.receive.token_file", "err", err)
		return &apiError{http.StatusForbidden, "forbidden", "the token cannot be read: see the agent's log", nil}
	case want != "" && equalSecrets(got, want):
		return nil
	case want != "":
		return &apiError{http.StatusUnauthorized, "unauthorized", "send the token of alertmanager.receive.token_file as: Authorization: Bearer <token>", nil}
	case subject != "":
		return &apiError{http.StatusUnauthorized, "unauthorized", "show a client certificate of alertmanager.receive.subject", nil}
	}
	return &apiError{http.StatusForbidden, "forbidden", "not configured: set alertmanager.receive.token_file, or subject", nil}
}
