package sim

import (
	"bytes"
	"crypto/subtle"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// Extension is an account that logs in with a certificate of its own, through the SDK tunnel only.
type Extension struct {
	Key         string
	Certificate []byte // DER
}

// sdkTunnel is the host that the tunnel leads to, by the name that clients ask it for.
const sdkTunnel = "sdkTunnel:8089"

// extensionLogin lets an extension's log-in reach the stock service, which takes any certificate and any key that is not empty,
// as what it is worth: without a certificate unless it came through the tunnel, without a key unless they belong together.
func (vc *VCenter) extensionLogin(r *http.Request, request []byte) {
	if !calls(request, "LoginExtensionByCertificate") || r.TLS == nil {
		return
	}
	if r.Host != sdkTunnel || len(r.TLS.PeerCertificates) == 0 {
		r.TLS = nil
		return
	}
	m, err := simulator.UnmarshalBody(types.TypeFunc(), request)
	if err != nil {
		return // the service says why
	}
	login, ok := m.Body.(*types.LoginExtensionByCertificate)
	if !ok {
		return
	}
	for _, e := range vc.cfg.Extensions {
		if e.Key == login.ExtensionKey && subtle.ConstantTimeCompare(e.Certificate, r.TLS.PeerCertificates[0].Raw) == 1 {
			return
		}
	}
	refused := bytes.ReplaceAll(request, []byte(">"+login.ExtensionKey+"<"), []byte("><"))
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(refused)), int64(len(refused))
}

// TunnelAddr is where the running vCenter takes CONNECT requests for its SDK tunnel; on a real one it is port 80.
func (vc *VCenter) TunnelAddr() string {
	vc.life.Lock()
	defer vc.life.Unlock()
	return vc.tunnelAddr
}

// serveTunnel starts the tunnel at a port of its own, the same after each restart.
func (vc *VCenter) serveTunnel() (*http.Server, error) {
	if vc.tunnelAddr == "" {
		vc.tunnelAddr = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", vc.tunnelAddr)
	if err != nil {
		return nil, err
	}
	vc.tunnelAddr = listener.Addr().String()
	to := vc.addr
	server := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { tunnel(w, r, to) }),
		ReadHeaderTimeout: 10 * time.Second, ErrorLog: discardLog(),
	}
	vc.work.Go(func() { _ = server.Serve(listener) })
	return server, nil
}

func tunnel(w http.ResponseWriter, r *http.Request, to string) {
	if r.Method != http.MethodConnect || r.Host != sdkTunnel {
		http.Error(w, "not a tunnel", http.StatusMethodNotAllowed)
		return
	}
	far, err := net.Dial("tcp", to)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer far.Close()
	w.WriteHeader(http.StatusOK)
	near, ahead, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer near.Close()
	go func() {
		_, _ = io.Copy(near, far)
		near.Close()
	}()
	_, _ = io.Copy(far, ahead) // the server may have read the first bytes already
}
