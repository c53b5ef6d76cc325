-- +goose Up
CREATE TABLE alerts (
  fingerprint TEXT PRIMARY KEY,
  body        TEXT NOT NULL
) STRICT;
