package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"github.com/protip/protip/internal/alertmanager"
)

var _ alertmanager.Store = (*Store)(nil)

// SaveAlerts implements alertmanager.Store.
func (s *Store) SaveAlerts(ctx context.Context, alerts []alertmanager.Kept) error {
	if len(alerts) == 0 {
		return nil
	}
	err := s.inTx(ctx, func(tx *sql.Tx) error {
		for _, a := range alerts {
			body, err := json.Marshal(a)
			if err != nil {
				return fmt.Errorf("alert %s: %w", a.Fingerprint, err)
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO alerts (fingerprint, body) VALUES (?, ?)
				ON CONFLICT (fingerprint) DO UPDATE SET body = excluded.body`, a.Fingerprint, string(body)); err != nil {
				return err
			}
		}
		return nil
	})
	return wrap("store alerts", err)
}

// DropAlerts implements alertmanager.Store.
func (s *Store) DropAlerts(ctx context.Context, fingerprints []string) error {
	if len(fingerprints) == 0 {
		return nil
	}
	err := s.inTx(ctx, func(tx *sql.Tx) error {
		for _, fingerprint := range fingerprints {
			if _, err := tx.ExecContext(ctx, `DELETE FROM alerts WHERE fingerprint = ?`, fingerprint); err != nil {
				return err
			}
		}
		return nil
	})
	return wrap("drop alerts", err)
}

// LoadAlerts implements alertmanager.Store.
func (s *Store) LoadAlerts(ctx context.Context) ([]alertmanager.Kept, error) {
	out, err := bodies[alertmanager.Kept](ctx, s.read, `SELECT body FROM alerts ORDER BY fingerprint`)
	return out, wrap("read alerts", err)
}
