package hyperv_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/protip/protip/internal/sim/hyperv"
	"github.com/protip/protip/test/prom"
)

// legacyMD4 makes OpenSSL know MD4, which NTLM is made of and which Debian's OpenSSL has in its legacy provider only.
const legacyMD4 = "openssl_conf = init\n[init]\nproviders = all\n[all]\ndefault = on\nlegacy = on\n[on]\nactivate = 1\n"

// talk is a program for Debian's python3-winrm: it runs commands in a shell and says what came back.
const talk = `
import json, sys
from winrm.protocol import Protocol
from winrm.exceptions import InvalidCredentialsError, WinRMError, WinRMTransportError
job = json.load(sys.stdin)
client = Protocol(endpoint=job["endpoint"], transport=job["transport"], username=job["user"], password=job["password"],
                  message_encryption=job["encryption"], ca_trust_path=job["ca"] or None, operation_timeout_sec=1, read_timeout_sec=20)
try:
    shell = client.open_shell()
    answers = []
    for line in job["lines"]:
        command = client.run_command(shell, line)
        out, err, code = client.get_command_output(shell, command)
        answers.append([out.decode(), err.decode(), code])
        client.cleanup_command(shell, command)
    client.close_shell(shell)
    print(json.dumps({"answers": answers}))
except Exception as e:
    print(json.dumps({"error": type(e).__name__ + ": " + str(e)}))
`

type conversation struct {
	Endpoint   string   `json:"endpoint"`
	Transport  string   `json:"transport"`
	User       string   `json:"user"`
	Password   string   `json:"password"`
	Encryption string   `json:"encryption"`
	CA         string   `json:"ca"`
	Lines      []string `json:"lines"`
}

type said struct {
	Answers [][3]any `json:"answers"`
	Error   string   `json:"error"`
}

// unpacked is where test/tools/get.sh puts Debian's packages.
func unpacked(t *testing.T) string {
	t.Helper()
	return filepath.Join(filepath.Dir(prom.Tool(t, "wslenum")), "..", "..")
}

// needs is the path of a program of the machine.
func needs(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		if os.Getenv(prom.RequireTools) != "" {
			t.Fatalf("%s is required and missing", program)
		}
		t.Skipf("no %s", program)
	}
	return path
}

func pythonWinRM(t *testing.T, c conversation) said {
	t.Helper()
	root, dir := unpacked(t), t.TempDir()
	python := "/usr/bin/python3" // Debian's, which the packages are made for
	needs(t, python)
	config := filepath.Join(dir, "openssl.cnf")
	if err := os.WriteFile(config, []byte(legacyMD4), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, "-c", talk)
	cmd.Env = []string{"PYTHONPATH=" + filepath.Join(root, "usr/lib/python3/dist-packages"), "OPENSSL_CONF=" + config, "HOME=" + dir, "PATH=/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE=1"}
	in, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = strings.NewReader(string(in))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("python3-winrm: %v\n%s", err, stderr.String())
	}
	var s said
	if err := json.Unmarshal(out, &s); err != nil {
		t.Fatalf("python3-winrm said %q: %v", out, err)
	}
	return s
}

func newCluster(t *testing.T, opt hyperv.Options) *hyperv.Cluster {
	t.Helper()
	c, err := hyperv.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func caFile(t *testing.T, c *hyperv.Cluster) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, c.CA(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPythonWinRM(t *testing.T) {
	unpacked(t)
	open := newCluster(t, hyperv.Options{AllowUnencrypted: true, Nodes: []hyperv.Node{{}}})
	strict := newCluster(t, hyperv.Options{Nodes: []hyperv.Node{{}}})
	const node = "hv-01"
	for _, tt := range []struct {
		name    string
		c       *hyperv.Cluster
		tls     bool
		with    conversation
		failure string
	}{
		{"basic over HTTP", open, false, conversation{Transport: "basic", Encryption: "auto"}, ""},
		{"basic over HTTPS", strict, true, conversation{Transport: "ssl", Encryption: "auto"}, ""},
		{"NTLM over HTTPS", strict, true, conversation{Transport: "ntlm", Encryption: "never"}, ""},
		{"NTLM over HTTP", open, false, conversation{Transport: "ntlm", Encryption: "never"}, ""},
		{"sealed NTLM over HTTP", strict, false, conversation{Transport: "ntlm", Encryption: "always"}, ""},
		{"basic over HTTP is not let in", strict, false, conversation{Transport: "basic", Encryption: "auto"}, "InvalidCredentialsError"},
		{"unsealed NTLM over HTTP is refused", strict, false, conversation{Transport: "ntlm", Encryption: "never"}, "WinRMTransportError"},
		{"wrong password", strict, false, conversation{Transport: "ntlm", Encryption: "always", Password: "wrong"}, "InvalidCredentialsError"},
		{"user of another domain", strict, false, conversation{Transport: "ntlm", Encryption: "always", User: `ELSEWHERE\protip`}, "InvalidCredentialsError"},
		{"user of the domain", strict, false, conversation{Transport: "ntlm", Encryption: "always", User: `EXAMPLE\protip`}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			with := tt.with
			with.Endpoint = tt.c.URL(node)
			if tt.tls {
				with.Endpoint, with.CA = tt.c.TLSURL(node), caFile(t, tt.c)
			}
			if with.User == "" {
				with.User = hyperv.DefaultUser
			}
			if with.Password == "" {
				with.Password = hyperv.DefaultPassword
			}
			with.Lines = []string{"echo grüß " + strings.Repeat("long ", 2000), "hostname", "no-such-program"}
			if with.Encryption == "always" && with.User == hyperv.DefaultUser {
				with.Lines = append(with.Lines, "timeout /t 2") // longer than the client's operation time-out
			}
			got := pythonWinRM(t, with)
			if tt.failure != "" {
				if !strings.HasPrefix(got.Error, tt.failure) {
					t.Fatalf("error %q, want %s", got.Error, tt.failure)
				}
				return
			}
			if got.Error != "" || len(got.Answers) != len(with.Lines) {
				t.Fatalf("%+v", got)
			}
			if out := got.Answers[0][0]; out != "grüß "+strings.Repeat("long ", 1999)+"long\r\n" {
				t.Errorf("echo: %q", out)
			}
			if out := got.Answers[1][0]; out != node+"\r\n" {
				t.Errorf("hostname: %q", out)
			}
			if code := got.Answers[2][2]; code != 1.0 {
				t.Errorf("unknown program: exit code %v", code)
			}
			if n := tt.c.Shells(node); n != 0 {
				t.Errorf("%d shells are left", n)
			}
		})
	}
	// Those that were to be refused for it: one with Basic, and three of the handshake, of which each carries the body.
	if credentials, bodies := strict.Exposed(); credentials != 1 || bodies != 4 {
		t.Errorf("%d credentials and %d bodies were readable", credentials, bodies)
	}
}

func TestPythonWinRMMeetsQuota(t *testing.T) {
	c := newCluster(t, hyperv.Options{Nodes: []hyperv.Node{{}}})
	c.Inject(hyperv.Fault{Action: "Create", Code: hyperv.QuotaShells, Times: 1})
	with := conversation{Endpoint: c.URL("hv-01"), Transport: "ntlm", Encryption: "always", User: hyperv.DefaultUser, Password: hyperv.DefaultPassword}
	if got := pythonWinRM(t, with); !strings.Contains(got.Error, "2150859173") {
		t.Errorf("error %q", got.Error)
	}
}

// wsl runs one of the scripts of Debian's package wsl: WS-Management by shell, curl and xmllint.
func wsl(t *testing.T, c *hyperv.Cluster, node, script string, args ...string) string {
	t.Helper()
	out, err := wslTry(t, c, node, script, args...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

func wslTry(t *testing.T, c *hyperv.Cluster, node, script string, args ...string) (string, error) {
	t.Helper()
	needs(t, "curl")
	root, dir := unpacked(t), t.TempDir()
	for _, name := range []string{"bin/" + script, "share/wsl/wsl-functions"} { // they name their own place
		text, err := os.ReadFile(filepath.Join(root, "usr", name))
		if err != nil {
			t.Fatal(err)
		}
		moved := strings.ReplaceAll(string(text), "/usr/share/wsl/", dir+"/")
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), []byte(moved), 0o700); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
	}
	endpoint := strings.TrimSuffix(strings.TrimPrefix(c.TLSURL(node), "https://"), "/wsman")
	if err := os.WriteFile(filepath.Join(dir, endpoint+".crt"), c.CA(), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "bash", append([]string{filepath.Join(dir, script)}, args...)...)
	cmd.Dir = dir
	cmd.Env = []string{
		"HOME=" + dir, "PATH=/usr/bin:/bin:" + filepath.Join(root, "usr/bin"), "LD_LIBRARY_PATH=" + filepath.Join(root, "usr/lib/x86_64-linux-gnu"),
		"WSENDPOINT=" + endpoint, "WSUSER=" + hyperv.DefaultUser, "WSPASS=" + hyperv.DefaultPassword, "WSAUTOMATED=1", "KEEPHISTORY=0",
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestWslenum(t *testing.T) {
	var vms []hyperv.VM
	for i := range 7 {
		vms = append(vms, hyperv.VM{Name: fmt.Sprintf("<web> & %d", i)})
	}
	c := newCluster(t, hyperv.Options{Nodes: []hyperv.Node{{VMs: vms}, {}}})
	const wmi = "http://schemas.microsoft.com/wbem/wsman/1/wmi/"
	const dialect = "http://schemas.microsoft.com/wbem/wsman/1/WQL"

	t.Run("a class, one item a Pull", func(t *testing.T) {
		out := wsl(t, c, "hv-01", "wslenum", wmi+"root/MSCluster/MSCluster_ResourceGroup")
		if n := strings.Count(out, "<p:OwnerNode>hv-01</p:OwnerNode>"); n != 9 {
			t.Errorf("%d groups of hv-01, want 7 of VMs and 2 of the cluster\n%s", n, out)
		}
		if n := c.Requests("hv-01", "Pull"); n != 9 {
			t.Errorf("%d Pulls", n)
		}
	})
	t.Run("a query, optimized, in pages", func(t *testing.T) {
		before := c.Requests("hv-02", "")
		out := wsl(t, c, "hv-02", "wslenum", wmi+"root/MSCluster/*", "-dialect", dialect, "-filter", "SELECT Name, State FROM MSCluster_ResourceGroup WHERE GroupType = 111", "-opti", "3")
		if n := strings.Count(out, "<p:Name>&lt;web&gt; &amp; "); n != 7 || strings.Contains(out, "OwnerNode") {
			t.Errorf("%d names\n%s", n, out)
		}
		if n := c.Requests("hv-02", "") - before; n != 3 {
			t.Errorf("%d requests, want 3 of 3, 3 and 1", n)
		}
	})
	t.Run("references", func(t *testing.T) {
		out := wsl(t, c, "hv-01", "wslenum", wmi+"root/cimv2/Win32_Service", "-mode", "epr", "-opti", "20")
		if n := strings.Count(out, `<w:Selector Name="Name">`); n != 4 {
			t.Errorf("%d references\n%s", n, out)
		}
	})
	t.Run("get", func(t *testing.T) {
		out := wsl(t, c, "hv-01", "wslget", wmi+"root/cimv2/Win32_Service", "Name=vmms")
		if !strings.Contains(out, "<p:State>Running</p:State>") {
			t.Errorf("%s", out)
		}
	})
	t.Run("a class that is not there", func(t *testing.T) {
		out, err := wslTry(t, c, "hv-01", "wslenum", wmi+"root/cimv2/Win32_NoSuchThing")
		if err == nil || !strings.Contains(out, "0x80041010") {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("identify", func(t *testing.T) {
		if out := wsl(t, c, "hv-01", "wslid", "check"); !strings.Contains(out, "OS: 10.0.17763") {
			t.Errorf("%s", out)
		}
	})
}
