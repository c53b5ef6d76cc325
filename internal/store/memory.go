package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// SavePause implements remediation.Memory.
func (s *Store) SavePause(ctx context.Context, p remediation.Pause) error {
	return s.put(ctx, "store pause", p, `INSERT INTO pauses (source, body) VALUES (?, ?)
		ON CONFLICT (source) DO UPDATE SET body = excluded.body`, p.Source)
}

// DropPause implements remediation.Memory.
func (s *Store) DropPause(ctx context.Context, source string) error {
	err := s.inTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM pauses WHERE source = ?`, source)
		return err
	})
	if err != nil {
		return fmt.Errorf("drop pause: %w", err)
	}
	return nil
}

// Pauses implements remediation.Memory.
func (s *Store) Pauses(ctx context.Context) ([]remediation.Pause, error) {
	out, err := bodies[remediation.Pause](ctx, s.read, `SELECT body FROM pauses ORDER BY source`)
	if err != nil {
		return nil, fmt.Errorf("read pauses: %w", err)
	}
	return out, nil
}

// SaveForeignMove implements remediation.Memory.
func (s *Store) SaveForeignMove(ctx context.Context, m remediation.ForeignMove) error {
	return s.put(ctx, "store foreign move", m, `INSERT INTO foreign_moves (vm, at, body) VALUES (?, ?, ?)
		ON CONFLICT (vm) DO UPDATE SET at = excluded.at, body = excluded.body`, m.VM.String(), millis(m.At))
}

// ForeignMoves implements remediation.Memory.
func (s *Store) ForeignMoves(ctx context.Context, since time.Time) ([]remediation.ForeignMove, error) {
	out, err := bodies[remediation.ForeignMove](ctx, s.read, `SELECT body FROM foreign_moves WHERE at >= ? ORDER BY at DESC, vm`, millis(since))
	if err != nil {
		return nil, fmt.Errorf("read foreign moves: %w", err)
	}
	return out, nil
}

// SaveBreaker implements remediation.Memory.
func (s *Store) SaveBreaker(ctx context.Context, b remediation.Breaker) error {
	return s.put(ctx, "store breaker", b, `INSERT INTO breaker (one, body) VALUES (1, ?)
		ON CONFLICT (one) DO UPDATE SET body = excluded.body`)
}

// Breaker implements remediation.Memory.
func (s *Store) Breaker(ctx context.Context) (remediation.Breaker, error) {
	out, err := bodies[remediation.Breaker](ctx, s.read, `SELECT body FROM breaker`)
	if err != nil || len(out) == 0 {
		return remediation.Breaker{}, wrap("read breaker", err)
	}
	return out[0], nil
}

// SaveTips stores tips under their IDs, replacing what was known of them.
func (s *Store) SaveTips(ctx context.Context, tips ...rules.Tip) error {
	err := s.inTx(ctx, func(tx *sql.Tx) error {
		for _, t := range tips {
			body, err := json.Marshal(t)
			if err != nil {
				return fmt.Errorf("tip %s: %w", t.ID, err)
			}
			_, err = tx.ExecContext(ctx, `INSERT INTO tips (id, body) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body`, t.ID, string(body))
			if err != nil {
				return fmt.Errorf("tip %s: %w", t.ID, err)
			}
		}
		return nil
	})
	return wrap("store tips", err)
}

// DropTips forgets tips; an ID that is not known is no error.
func (s *Store) DropTips(ctx context.Context, ids ...string) error {
	err := s.inTx(ctx, func(tx *sql.Tx) error {
		for _, id := range ids {
			if _, err := tx.ExecContext(ctx, `DELETE FROM tips WHERE id = ?`, id); err != nil {
				return err
			}
		}
		return nil
	})
	return wrap("drop tips", err)
}

// LoadTips are all stored tips by ID.
func (s *Store) LoadTips(ctx context.Context) ([]rules.Tip, error) {
	out, err := bodies[rules.Tip](ctx, s.read, `SELECT body FROM tips ORDER BY id`)
	return out, wrap("read tips", err)
}

// Entry is one line of the audit log: an action of a person, or one refused to them.
type Entry struct {
	Seq    int64        `json:"-"` // grows with each entry; given by the log
	At     time.Time    `json:"at"`
	Who    string       `json:"who"`
	What   string       `json:"what"` // implement, dismiss, pause, resume, resolve, ...
	Object string       `json:"object,omitempty"`
	ID     inventory.ID `json:"id,omitzero"`    // of the object, if it is in the inventory
	From   string       `json:"from,omitempty"` // address or program that asked
	Why    string       `json:"why,omitempty"`
	Result string       `json:"result"` // ok, or the error in words
}

// Audit appends an entry to the log. Nothing ever changes or removes one.
func (s *Store) Audit(ctx context.Context, e Entry) error {
	return s.put(ctx, "store audit entry", e, `INSERT INTO audit (at, body) VALUES (?, ?)`, millis(e.At))
}

// AuditFilter takes entries of the audit log; what is not set takes all.
type AuditFilter struct {
	Who, What string
	Refused   *bool // only those whose result is not ok, or is
	Since     time.Time
	Before    int64 // Seq that entries are below
	Limit     int   // 0: all
}

// AuditLog are the entries that the filter takes, newest first.
func (s *Store) AuditLog(ctx context.Context, f AuditFilter) ([]Entry, error) {
	where, args := `at >= ?`, []any{millis(f.Since)}
	also := func(condition string, arg any) { where, args = where+" AND "+condition, append(args, arg) }
	if f.Who != "" {
		also(`json_extract(body, '$.who') = ?`, f.Who)
	}
	if f.What != "" {
		also(`json_extract(body, '$.what') = ?`, f.What)
	}
	if f.Refused != nil {
		also(`(json_extract(body, '$.result') <> 'ok') = ?`, *f.Refused)
	}
	if f.Before > 0 {
		also(`seq < ?`, f.Before)
	}
	limit := f.Limit
	if limit <= 0 {
		limit = -1
	}
	rows, err := s.read.QueryContext(ctx, `SELECT seq, body FROM audit WHERE `+where+` ORDER BY seq DESC LIMIT ?`, append(args, limit)...)
	if err != nil {
		return nil, wrap("read audit log", err)
	}
	defer rows.Close()
	var out []Entry
	for rows.Next() {
		var body string
		var e Entry
		if err = rows.Scan(&e.Seq, &body); err == nil {
			err = json.Unmarshal([]byte(body), &e)
		}
		if err != nil {
			return nil, wrap("read audit log", err)
		}
		out = append(out, e)
	}
	return out, wrap("read audit log", rows.Err())
}

// put runs one statement whose last parameter is v as JSON.
func (s *Store) put(ctx context.Context, what string, v any, stmt string, args ...any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, stmt, append(args, string(body))...)
		return err
	})
	return wrap(what, err)
}

func wrap(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
