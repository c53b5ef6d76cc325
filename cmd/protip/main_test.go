package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/protip/protip/internal/sim"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"protip": main})
}

// TestScript is the command line's specification. Besides testscript's own commands the scripts have those below.
func TestScript(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"vcenter":    vcenterCmd,
			"freeport":   freeportCmd,
			"demo":       demoCmd,
			"eventually": eventuallyCmd,
			"answers":    answersCmd,
			"keep":       keepCmd,
			"exits":      exitsCmd,
			"sigterm":    sigtermCmd,
			"windows":    windowsCmd,
			"replay":     replayCmd,
			"telling":    tellingCmd,
		},
		Setup: func(env *testscript.Env) error {
			env.Setenv("PROTIP_AGENT_URL", "http://127.0.0.1:1") // where nothing listens, not an agent of this machine
			return nil
		},
	})
}

// patience is how long a script waits for what a running program should do.
const patience = 60 * time.Second

// vcenter NAME starts a vCenter, writes NAME.yml, which watches it, and the files that this names, and sets VCENTER to host:port.
func vcenterCmd(ts *testscript.TestScript, _ bool, args []string) {
	name := args[0]
	vc, err := sim.StartVCenter(sim.Config{
		Name: name, Password: "hunter2",
		Clusters: []sim.Cluster{{Name: "C1", Hosts: []sim.Host{
			{Name: "esx1", VMs: []sim.VM{{Name: "web"}, {Name: "db"}}}, {Name: "esx2", VMs: []sim.VM{{Name: "off", Off: true}}},
		}}},
	})
	ts.Check(err)
	ts.Defer(vc.Close)
	write := func(file, text string) { ts.Check(os.WriteFile(ts.MkAbs(file), []byte(text), 0o600)) }
	ts.Setenv("VCENTER", vc.URL().Host)
	write(name+".pem", string(vc.CAPEM()))
	write(name+".password", "hunter2\n")
	write(name+".yml", "sources:\n  - name: "+name+"\n    type: vsphere\n    url: "+vc.URL().String()+
		"\n    username: administrator@vsphere.local\n    password_file: "+name+".password\n    tls_config: {ca_file: "+name+".pem}\n")
}

// freeport VARIABLE sets it to a port that was free a moment ago.
func freeportCmd(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	_, port, err := net.SplitHostPort(l.Addr().String())
	ts.Check(err)
	ts.Check(l.Close())
	ts.Setenv(args[0], port)
}

// demo [FLAG...] starts a demo, and points the other commands at it as its opening says. When the script ends it is
// interrupted, and must end well.
func demoCmd(ts *testscript.TestScript, _ bool, args []string) {
	path, err := exec.LookPath("protip")
	ts.Check(err)
	cmd := exec.Command(path, append([]string{"demo", "--port=0", "--format=json"}, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+ts.MkAbs("."))
	var said strings.Builder
	cmd.Stderr = &said
	stdout, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Defer(func() {
		began := time.Now()
		ts.Check(cmd.Process.Signal(os.Interrupt))
		_, _ = io.Copy(io.Discard, stdout)
		if err := cmd.Wait(); err != nil || said.Len() > 0 {
			ts.Fatalf("demo: %v\n%s", err, said.String())
		}
		if took := time.Since(began); took > 5*time.Second {
			ts.Fatalf("the demo took %s to end", took)
		}
		if left, _ := filepath.Glob(ts.MkAbs("protip-demo-*")); len(left) > 0 {
			ts.Fatalf("the demo left %v", left)
		}
	})
	lines := bufio.NewReader(stdout)
	first, err := lines.ReadBytes('\n')
	ts.Check(err)
	go func() { _, _ = io.Copy(io.Discard, lines) }()
	var opening struct {
		Demo struct {
			Console   string `json:"console"`
			TokenFile string `json:"token_file"`
		} `json:"demo"`
	}
	ts.Check(json.Unmarshal(first, &opening))
	ts.Setenv("PROTIP_AGENT_URL", strings.TrimSuffix(opening.Demo.Console, "/"))
	ts.Setenv("DEMO_TOKEN_FILE", opening.Demo.TokenFile)
}

// eventually REGEXP PROGRAM [ARG...] runs the program until its output matches, which stays for stdout and stderr. With ! it
// is run until it fails and what it says matches.
func eventuallyCmd(ts *testscript.TestScript, neg bool, args []string) {
	want, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	said := map[bool]string{false: "stdout", true: "stderr"}[neg]
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		failed := ts.Exec(args[1], args[2:]...) != nil
		if failed == neg && want.MatchString(ts.ReadFile(said)) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("not within %s", patience)
		}
	}
}

// answers REGEXP URL asks until the answer matches.
func answersCmd(ts *testscript.TestScript, _ bool, args []string) {
	want, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	var body []byte
	for deadline := time.Now().Add(patience); !want.Match(body); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			ts.Fatalf("%s: not within %s; the answer is\n%s", args[1], patience, body)
		}
		if res, err := http.Get(args[1]); err == nil {
			body, _ = io.ReadAll(res.Body)
			_ = res.Body.Close()
		}
	}
}

// exits CODE PROGRAM [ARG...] runs a program that fails: with this code, no word on stdout and no stack trace.
func exitsCmd(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || strconv.Itoa(exit.ExitCode()) != args[0] {
		ts.Fatalf("it ended with %v, want exit status %s", err, args[0])
	}
	if out, said := ts.ReadFile("stdout"), ts.ReadFile("stderr"); out != "" || strings.Contains(said, "goroutine ") || said == "" {
		ts.Fatalf("a failure belongs on stderr, in words")
	}
}

// keep VARIABLE REGEXP sets it to what the group in the regexp matches in the last output.
func keepCmd(ts *testscript.TestScript, _ bool, args []string) {
	m := regexp.MustCompile("(?m)" + args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if len(m) != 2 {
		ts.Fatalf("no %s in the output", args[1])
	}
	ts.Setenv(args[0], m[1])
}

// sigterm sends it to all that runs in the background: testscript's kill does not know it.
func sigtermCmd(ts *testscript.TestScript, _ bool, _ []string) {
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(syscall.SIGTERM))
	}
}

// journal is a log that may be read while it is written.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}
