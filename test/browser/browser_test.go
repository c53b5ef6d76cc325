// Package browser looks at the console of a demo as people do: in Chromium, by scripts that playwright-core and axe-core run in Node.
package browser

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// requireTools is the environment variable that makes a missing tool a failure.
const requireTools = "PROTIP_REQUIRE_TOOLS"

var shots = flag.String("shots", "", "directory to keep pictures of the pages in")

// tools is where test/tools/get-browser.sh put Chromium and the packages of this directory. Without them the test is skipped, or fails if
// requireTools is set.
func tools(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../.cache/tools/browser")
	if err != nil {
		t.Fatal(err)
	}
	lock, err := os.ReadFile(filepath.Join(dir, "package-lock.json"))
	want, _ := os.ReadFile("package-lock.json")
	if err == nil && bytes.Equal(lock, want) {
		if _, err = exec.LookPath("node"); err == nil {
			return dir
		}
	}
	if os.Getenv(requireTools) != "" {
		t.Fatal("a browser is required and missing: test/tools/get-browser.sh fetches it")
	}
	t.Skip("no browser: test/tools/get-browser.sh fetches it")
	return ""
}

// TestConsole runs the built demo twice, once for people with scripts and once for those without. Nothing moves there unless a person says
// so, and run.mjs is that person.
func TestConsole(t *testing.T) {
	dir := tools(t)
	binary := filepath.Join(t.TempDir(), "protip")
	if out, err := exec.Command("go", "build", "-o", binary, "../../cmd/protip").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for part, seed := range map[string]string{"live": "--seed=1", "plain": "--seed=2"} {
		t.Run(part, func(t *testing.T) {
			t.Parallel()
			visit(t, dir, part, exec.Command(binary, "demo", "--port=0", "--format=json", "--remediation=manual", seed))
		})
	}
}

// visit starts a demo and lets a part of run.mjs be its visitor.
func visit(t *testing.T, dir, part string, demo *exec.Cmd) {
	var said bytes.Buffer
	demo.Stderr = &said
	stdout, err := demo.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := demo.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(stdout)
	read := make(chan struct{})
	t.Cleanup(func() {
		_ = demo.Process.Signal(syscall.SIGTERM)
		<-read
		if err := demo.Wait(); err != nil || said.Len() > 0 {
			t.Errorf("demo: %v\n%s", err, said.String())
		}
	})
	first, err := lines.ReadBytes('\n')
	go func() { // it must not wait for a reader
		defer close(read)
		_, _ = lines.WriteTo(io.Discard)
	}()
	if err != nil {
		t.Fatal(err)
	}
	var opening struct {
		Demo struct {
			Console   string `json:"console"`
			Login     string `json:"login"`
			TokenFile string `json:"token_file"`
		} `json:"demo"`
	}
	if err := json.Unmarshal(first, &opening); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	d := opening.Demo
	args := []string{"run.mjs", part, d.Console[:len(d.Console)-1], d.Login, d.TokenFile}
	if *shots != "" {
		to, err := filepath.Abs(*shots)
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, to)
	}
	node := exec.CommandContext(ctx, "node", args...)
	node.Env = append(os.Environ(), "PROTIP_BROWSER="+dir)
	out, err := node.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}
