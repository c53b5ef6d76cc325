package sim

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
)

// TestHTTPFaults holds that each fault is what it says, and that the next call is answered.
func TestHTTPFaults(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault HTTPFault
		check func(t *testing.T, err error, took time.Duration)
	}{
		{"503", HTTPFault{Status: 503}, func(t *testing.T, err error, _ time.Duration) {
			if err == nil || !strings.Contains(err.Error(), "503 Service Unavailable") {
				t.Error(err)
			}
		}},
		{"half-closed", HTTPFault{HalfClose: true}, func(t *testing.T, err error, took time.Duration) {
			if !errors.Is(err, io.EOF) || took > 5*time.Second {
				t.Errorf("%v after %v", err, took)
			}
		}},
		{"truncated", HTTPFault{Truncate: 200}, func(t *testing.T, err error, _ time.Duration) {
			if err == nil || !strings.Contains(err.Error(), "XML syntax error") {
				t.Error(err)
			}
		}},
		{"cut", HTTPFault{Break: 200}, func(t *testing.T, err error, _ time.Duration) {
			if err == nil || !strings.Contains(err.Error(), "EOF") {
				t.Error(err)
			}
		}},
		{"slow", HTTPFault{Pause: 50 * time.Millisecond}, func(t *testing.T, err error, took time.Duration) {
			if err != nil || took < 50*time.Millisecond {
				t.Errorf("%v after %v", err, took)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			vc := start(t, Config{})
			c := client(t, vc)
			tt.fault.Method, tt.fault.Times = "CurrentTime", 1
			vc.InjectHTTP(tt.fault)
			began := time.Now()
			_, err := methods.GetCurrentTime(context.Background(), c)
			tt.check(t, err, time.Since(began))
			if _, err := methods.GetCurrentTime(context.Background(), c); err != nil {
				t.Errorf("the next call: %v", err)
			}
		})
	}
}
