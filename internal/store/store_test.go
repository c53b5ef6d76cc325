package store

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/remediation/remediationtest"
	"github.com/protip/protip/rules"
)

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestJournal(t *testing.T) {
	remediationtest.Journal(t, func(t *testing.T) remediationtest.Reopen {
		dir := filepath.Join(t.TempDir(), "data")
		return func(t *testing.T) (remediationtest.JournalAndMemory, func()) {
			s, err := Open(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			return s, func() { s.Close() }
		}
	})
}

func TestPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "data")
	s := open(t, dir)
	if err := s.SaveTips(t.Context(), rules.Tip{ID: "x"}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info.Mode(), err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) < 3 {
		t.Fatalf("files: %v, %v", files, err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f.Name(), info.Mode(), err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	damaged := func(offset int64, garbage string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			s := open(t, dir)
			for i := range 200 {
				if err := s.SaveTips(t.Context(), rules.Tip{ID: strings.Repeat("x", 100+i)}); err != nil {
					t.Fatal(err)
				}
			}
			s.Close()
			f, err := os.OpenFile(filepath.Join(dir, File), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt([]byte(garbage), offset); err != nil {
				t.Fatal(err)
			}
		}
	}
	tests := []struct {
		name    string
		prepare func(*testing.T, string)
		want    string
	}{
		{"not a database", damaged(0, "this is not a database at all"), "the database is damaged"},
		{"torn page", damaged(4096, strings.Repeat("torn", 2000)), "the database is damaged"},
		{"open to others", func(t *testing.T, dir string) {
			if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777)); err != nil {
				t.Fatal(err)
			}
		}, "others may write to it (mode 0777): give protip a directory of its own, mode 0700"},
		{"a file", func(t *testing.T, dir string) {
			if err := os.WriteFile(dir, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "not a directory"},
		{"written by a newer protip", func(t *testing.T, dir string) {
			s := open(t, dir)
			if _, err := s.write.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)`); err != nil {
				t.Fatal(err)
			}
			s.Close()
		}, "protip.db was written by a newer protip (schema 99, this one knows 2)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			tt.prepare(t, dir)
			s, err := Open(t.Context(), dir)
			if err == nil {
				s.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), dir) {
				t.Errorf("error %q, want it to name the directory and say %q", err, tt.want)
			}
		})
	}
}

func TestReadOnlyFile(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "data"))
	if _, err := s.write.Exec("PRAGMA query_only(1)"); err != nil {
		t.Fatal(err)
	}
	err := s.SaveBreaker(t.Context(), remediation.Breaker{})
	if err == nil || !strings.Contains(err.Error(), "store breaker: protip.db cannot be written: look at its permissions and mount") {
		t.Errorf("error %v", err)
	}
}

func TestFullDisk(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "data"))
	if _, err := s.write.Exec("PRAGMA max_page_count(1)"); err != nil { // rounds up to what is there: SQLite's own full disk
		t.Fatal(err)
	}
	big := remediation.Action{ID: "a", Why: strings.Repeat("w", 1<<20), State: remediation.Planned}
	err := s.Create(t.Context(), big)
	if err == nil || !strings.Contains(err.Error(), "store action a: the disk is full") {
		t.Fatalf("error %v", err)
	}
	if _, err := s.write.Exec("PRAGMA max_page_count(1000000)"); err != nil {
		t.Fatal(err)
	}
	if err := s.Create(t.Context(), big); err != nil {
		t.Errorf("after the disk has room again: %v", err)
	}
}

// TestSecondAgent starts this test binary as the first agent.
func TestSecondAgent(t *testing.T) {
	if dir := os.Getenv("PROTIP_TEST_HOLD"); dir != "" {
		open(t, dir)
		os.Stdout.WriteString("held\n")
		os.Stdin.Read(make([]byte, 1))
		return
	}
	dir := filepath.Join(t.TempDir(), "data")
	first := exec.Command(os.Args[0], "-test.run=^TestSecondAgent$")
	first.Env = append(os.Environ(), "PROTIP_TEST_HOLD="+dir)
	stdin, err := first.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := first.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), dir)
	want := "in use by another agent (PID " + strconv.Itoa(first.Process.Pid) + ")"
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %q", err, want)
	}
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait() // killed
	stdin.Close()
	open(t, dir)
}

func TestTips(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s := open(t, dir)
	tip := rules.Tip{
		ID: "t1", Rule: "HostCPUOverload", Object: inventory.ID{Source: "vc", Kind: inventory.KindHost, Ref: "host-1"},
		Name: "\"\n\xff", State: rules.Active, Since: time.Unix(1, 0).UTC(), Evidence: []rules.Evidence{{Name: "cpu", Value: 0.9}},
	}
	if err := s.SaveTips(t.Context(), tip, rules.Tip{ID: "t2"}); err != nil {
		t.Fatal(err)
	}
	tip.State = rules.Resolved
	if err := errors.Join(s.SaveTips(t.Context(), tip), s.DropTips(t.Context(), "t2", "never")); err != nil {
		t.Fatal(err)
	}
	s.Close()
	got, err := open(t, dir).LoadTips(t.Context())
	if err != nil || len(got) != 1 {
		t.Fatalf("%v, %v", got, err)
	}
	if g := got[0]; g.State != rules.Resolved || g.Object != tip.Object || !g.Since.Equal(tip.Since) || g.Name != "\"\n\ufffd" {
		t.Errorf("tip came back as %+v", g)
	}
}

func TestAudit(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "data"))
	for i, what := range []string{"implement", "pause", "resume"} {
		e := Entry{At: time.Unix(int64(i), 0), Who: "ann", What: what, Object: "tip x", From: "10.0.0.1", Why: "because", Result: "ok"}
		if err := s.Audit(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Audit(t.Context(), Entry{At: time.Unix(3, 0), Who: "bob", What: "pause", Result: "bob has the role viewer"}); err != nil {
		t.Fatal(err)
	}
	yes, no := true, false
	for name, tt := range map[string]struct {
		filter AuditFilter
		want   []string
	}{
		"all":           {AuditFilter{}, []string{"pause", "resume", "pause", "implement"}},
		"the newest":    {AuditFilter{Limit: 1}, []string{"pause"}},
		"of late":       {AuditFilter{Since: time.Unix(2, 0)}, []string{"pause", "resume"}},
		"the next page": {AuditFilter{Before: 3, Limit: 1}, []string{"pause"}},
		"of one":        {AuditFilter{Who: "ann", What: "pause"}, []string{"pause"}},
		"refused":       {AuditFilter{Refused: &yes}, []string{"pause"}},
		"what was done": {AuditFilter{Refused: &no}, []string{"resume", "pause", "implement"}},
		"of a stranger": {AuditFilter{Who: "' OR 1=1 --"}, nil},
	} {
		got, err := s.AuditLog(t.Context(), tt.filter)
		var verbs []string
		for _, e := range got {
			verbs = append(verbs, e.What)
		}
		if err != nil || !slices.Equal(verbs, tt.want) {
			t.Errorf("%s: %q, %v, want %q", name, verbs, err, tt.want)
		}
	}
}
