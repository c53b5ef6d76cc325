// Command gotest is go test, with the skipped tests listed by name and reason: go test alone does not show them.
// Its arguments go to go test. With PROTIP_REQUIRE_TOOLS set, a skipped test is a failure.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
)

func main() {
	code, err := run(os.Args[1:], os.Stdout, os.Getenv("PROTIP_REQUIRE_TOOLS") != "")
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		code = 1
	}
	os.Exit(code)
}

func run(args []string, out io.Writer, strict bool) (code int, err error) {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return 1, err
	}
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	r := &report{out: out, said: map[test][]string{}}
	r.read(events)
	failed := cmd.Wait() != nil
	r.close()
	if failed || strict && len(r.skipped) > 0 {
		return 1, nil
	}
	return 0, nil
}

// event is one line of go test -json (go doc test2json).
type event struct {
	Action, Package, Test, Output string
}

type test struct{ pkg, name string }

// report prints packages as they end, failed tests with all they said, and at last the skipped ones.
type report struct {
	out            io.Writer
	said           map[test][]string
	skipped        []string
	passed, failed int
}

func (r *report) read(events io.Reader) {
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadBytes('\n')
		var e event
		if len(line) > 0 && json.Unmarshal(line, &e) != nil {
			r.out.Write(line) // not an event: go's own words
		}
		r.hear(e)
		if err != nil {
			return
		}
	}
}

func (r *report) hear(e event) {
	id := test{e.Package, e.Test}
	switch e.Action {
	case "output":
		if e.Test == "" {
			if e.Output != "PASS\n" {
				fmt.Fprint(r.out, e.Output)
			}
			return
		}
		r.said[id] = append(r.said[id], e.Output)
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			return
		}
		r.end(e.Action, id)
		delete(r.said, id)
	}
}

var reason = regexp.MustCompile(`^\s+\S+\.go:\d+: (.*)`)

func (r *report) end(action string, id test) {
	switch action {
	case "pass":
		r.passed++
	case "fail":
		r.failed++
		for _, line := range r.said[id] {
			fmt.Fprint(r.out, line)
		}
	case "skip":
		why := "no reason given"
		for _, line := range r.said[id] {
			if m := reason.FindStringSubmatch(line); m != nil {
				why = strings.TrimSpace(m[1])
			}
		}
		r.skipped = append(r.skipped, fmt.Sprintf("%s %s: %s", id.pkg, id.name, why))
	}
}

// close prints what tests that never ended have said, and the sums.
func (r *report) close() {
	for id, lines := range r.said {
		fmt.Fprintf(r.out, "%s %s did not end:\n%s", id.pkg, id.name, strings.Join(lines, ""))
	}
	for _, s := range r.skipped {
		fmt.Fprintln(r.out, "skipped:", s)
	}
	fmt.Fprintf(r.out, "%d passed, %d failed, %d skipped\n", r.passed, r.failed, len(r.skipped))
}
