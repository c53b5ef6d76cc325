// Package store keeps tips, the journal of actions and the audit log in one SQLite file.
// It promises that what a write returned for is on disk, that one agent at a time has the directory, and that nobody else can read it.
// It must not import internal/web, internal/app or a platform.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// File is the database's name in the data directory.
const File = "protip.db"

//go:embed migrations/*.sql
var migrations embed.FS

// Store is an open data directory. Its methods may be called from any goroutine.
type Store struct {
	dir   string
	lock  *os.File
	write *sql.DB // one connection: SQLite has one writer, and waiting for it here is fair
	read  *sql.DB
}

// Open takes the data directory, made if it is not there, for this process alone and brings its database up to date. A
// directory that another agent has is ErrLocked, with its PID in words.
func Open(ctx context.Context, dir string) (*Store, error) {
	s := &Store{dir: dir}
	if err := s.open(ctx); err != nil {
		s.Close()
		return nil, fmt.Errorf("data directory %s: %w", dir, explain(err))
	}
	return s, nil
}

// Close gives the directory back.
func (s *Store) Close() error {
	var errs []error
	for _, db := range []*sql.DB{s.read, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

func (s *Store) open(ctx context.Context) error {
	if err := makePrivate(s.dir); err != nil {
		return err
	}
	var err error
	if s.lock, err = takeLock(s.dir); err != nil {
		return err
	}
	path := filepath.Join(s.dir, File)
	if err := makeFile(path); err != nil {
		return err
	}
	if s.write, err = connect(path, "_txlock=immediate"); err != nil {
		return err
	}
	s.write.SetMaxOpenConns(1)
	if err := check(ctx, s.write); err != nil {
		return err
	}
	if err := migrate(ctx, path); err != nil {
		return err
	}
	s.read, err = connect(path, "_pragma=query_only(1)")
	return err
}

// makePrivate makes the directory, or refuses one that others may write to.
func makePrivate(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("others may write to it (mode %04o): give protip a directory of its own, mode 0700", info.Mode().Perm())
	}
	return nil
}

// makeFile makes the database file before SQLite does, so that it and the files that SQLite lays beside it are private.
func makeFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o600), f.Close())
}

// connect opens SQLite so that a commit has reached the disk when it returns.
func connect(path, option string) (*sql.DB, error) {
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: "_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)" +
		"&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&" + option}
	return sql.Open("sqlite", u.String())
}

// check reads the whole database once: better to stop at the start than to find a torn page at the next migration.
func check(ctx context.Context, db *sql.DB) error {
	var verdict string
	if err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict); err != nil {
		return err
	}
	if verdict != "ok" {
		return fmt.Errorf("%w: %s", errCorrupt, strings.ReplaceAll(verdict, "\n", " "))
	}
	return nil
}

// migrate brings the schema up to date, on a connection of its own because goose wants more than one.
func migrate(ctx context.Context, path string) (err error) {
	db, err := connect(path, "_txlock=immediate")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	steps, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, steps, goose.WithSlog(slog.New(slog.DiscardHandler)))
	if err != nil {
		return err
	}
	current, target, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	if current > target {
		return fmt.Errorf("%s was written by a newer protip (schema %d, this one knows %d)", File, current, target)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("bring schema up to date: %w", err)
	}
	return nil
}

var errCorrupt = errors.New("the database is damaged")

// explain adds to an error of SQLite what a person can do about it.
func explain(err error) error {
	var lite *sqlite.Error
	if !errors.As(err, &lite) {
		if errors.Is(err, errCorrupt) {
			return fmt.Errorf("%w: put back a copy of %s, or move it away and start with no memory of tips and actions", err, File)
		}
		return err
	}
	switch lite.Code() & 0xff {
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("%w: put back a copy of %s, or move it away and start with no memory of tips and actions (%w)", errCorrupt, File, err)
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("the disk is full (%w)", err)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN:
		return fmt.Errorf("%s cannot be written: look at its permissions and mount (%w)", File, err)
	case sqlite3.SQLITE_IOERR:
		return fmt.Errorf("the disk does not answer as it should (%w)", err)
	}
	return err
}

// millis is a time as it is stored; the zero time is 0.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}
