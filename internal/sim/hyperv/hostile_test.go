package hyperv

import (
	"testing"
)

// What comes from the network is read by these alone.

func FuzzRequest(f *testing.F) {
	f.Add([]byte(`<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Header><a:Action xmlns:a="x">x/Enumerate</a:Action></s:Header><s:Body><Enumerate><MaxElements>3</MaxElements></Enumerate></s:Body></s:Envelope>`))
	f.Add([]byte(`<!DOCTYPE x><x/>`))
	f.Add([]byte(`<a><b></a></b>`))
	c, err := build(withDefaults(Options{Nodes: []Node{{VMs: []VM{{}}}}}))
	if err != nil {
		f.Fatal(err)
	}
	e := &endpoint{key: "hv-01", machine: &nodeMachine{c, c.model.nodes[0]}, faults: &c.faults, calls: &c.calls, opt: &c.opt, schema: c.schema, gate: c.gate, shutters: func() map[string]bool { return nil }}
	f.Fuzz(func(t *testing.T, doc []byte) {
		if a := e.answer(t.Context(), &account{name: "x"}, doc); a.status == 0 {
			t.Errorf("no status for %q", doc)
		}
	})
}

func FuzzNTLM(f *testing.F) {
	f.Add([]byte("NTLMSSP\x00\x01\x00\x00\x00\x00\x00\x00\x00"), make([]byte, 80))
	f.Add([]byte("NTLMSSP\x00\x01\x00\x00\x00\x01\x02\x00\x00"), append([]byte("NTLMSSP\x00\x03\x00\x00\x00"), make([]byte, 80)...))
	f.Fuzz(func(t *testing.T, first, last []byte) {
		n := &ntlmServer{machine: "m", domain: "D", dnsDomain: "d.example"}
		if _, err := n.respond(first); err != nil {
			return
		}
		if _, _, err := n.accept(last, func(string, string) (string, bool) { return "secret", true }); err == nil {
			t.Error("nonsense proves who somebody is")
		}
	})
}

func FuzzSealed(f *testing.F) {
	f.Add([]byte("--Encrypted Boundary\r\n\tOriginalContent: type=x;Length=0\r\n--Encrypted Boundary\r\n\tContent-Type: application/octet-stream\r\n\x10\x00\x00\x00aaaaaaaaaaaaaaaa--Encrypted Boundary--\r\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		s, err := newSealing(make([]byte, 16), ntlmOffered)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := (&visitor{sealing: s}).unseal(body); err == nil {
			t.Error("what nobody sealed is taken")
		}
	})
}
