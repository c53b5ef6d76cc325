package tsdb

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/protip/protip/internal/history/promql"
)

// readPrefix begins the names of the folders in which readers have their view of the files.
const readPrefix = "read-"

// OpenReadOnly opens what a process that has ended wrote, and changes none of it. While one writes it is ErrLocked. What it opens
// is a view of its own of the files as they are now, so that an agent may start meanwhile.
func OpenReadOnly(o Options) (*Store, error) {
	if _, err := os.Stat(filepath.Join(o.Dir, "raw")); err != nil {
		return nil, fmt.Errorf("history in %s: there is none: %w", o.Dir, err)
	}
	view, err := viewOf(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("history in %s: %w", o.Dir, err)
	}
	o.Dir, o.Retention, o.RollupRetention, o.MaxBytes, o.Registerer = view, never, never, 0, nil
	s := &Store{o: o, log: o.Log, metrics: newMetrics(nil), view: view}
	s.o.reserve = func(uint64) uint64 { return 0 }
	s.Engine = promql.New(s, o.Limits)
	if err := s.reopen(); err != nil {
		return nil, errors.Join(fmt.Errorf("history: %w", err), s.Close())
	}
	return s, nil
}

// viewOf makes a folder of links to the files that are never written again, and of copies of the log.
func viewOf(dir string) (view string, err error) {
	lock, err := takeLock(dir)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if view, err = os.MkdirTemp(dir, readPrefix); err != nil {
		return "", err
	}
	for _, db := range []string{"raw", "rollup"} {
		if err := mirror(filepath.Join(dir, db), filepath.Join(view, db)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", errors.Join(err, os.RemoveAll(view))
		}
	}
	return view, nil
}

func mirror(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case entry.IsDir():
			return os.MkdirAll(target, 0o700)
		case !entry.Type().IsRegular():
			return nil
		case strings.HasPrefix(rel, "wal"):
			return copyFile(path, target)
		}
		return os.Link(path, target)
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// dropViews removes what readers that were killed left behind.
func dropViews(dir string) error {
	found, err := filepath.Glob(filepath.Join(dir, readPrefix+"*"))
	for _, view := range found {
		if info, statErr := os.Stat(view); statErr == nil && time.Since(info.ModTime()) > 24*time.Hour {
			err = errors.Join(err, os.RemoveAll(view))
		}
	}
	return err
}
