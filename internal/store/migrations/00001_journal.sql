-- Times are Unix milliseconds of protip's clock. What is only read back whole is JSON in body.

-- +goose Up
CREATE TABLE actions (
  id         TEXT PRIMARY KEY,
  tip_id     TEXT NOT NULL,
  state      TEXT NOT NULL,
  fence      INTEGER NOT NULL,
  planned_at INTEGER NOT NULL,
  body       TEXT NOT NULL
) STRICT;
CREATE INDEX actions_by_time ON actions (planned_at);
CREATE INDEX actions_by_state ON actions (state);
CREATE INDEX actions_by_tip ON actions (tip_id);

CREATE TABLE transitions (
  seq        INTEGER PRIMARY KEY,
  action_id  TEXT NOT NULL REFERENCES actions (id),
  from_state TEXT NOT NULL,
  to_state   TEXT NOT NULL,
  fence      INTEGER NOT NULL,
  at         INTEGER NOT NULL,
  note       TEXT NOT NULL
) STRICT;
CREATE INDEX transitions_by_action ON transitions (action_id, seq);

CREATE TABLE pauses (
  source TEXT PRIMARY KEY, -- empty: all
  body   TEXT NOT NULL
) STRICT;

CREATE TABLE foreign_moves (
  vm   TEXT PRIMARY KEY, -- its last one
  at   INTEGER NOT NULL,
  body TEXT NOT NULL
) STRICT;

CREATE TABLE breaker (
  one  INTEGER PRIMARY KEY CHECK (one = 1),
  body TEXT NOT NULL
) STRICT;

CREATE TABLE tips (
  id   TEXT PRIMARY KEY,
  body TEXT NOT NULL
) STRICT;

CREATE TABLE audit (
  seq    INTEGER PRIMARY KEY,
  at     INTEGER NOT NULL,
  body   TEXT NOT NULL
) STRICT;
CREATE INDEX audit_by_time ON audit (at);
