package vsphere

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/sim"
	"github.com/protip/protip/remediation"
)

// proxied puts a proxy before the vCenter that answers migration calls by itself, and counts them.
func (vc *vcenter) proxied(t *testing.T, answer http.HandlerFunc) (ex *Executor, calls *atomic.Int32) {
	t.Helper()
	calls = new(atomic.Int32)
	proxy := httputil.NewSingleHostReverseProxy(vc.URL().JoinPath("/.."))
	proxy.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if bytes.Contains(body, []byte("<MigrateVM_Task ")) || bytes.Contains(body, []byte("<RelocateVM_Task ")) {
			calls.Add(1)
			answer(w, r)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	return vc.executor(t, func(o *Options) {
		o.Session.URL = srv.URL + vc.URL().Path
		o.Session.TLS.CA = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
		o.Timeout = 500 * time.Millisecond
	}), calls
}

const envelope = `<?xml version="1.0"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>%</soapenv:Body></soapenv:Envelope>`

// TestAnswersThatDecideNothing: whatever is not the vCenter's own word is undecided, and no layer sends the call again.
func TestAnswersThatDecideNothing(t *testing.T) {
	vc := newVCenter(t)
	say := func(code int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/xml")
			w.Header().Set("Location", "https://192.0.2.1/sdk")
			w.WriteHeader(code)
			io.WriteString(w, body)
		}
	}
	for name, answer := range map[string]http.HandlerFunc{
		"503 of a proxy":     say(503, "no upstream"),
		"502":                say(502, ""),
		"redirect":           say(307, ""),
		"401":                say(401, ""),
		"nothing":            say(200, ""),
		"no XML":             say(200, "<html>login</html>"),
		"an empty body":      say(200, strings.ReplaceAll(envelope, "%", "")),
		"a response of none": say(200, strings.ReplaceAll(envelope, "%", `<MigrateVM_TaskResponse xmlns="urn:vim25"></MigrateVM_TaskResponse>`)),
		"an unknown fault":   say(500, strings.ReplaceAll(envelope, "%", `<soapenv:Fault><faultcode>x</faultcode><faultstring>y</faultstring></soapenv:Fault>`)),
		"half an answer":     say(200, envelope[:100]),
		"a cut connection":   func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"silence": func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-time.After(5 * time.Second):
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			ex, calls := vc.proxied(t, answer)
			err := ex.Do(t.Context(), vc.action(), ignore)
			if !errors.Is(err, remediation.ErrUndecided) {
				t.Errorf("do: %v, want ErrUndecided", err)
			}
			if n := calls.Load(); n != 1 {
				t.Errorf("%d calls", n)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("secret in %v", err)
			}
		})
	}
}

// TestStopWhileTheCallIsOnItsWay: an agent that stops still gets the ref of the task that it started.
func TestStopWhileTheCallIsOnItsWay(t *testing.T) {
	vc := newVCenter(t)
	vc.Inject(sim.Fault{Method: "MigrateVM_Task", Times: 1, Delay: 300 * time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for vc.Calls("MigrateVM_Task") == 0 && t.Context().Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		cancel()
	}()
	var got remediation.Progress
	err := vc.executor(t, nil).Do(ctx, vc.action(), func(p remediation.Progress) error { got = p; return nil })
	if !errors.Is(err, context.Canceled) || got.TaskRef == "" {
		t.Errorf("do: %v, reported %+v; want the context's error after the task's ref", err, got)
	}
}

func TestNothingWasSent(t *testing.T) {
	vc := newVCenter(t)
	for name, loggedIn := range map[string]bool{"never logged in": false, "logged in before": true} {
		t.Run(name, func(t *testing.T) {
			ex, action := vc.executor(t, nil), vc.action()
			if loggedIn {
				if err := ex.Check(t.Context(), action); err != nil {
					t.Fatal(err)
				}
			}
			vc.Stop()
			// The connection that breaks under this call leaves the next one to be made anew.
			if err := ex.Check(t.Context(), action); err == nil {
				t.Fatal("check of a vCenter that is down")
			}
			defer func() {
				if err := vc.Restart(); err != nil {
					t.Fatal(err)
				}
				vc.loginAgain()
			}()
			err := ex.Do(t.Context(), action, ignore)
			var network net.Error
			if err == nil || !strings.Contains(err.Error(), "nothing was sent") || errors.Is(err, remediation.ErrUndecided) || errors.As(err, &network) {
				t.Errorf("do: %v, want a plain error: nothing was sent", err)
			}
		})
	}
}

// TestRefusedSession: the one repetition there is. A vCenter that keeps refusing gets no third call.
func TestRefusedSession(t *testing.T) {
	vc := newVCenter(t)
	action := vc.action()
	ex := vc.executor(t, nil)
	vc.Inject(sim.Fault{Method: "MigrateVM_Task", Times: 2, Fault: &types.NotAuthenticated{}})
	err := ex.Do(t.Context(), action, ignore)
	if err == nil || errors.Is(err, remediation.ErrUndecided) || !strings.Contains(err.Error(), "NotAuthenticated") {
		t.Errorf("do: %v, want the refusal", err)
	}
	if n := vc.Calls("MigrateVM_Task"); n != 2 {
		t.Errorf("%d calls, want 2", n)
	}
	vc.Inject(sim.Fault{Method: "MigrateVM_Task", Times: 1, Fault: &types.NotAuthenticated{}})
	if err := ex.Do(t.Context(), action, ignore); err != nil {
		t.Errorf("do: %v", err)
	}
	if n := vc.MigrationCalls()[vc.vm]; vc.host() != action.To || n != 1 {
		t.Errorf("the VM is on %s after %d calls that were looked at, want 1", vc.host(), n)
	}
}

// TestForgottenTask: where the VM is decides.
func TestForgottenTask(t *testing.T) {
	vc := newVCenter(t)
	a := vc.action()
	a.TaskRef = "task-forgotten"
	elsewhere := inventory.ID{Source: "muc", Kind: inventory.KindHost, Ref: "host-elsewhere"}

	there, here := a, a
	there.From, there.To = a.To, a.From
	other := a
	other.From = elsewhere
	gone := a
	gone.VM.Ref = "vm-nobody"
	for name, tc := range map[string]struct {
		action    remediation.Action
		ok, undec bool
	}{
		"on its target":       {there, true, false},
		"on its source":       {here, false, false},
		"on neither":          {other, false, true},
		"no such VM any more": {gone, false, true},
	} {
		err := vc.executor(t, nil).Do(t.Context(), tc.action, ignore)
		if (err == nil) != tc.ok || errors.Is(err, remediation.ErrUndecided) != tc.undec {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := vc.Calls("MigrateVM_Task") + vc.Calls("RelocateVM_Task"); n != 0 {
		t.Errorf("%d migration calls", n)
	}
}

func TestOutageWhileWaiting(t *testing.T) {
	vc := newVCenter(t)
	a := vc.action()
	down := false
	err := vc.executor(t, nil).Do(t.Context(), a, func(remediation.Progress) error {
		if !down {
			down = true
			vc.Stop()
			time.AfterFunc(200*time.Millisecond, func() {
				if err := vc.Restart(); err != nil {
					t.Error(err)
				}
			})
		}
		return nil
	})
	if err != nil {
		t.Errorf("do through an outage: %v", err)
	}
	vc.loginAgain()
	if n := vc.MigrationCalls()[vc.vm]; vc.host() != a.To || n != 1 {
		t.Errorf("the VM is on %s after %d calls", vc.host(), n)
	}

	back := a
	back.From, back.To = a.To, a.From
	impatient := vc.executor(t, func(o *Options) { o.Patience = 200 * time.Millisecond })
	err = impatient.Do(t.Context(), back, func(remediation.Progress) error { vc.Stop(); return nil })
	if !errors.Is(err, remediation.ErrUndecided) || !strings.Contains(err.Error(), "not readable for 200ms") {
		t.Errorf("do without patience: %v, want ErrUndecided", err)
	}
}

func TestCloseLogsOut(t *testing.T) {
	vc := newVCenter(t)
	ex := vc.executor(t, nil)
	before := vc.Sessions()
	if err := ex.Check(t.Context(), vc.action()); err != nil {
		t.Fatal(err)
	}
	if n := vc.Sessions(); n != before+1 {
		t.Errorf("%d sessions, want %d", n, before+1)
	}
	ex.Close()
	if n := vc.Sessions(); n != before {
		t.Errorf("%d sessions after Close, want %d", n, before)
	}
	if err := ex.Check(t.Context(), vc.action()); err == nil {
		t.Error("check after Close succeeded")
	}
}
