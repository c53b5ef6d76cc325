package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/protip/protip/remediation"
)

var (
	_ remediation.Journal = (*Store)(nil)
	_ remediation.Memory  = (*Store)(nil)
)

// Create implements remediation.Journal.
func (s *Store) Create(ctx context.Context, a remediation.Action) error {
	body, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("store action %s: %w", a.ID, err)
	}
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO actions (id, tip_id, state, fence, planned_at, body) VALUES (?, ?, ?, ?, ?, ?)`,
			a.ID, a.TipID, a.State, a.Fence, millis(a.PlannedAt), string(body))
		if err != nil {
			return err
		}
		return appendTransition(ctx, tx, a.ID, remediation.Transition{To: a.State, Fence: a.Fence, At: a.PlannedAt})
	})
	if err != nil {
		return fmt.Errorf("store action %s: %w", a.ID, err)
	}
	return nil
}

// Step implements remediation.Journal.
func (s *Store) Step(ctx context.Context, prev, next remediation.Action, at time.Time, note string) error {
	if prev.ID != next.ID {
		return fmt.Errorf("step action %s: the next step is of action %s", prev.ID, next.ID)
	}
	body, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("step action %s to %s: %w", prev.ID, next.State, err)
	}
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `UPDATE actions SET state = ?, fence = ?, body = ? WHERE id = ? AND state = ? AND fence = ?`,
			next.State, next.Fence, string(body), prev.ID, prev.State, prev.Fence)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return orElse(err, remediation.ErrFenced)
		}
		if next.State == prev.State && next.Fence == prev.Fence && note == "" {
			return nil
		}
		return appendTransition(ctx, tx, prev.ID, remediation.Transition{From: prev.State, To: next.State, Fence: next.Fence, At: at, Note: note})
	})
	if err != nil {
		return fmt.Errorf("step action %s to %s: %w", prev.ID, next.State, err)
	}
	return nil
}

func appendTransition(ctx context.Context, tx *sql.Tx, id string, t remediation.Transition) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO transitions (action_id, from_state, to_state, fence, at, note) VALUES (?, ?, ?, ?, ?, ?)`,
		id, t.From, t.To, t.Fence, millis(t.At), t.Note)
	return err
}

// Actions implements remediation.Journal.
func (s *Store) Actions(ctx context.Context, f remediation.Filter) ([]remediation.Action, error) {
	var where []string
	var args []any
	add := func(clause string, values ...any) {
		where = append(where, clause)
		args = append(args, values...)
	}
	if f.ID != "" {
		add("id = ?", f.ID)
	}
	if f.TipID != "" {
		add("tip_id = ?", f.TipID)
	}
	if !f.Since.IsZero() {
		add("planned_at >= ?", millis(f.Since))
	}
	if len(f.States) > 0 {
		states := make([]any, len(f.States))
		for i, st := range f.States {
			states[i] = st
		}
		add("state IN (?"+strings.Repeat(", ?", len(states)-1)+")", states...)
	}
	query := "SELECT body FROM actions"
	if len(where) > 0 {
		query += " WHERE " + strings.Join(where, " AND ")
	}
	query += " ORDER BY planned_at DESC, rowid DESC"
	if f.Limit > 0 {
		query += " LIMIT ?"
		args = append(args, f.Limit)
	}
	actions, err := bodies[remediation.Action](ctx, s.read, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read actions: %w", err)
	}
	return actions, nil
}

// History implements remediation.Journal.
func (s *Store) History(ctx context.Context, id string) ([]remediation.Transition, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT from_state, to_state, fence, at, note FROM transitions WHERE action_id = ? ORDER BY seq`, id)
	if err != nil {
		return nil, fmt.Errorf("read history of action %s: %w", id, explain(err))
	}
	defer rows.Close()
	var out []remediation.Transition
	for rows.Next() {
		var t remediation.Transition
		var at int64
		if err := rows.Scan(&t.From, &t.To, &t.Fence, &at, &t.Note); err != nil {
			return nil, fmt.Errorf("read history of action %s: %w", id, err)
		}
		t.At = time.UnixMilli(at)
		out = append(out, t)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read history of action %s: %w", id, explain(err))
	}
	return out, nil
}

// inTx runs f in one transaction, which is on disk when inTx returns nil.
func (s *Store) inTx(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return explain(err)
	}
	if err := f(tx); err != nil {
		_ = tx.Rollback() // the transaction is gone with its connection if this fails
		return explain(err)
	}
	return explain(tx.Commit())
}

// bodies decodes the JSON documents that a query selects.
func bodies[T any](ctx context.Context, db *sql.DB, query string, args ...any) ([]T, error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, explain(err)
	}
	defer rows.Close()
	var out []T
	for rows.Next() {
		var body []byte
		var v T
		if err := rows.Scan(&body); err != nil {
			return nil, explain(err)
		}
		if err := json.Unmarshal(body, &v); err != nil {
			return nil, fmt.Errorf("decode %q: %w", body, err)
		}
		out = append(out, v)
	}
	return out, explain(rows.Err())
}

func orElse(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}
