package vsphere

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	promconfig "github.com/prometheus/common/config"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

const (
	user     = "watcher@vsphere.local"
	password = "s3cret&pass"
)

// vcenter is a simulated vCenter that counts calls by method.
type vcenter struct {
	url   string
	model *simulator.Model
	calls sync.Map // method -> *atomic.Int64
}

func (v *vcenter) observe(method string) {
	n, _ := v.calls.LoadOrStore(method, new(atomic.Int64))
	n.(*atomic.Int64).Add(1)
}

func (v *vcenter) count(method string) int64 {
	n, ok := v.calls.Load(method)
	if !ok {
		return 0
	}
	return n.(*atomic.Int64).Load()
}

func startVCenter(t *testing.T) *vcenter {
	t.Helper()
	model := simulator.VPX()
	if err := model.Create(); err != nil {
		t.Fatal(err)
	}
	model.Service.Listen = &url.URL{User: url.UserPassword(user, password)}
	server := model.Service.NewServer()
	t.Cleanup(func() { server.Close(); model.Remove() })
	u := *server.URL
	u.User = nil
	return &vcenter{url: u.String(), model: model}
}

func (v *vcenter) options() Options {
	return Options{
		URL: v.url, Username: user, Observe: v.observe, Timeout: 5 * time.Second,
		Password: func() (string, error) { return password, nil },
	}
}

func newSession(t *testing.T, opts Options) *Session {
	t.Helper()
	s, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func currentTime(ctx context.Context, c *Conn) error {
	_, err := c.Properties(ctx, c.ServiceContent.RootFolder, "name")
	return err
}

// terminate ends the session of c at the vCenter, as an administrator or an idle time-out would.
func (v *vcenter) terminate(t *testing.T, c *Conn) {
	t.Helper()
	admin := newSession(t, Options{URL: v.url, Username: user, Password: func() (string, error) { return password, nil }})
	err := admin.Do(t.Context(), func(ctx context.Context, a *Conn) error {
		_, err := methods.TerminateSession(ctx, a, &types.TerminateSession{
			This: *a.ServiceContent.SessionManager, SessionId: []string{c.soap.SessionCookie().Value},
		})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestOneLoginForAllGoroutines(t *testing.T) {
	vc := startVCenter(t)
	s := newSession(t, vc.options())
	all := func() {
		t.Helper()
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if err := s.Do(t.Context(), currentTime); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	all()
	if n := vc.count("Login"); n != 1 {
		t.Errorf("%d log-ins to begin with, want 1", n)
	}
	c, err := s.Login(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	vc.terminate(t, c)
	all()
	if n := vc.count("Login"); n != 2 {
		t.Errorf("%d log-ins after the session was terminated, want 2", n)
	}
	if next, err := s.Relogin(t.Context(), c); err != nil || next == c {
		t.Errorf("who still holds the stale connection gets %p (%v), not the new one", next, err)
	}
	if n := vc.count("Login"); n != 2 {
		t.Errorf("%d log-ins after a late relogin, want 2", n)
	}
}

func TestRefusedPasswordIsSentOnce(t *testing.T) {
	vc := startVCenter(t)
	opts := vc.options()
	var current atomic.Value
	current.Store("wrong password")
	opts.Password = func() (string, error) { return current.Load().(string), nil }
	s := newSession(t, opts)
	for range 5 {
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				err := s.Do(t.Context(), currentTime)
				if !errors.Is(err, ErrInvalidLogin) {
					t.Errorf("got %v, want ErrInvalidLogin", err)
				}
				if err != nil && strings.Contains(err.Error(), "wrong password") {
					t.Errorf("the password is in %q", err)
				}
			})
		}
		wg.Wait()
	}
	if n := vc.count("Login"); n != 1 {
		t.Errorf("the refused password was sent %d times, want once", n)
	}
	current.Store(password)
	if err := s.Do(t.Context(), currentTime); err != nil {
		t.Errorf("after the password was changed: %v", err)
	}
}

func TestCloseLogsOut(t *testing.T) {
	vc := startVCenter(t)
	s := newSession(t, vc.options())
	if err := s.Do(t.Context(), currentTime); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if n := vc.count("Logout"); n != 1 {
		t.Errorf("%d log-outs, want 1", n)
	}
	if err := s.Do(t.Context(), currentTime); !errors.Is(err, errClosed) {
		t.Errorf("after Close: %v", err)
	}
	s.Close() // once more does nothing
}

func TestCallHasDeadline(t *testing.T) {
	block := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-block }))
	t.Cleanup(func() { close(block); server.Close() })
	s := newSession(t, Options{
		URL: server.URL, Username: user, Timeout: 50 * time.Millisecond,
		Password: func() (string, error) { return password, nil },
	})
	_, err := s.Login(t.Context())
	if !IsTimeout(err) || !IsOverload(err) {
		t.Errorf("got %v, want a time-out", err)
	}
}

func TestNoSecretInErrors(t *testing.T) {
	envelope := func(code int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			http.SetCookie(w, &http.Cookie{Name: soap.SessionCookieName, Value: "cookie-7f3a"})
			w.WriteHeader(code)
			fmt.Fprintf(w, `<?xml version="1.0"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>%s</soapenv:Body></soapenv:Envelope>`, body)
		}
	}
	echo := `<soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>no: pass-word-1 cookie-7f3a</faultstring></soapenv:Fault>`
	tests := []struct {
		name    string
		handler http.HandlerFunc
	}{
		{"fault echoes password and cookie", envelope(500, echo)},
		{"not xml", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "pass-word-1") }},
		{"status", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/pass-word-1", http.StatusTemporaryRedirect)
		}},
		{"empty answer", envelope(200, "")},
		{"hangs up", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := httptest.NewServer(tt.handler)
			t.Cleanup(server.Close)
			u, _ := url.Parse(server.URL)
			u.User = url.UserPassword("root", "url-password")
			s := newSession(t, Options{
				URL: u.String(), Username: user, Timeout: time.Second,
				Password: func() (string, error) { return "pass-word-1", nil },
			})
			_, err := s.Login(t.Context())
			if err == nil {
				t.Fatal("no error")
			}
			for _, secret := range []string{"pass-word-1", "url-password", "cookie-7f3a"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%q holds %q", err, secret)
				}
			}
			if !strings.Contains(err.Error(), u.Host) {
				t.Errorf("%q does not name the vCenter", err)
			}
		})
	}
	if _, err := New(Options{URL: "https://root:url-password@vc:port/", Username: user}); err == nil || strings.Contains(err.Error(), "url-password") {
		t.Errorf("bad URL: %v", err)
	}
}

func TestCertificates(t *testing.T) {
	model := simulator.VPX()
	if err := model.Create(); err != nil {
		t.Fatal(err)
	}
	model.Service.TLS = new(tls.Config)
	server := model.Service.NewServer()
	t.Cleanup(func() { server.Close(); model.Remove() })
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := &pem.Block{Type: "CERTIFICATE", Bytes: server.TLS.Certificates[0].Certificate[0]}
	if err := os.WriteFile(ca, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		tls  promconfig.TLSConfig
		want string // in the error, empty if none
	}{
		{"known", promconfig.TLSConfig{CAFile: ca}, ""},
		{"unknown", promconfig.TLSConfig{}, "certificate"},
		{"other name", promconfig.TLSConfig{CAFile: ca, ServerName: "vcenter.example.com"}, "vcenter.example.com"},
		{"no such file", promconfig.TLSConfig{CAFile: ca + ".gone"}, "ca.pem.gone"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSession(t, Options{
				URL: "https://" + server.URL.Host, Username: user, TLS: tt.tls,
				Password: func() (string, error) { return password, nil },
			})
			_, err := s.Login(t.Context())
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestSkew(t *testing.T) {
	vc := startVCenter(t)
	s := newSession(t, vc.options())
	c, err := s.Login(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ahead := func() time.Time { return time.Now().Add(time.Hour) }
	skew, err := c.Skew(t.Context(), ahead)
	if err != nil || skew < time.Hour-5*time.Second || skew > time.Hour+5*time.Second {
		t.Errorf("skew of a clock an hour ahead: %v, %v", skew, err)
	}
	if c.InstanceUUID() == "" || c.APIVersion() == "" {
		t.Error("vCenter has no identity or version")
	}
}

func TestFaults(t *testing.T) {
	vm := types.ManagedObjectReference{Type: "VirtualMachine", Value: "vm-1"}
	soapFault := func(f types.AnyType, text string) error {
		sf := &soap.Fault{Code: "ServerFaultCode", String: text}
		sf.Detail.Fault = f
		return &callError{text: text, err: fmt.Errorf("wrapped: %w", soap.WrapSoapFault(sf))}
	}
	tests := []struct {
		name string
		err  error
		is   func(error) bool
		want bool
	}{
		{"not authenticated", soapFault(types.NotAuthenticated{}, ""), IsNotAuthenticated, true},
		{"not authenticated, method fault", soap.WrapVimFault(&types.NotAuthenticated{}), IsNotAuthenticated, true},
		{"not authenticated, missing set", &missingError{&types.NotAuthenticated{}}, IsNotAuthenticated, true},
		{"not authenticated is not no permission", soapFault(types.NotAuthenticated{}, ""), IsNoPermission, false},
		{"no permission", soapFault(types.NoPermission{}, ""), IsNoPermission, true},
		{"gone", soapFault(types.ManagedObjectNotFound{Obj: vm}, ""), IsGone, true},
		{"invalid argument is not gone", soapFault(types.InvalidArgument{}, ""), IsGone, false},
		{"restricted", soapFault(nil, "query is restricted by administrator"), IsRestricted, true},
		{"restricted, fault", soapFault(types.RestrictedByAdministrator{}, ""), IsRestricted, true},
		{"restricted is overload", soapFault(nil, "query is restricted by administrator"), IsOverload, true},
		{"bad gateway", &callError{text: "vcenter x: QueryPerf: 502 Bad Gateway", err: errors.New("x")}, IsOverload, true},
		{"deadline", fmt.Errorf("x: %w", context.DeadlineExceeded), IsTimeout, true},
		{"cancelled is not a time-out", context.Canceled, IsTimeout, false},
		{"nil", nil, IsNotAuthenticated, false},
		{"nil", nil, IsOverload, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.is(tt.err); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
	if ref, ok := Gone(soapFault(types.ManagedObjectNotFound{Obj: vm}, "")); !ok || ref != vm {
		t.Errorf("gone: %v %v", ref, ok)
	}
}

func TestPasswordFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte(" p w \r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := PasswordFile(path)(); got != " p w " || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := PasswordFile(path + ".gone")(); err == nil || !strings.Contains(err.Error(), ".gone") {
		t.Errorf("missing file: %v", err)
	}
}
