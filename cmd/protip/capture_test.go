package main

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/protip/protip/internal/platform/winrm/capture"
	"github.com/protip/protip/internal/sim/hyperv"
)

// windows NAME starts a cluster of one node with two VMs and sets WINDOWS to its address, on which NTLM seals what is sent.
// The user is payroll-reader, the password is in the file password.
func windowsCmd(ts *testscript.TestScript, _ bool, args []string) {
	c, err := hyperv.New(hyperv.Options{
		Users: []hyperv.User{{Name: "payroll-reader", Password: "hunter2"}},
		Nodes: []hyperv.Node{{Name: args[0], VMs: []hyperv.VM{{Name: "payroll-db", MemoryBytes: 1 << 30}, {Name: "payroll-web", MemoryBytes: 1 << 30}}}},
	})
	ts.Check(err)
	ts.Defer(c.Close)
	ts.Setenv("WINDOWS", c.URL(args[0]))
	ts.Check(os.WriteFile(ts.MkAbs("password"), []byte("hunter2\n"), 0o600))
}

// replay DIR serves a capture and sets WINDOWS to its address.
func replayCmd(ts *testscript.TestScript, _ bool, args []string) {
	r, _, err := capture.NewReplay(os.DirFS(ts.MkAbs(args[0])))
	ts.Check(err)
	server := httptest.NewServer(r)
	ts.Defer(server.Close)
	ts.Setenv("WINDOWS", server.URL)
}

// telling DIR WORD... fails if a file of the directory holds one of the words.
func tellingCmd(ts *testscript.TestScript, _ bool, args []string) {
	files, err := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), "*"))
	ts.Check(err)
	if len(files) < 10 {
		ts.Fatalf("%d files only", len(files))
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		ts.Check(err)
		for _, word := range args[1:] {
			if strings.Contains(strings.ToLower(string(b)), word) {
				ts.Fatalf("%s tells %q", filepath.Base(file), word)
			}
		}
	}
}
