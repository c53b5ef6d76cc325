package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/protip/protip/internal/sim"
	"github.com/protip/protip/test/prom"
)

// TestMutualTLS runs the built agent where every client must show a certificate. A real Prometheus scrapes it and a real Alertmanager sends it
// alerts with theirs; who has none, or one of another authority, does not get as far as HTTP.
func TestMutualTLS(t *testing.T) {
	prom.Tool(t, "prometheus-alertmanager")
	vc, err := sim.StartVCenter(sim.Config{Name: "vc", Clusters: sim.Uniform(2, 4)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(vc.Close)
	dir := t.TempDir()
	ours, strangers := newAuthority(t, dir, "ours"), newAuthority(t, dir, "strangers")
	ours.issue("server", x509.ExtKeyUsageServerAuth)
	ours.issue("prometheus", x509.ExtKeyUsageClientAuth)
	ours.issue("alertmanager", x509.ExtKeyUsageClientAuth)
	ours.issue("anna", x509.ExtKeyUsageClientAuth)
	ours.issue("nobody", x509.ExtKeyUsageClientAuth)
	strangers.issue("mallory", x509.ExtKeyUsageClientAuth)
	const token = "a-long-token-of-a-program"
	user := vc.Login().User
	password, _ := user.Password()
	for name, text := range map[string]string{
		"vc.password": password,
		"vc.pem":      string(vc.CAPEM()),
		"users.yml": fmt.Sprintf("users:\n  - {name: prometheus, role: viewer, subject: CN=prometheus}\n  - {name: anna, role: operator, subject: CN=anna}\n"+
			"tokens:\n  - {name: program, role: viewer, sha256: %x}\n", sha256.Sum256([]byte(token))),
		"web.yml": "tls_server_config: {cert_file: server.pem, key_file: server.key, client_ca_file: ours.pem, client_auth_type: RequireAndVerifyClientCert}\n",
		"protip.yml": fmt.Sprintf("sources:\n  - {name: vc, type: vsphere, url: %q, username: %q, password_file: vc.password, tls_config: {ca_file: vc.pem}}\n"+
			"alertmanager: {receive: {subject: CN=alertmanager}}\nweb: {users_file: users.yml}\n", vc.URL(), user.Username()),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	address := startAgent(t, dir)

	t.Run("without a certificate of its authority there is no HTTP", func(t *testing.T) {
		for name, client := range map[string]*http.Client{"none": ours.client(""), "another authority's": ours.client("mallory")} {
			// With TLS 1.3 a client learns of it after its own part, and HTTP/2 may be quicker to say that there is no connection.
			res, err := client.Get("https://" + address + "/-/healthy")
			if err == nil || !strings.Contains(err.Error(), "tls: ") && !strings.Contains(err.Error(), "conn could not be established") {
				t.Errorf("%s: %v, %v", name, res, err)
			}
		}
	})
	t.Run("a certificate is whose subject it is", func(t *testing.T) {
		for _, tc := range []struct {
			who, method, path, token string
			want                     int
		}{
			{"nobody", "GET", "/-/healthy", "", 200},
			{"nobody", "GET", "/metrics", "", 401},
			{"nobody", "GET", "/api/v1/hosts", token, 200},
			{"nobody", "GET", "/api/v1/hosts", "guess", 401},
			{"nobody", "POST", "/api/v1/alertmanager", "", 401},
			{"nobody", "POST", "/-/reload", token, 403},
			{"prometheus", "GET", "/metrics", "", 200},
			{"prometheus", "GET", "/", "", 200},
			{"prometheus", "POST", "/-/reload", "", 403},
			{"prometheus", "POST", "/api/v1/alertmanager", "", 401},
			{"alertmanager", "GET", "/metrics", "", 401},
			{"alertmanager", "POST", "/api/v1/alertmanager", "", 400}, // it is let in, and sends no message
			{"alertmanager", "POST", "/-/reload", "", 401},
			{"anna", "POST", "/api/v1/alertmanager", "", 401},
			{"anna", "POST", "/-/reload", "", 200},
		} {
			req, err := http.NewRequestWithContext(t.Context(), tc.method, "https://"+address+tc.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if tc.token != "" {
				req.Header.Set("Authorization", "Bearer "+tc.token)
			}
			res, err := ours.client(tc.who).Do(req)
			if err != nil {
				t.Fatalf("%s: %s %s: %v", tc.who, tc.method, tc.path, err)
			}
			body, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if res.StatusCode != tc.want {
				t.Errorf("%s: %s %s with token %q: %d, want %d\n%s", tc.who, tc.method, tc.path, tc.token, res.StatusCode, tc.want, body)
			}
		}
	})
	t.Run("Alertmanager and Prometheus", func(t *testing.T) {
		tlsConfig := func(name string) string {
			return fmt.Sprintf("{ca_file: %s, cert_file: %s, key_file: %s}", ours.file("ours.pem"), ours.file(name+".pem"), ours.file(name+".key"))
		}
		am := prom.StartAlertmanager(t, `route: {receiver: protip, group_wait: 100ms, group_interval: 1s}
receivers:
  - name: protip
    webhook_configs:
      - url: https://`+address+`/api/v1/alertmanager
        http_config: {tls_config: `+tlsConfig("alertmanager")+`}
`)
		res, err := http.Post(am.URL+"/api/v2/alerts", "application/json", strings.NewReader(`[{"labels":{"alertname":"Hot"}}]`))
		if err != nil {
			t.Fatal(err)
		}
		if res.Body.Close(); res.StatusCode != http.StatusOK {
			t.Fatal(res.Status)
		}
		server := prom.StartWith(t, nil, `  - job_name: protip
    scheme: https
    tls_config: `+tlsConfig("prometheus")+`
    static_configs: [{targets: ["`+address+`"]}]
`)
		server.Wait(t, `protip_alerts_received_total{result="firing"}`, patience, func(s []prom.Sample) bool { return len(s) == 1 && s[0].Value >= 1 })
		server.Wait(t, `virt_vm_info`, patience, func(s []prom.Sample) bool { return len(s) == 4 })
	})
}

var agentListens = regexp.MustCompile(`msg="Listening on" address=(\S+)`)

// startAgent runs the built agent on the files of a directory until the test ends, when it must end well, and returns its address.
func startAgent(t *testing.T, dir string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "protip")
	if out, err := exec.Command("go", "build", "-o", binary, "../../cmd/protip").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(binary, "run", "--config.file="+filepath.Join(dir, "protip.yml"), "--storage.path="+filepath.Join(dir, "data"),
		"--web.config.file="+filepath.Join(dir, "web.yml"), "--web.listen-address=127.0.0.1:0")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := func() []byte {
		text, _ := os.ReadFile(log.Name())
		return text
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Errorf("agent: %v\n%s", err, said())
		}
	})
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if m := agentListens.FindSubmatch(said()); m != nil {
			return string(m[1])
		}
	}
	t.Fatal("the agent does not listen")
	return ""
}

// authority issues certificates into a directory.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, dir, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: dir}
	a.cert, a.key = a.sign(name, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// issue writes a certificate for one use, NAME.pem, and its key, NAME.key.
func (a *authority) issue(name string, usage x509.ExtKeyUsage) {
	a.t.Helper()
	a.sign(name, &x509.Certificate{
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	})
}

func (a *authority) sign(name string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	fail := func(err error) {
		if err != nil {
			a.t.Fatal(err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fail(err)
	template.Subject = pkix.Name{CommonName: name}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	fail(err)
	cert, err := x509.ParseCertificate(der)
	fail(err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	fail(err)
	fail(os.WriteFile(a.file(name+".pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	fail(os.WriteFile(a.file(name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	return cert, key
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// client trusts the authority and shows the certificate of that name, whoever issued it; none if the name is empty.
func (a *authority) client(name string) *http.Client {
	a.t.Helper()
	trusted := x509.NewCertPool()
	trusted.AddCert(a.cert)
	config := &tls.Config{RootCAs: trusted}
	if name != "" {
		cert, err := tls.LoadX509KeyPair(a.file(name+".pem"), a.file(name+".key"))
		if err != nil {
			a.t.Fatal(err)
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	a.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}
