package hyperv_test

import (
	"context"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/masterzen/winrm"

	"github.com/protip/protip/internal/sim/hyperv"
)

// TestMasterzen: the Go client that most programs use opens a shell, runs a command and closes it, by Basic and by NTLM, over TLS.
func TestMasterzen(t *testing.T) {
	c, err := hyperv.New(hyperv.Options{Name: "hv", Seed: 1, Nodes: []hyperv.Node{{Name: "hv-01"}, {Name: "hv-02"}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	u, err := url.Parse(c.TLSURL("hv-01"))
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	for name, transport := range map[string]func() winrm.Transporter{
		"basic": nil,
		"ntlm":  func() winrm.Transporter { return &winrm.ClientNTLM{} },
	} {
		t.Run(name, func(t *testing.T) {
			params := *winrm.DefaultParameters
			params.TransportDecorator = transport
			endpoint := winrm.NewEndpoint(u.Hostname(), port, true, false, c.CA(), nil, nil, 30*time.Second)
			client, err := winrm.NewClientWithParameters(endpoint, hyperv.DefaultUser, hyperv.DefaultPassword, &params)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			out, said, code, err := client.RunCmdWithContext(ctx, "echo hello")
			if err != nil || code != 0 || strings.TrimSpace(out) != "hello" {
				t.Errorf("%q, %q, %d, %v", out, said, code, err)
			}
			if n := c.Shells("hv-01"); n != 0 {
				t.Errorf("%d shells are open", n)
			}
		})
	}
}
