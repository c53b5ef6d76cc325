package winrm

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/bodgit/ntlmssp"
)

// loginNTLM makes the handshake: two requests without a body, and then the connection is logged in. Any answer but the
// expected ends it: there is no way on without a seal.
func (c *conn) loginNTLM(ctx context.Context, password string) error {
	domain, user := splitUser(c.client.opts.Username)
	client, err := ntlmssp.NewClient(ntlmssp.SetUserInfo(user, password), ntlmssp.SetDomain(domain), ntlmssp.SetVersion(ntlmssp.DefaultVersion()))
	if err != nil {
		return fmt.Errorf("ntlm: %w", err)
	}
	hello, err := client.Authenticate(nil, nil)
	if err != nil {
		return fmt.Errorf("ntlm: %w", err)
	}
	res, err := c.negotiate(ctx, hello)
	if err != nil {
		return err
	}
	theirs, ok := challenge(res)
	if res.status != http.StatusUnauthorized || c.dead {
		return fmt.Errorf("ntlm: http status %d instead of a challenge: %w", res.status, ErrUnavailable)
	}
	if !ok {
		return fmt.Errorf("ntlm: the host does not offer Negotiate: %w", ErrUnavailable)
	}
	proof, err := c.prove(client, theirs)
	if err != nil {
		return fmt.Errorf("ntlm: %w", err)
	}
	if res, err = c.negotiate(ctx, proof); err != nil {
		return err
	}
	switch {
	case res.status == http.StatusUnauthorized:
		return &refusal{c.client.opts.Username}
	case res.status != http.StatusOK || c.dead:
		return fmt.Errorf("ntlm: http status %d after the proof: %w", res.status, ErrUnavailable)
	case c.tls != nil:
		return nil // TLS seals, and Windows expects no second seal within it
	case client.SecuritySession() == nil:
		return errors.New("ntlm: the host agreed to no seal")
	}
	c.sealing = &sealing{session: client.SecuritySession()}
	return nil
}

// refusal is a log-in that the host refused for what was sent.
type refusal struct{ user string }

func (r *refusal) Error() string { return fmt.Sprintf("log in as %q: %v", r.user, ErrCredentials) }
func (r *refusal) Unwrap() error { return ErrCredentials }

func isRefusal(err error) bool {
	var r *refusal
	return errors.As(err, &r)
}

// sealFlags are what a challenge must hold for messages to be sealed: Unicode, sign, seal, extended session security, 128
// bit, key exchange.
const sealFlags = 0x1 | 0x10 | 0x20 | 0x80000 | 0x20000000 | 0x40000000

// prove answers a challenge. A challenge is a stranger's bytes: a decoder that panics on it is an error.
func (c *conn) prove(client *ntlmssp.Client, theirs []byte) (proof []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("the challenge cannot be read")
		}
	}()
	const flagsAt = 20
	if len(theirs) < flagsAt+4 {
		return nil, errors.New("the challenge is too short")
	}
	flags := uint32(theirs[flagsAt]) | uint32(theirs[flagsAt+1])<<8 | uint32(theirs[flagsAt+2])<<16 | uint32(theirs[flagsAt+3])<<24
	if c.tls == nil && flags&sealFlags != sealFlags {
		return nil, fmt.Errorf("the host offers no strong seal (flags 0x%08X)", flags)
	}
	var bindings *ntlmssp.ChannelBindings
	if c.tls != nil && len(c.tls.PeerCertificates) > 0 {
		bindings = endPoint(c.tls.PeerCertificates[0])
	}
	return client.Authenticate(theirs, bindings)
}

// endPoint binds the log-in to the TLS connection it is made on, by the certificate's hash (RFC 5929), so that nobody in
// the middle can carry it elsewhere.
func endPoint(cert *x509.Certificate) *ntlmssp.ChannelBindings {
	hash := crypto.SHA256 // also in place of MD5 and SHA-1
	switch cert.SignatureAlgorithm {
	case x509.SHA384WithRSA, x509.ECDSAWithSHA384, x509.SHA384WithRSAPSS:
		hash = crypto.SHA384
	case x509.SHA512WithRSA, x509.ECDSAWithSHA512, x509.SHA512WithRSAPSS:
		hash = crypto.SHA512
	case x509.PureEd25519:
		return nil // has no hash of its own, and so no binding
	}
	h := hash.New()
	h.Write(cert.Raw)
	return &ntlmssp.ChannelBindings{ApplicationData: h.Sum([]byte(ntlmssp.TLSServerEndPoint + ":"))}
}

// splitUser is the domain and name of DOMAIN\user. user@domain is a name of its own.
func splitUser(s string) (domain, user string) {
	if domain, user, ok := strings.Cut(s, `\`); ok {
		return strings.TrimPrefix(domain, "."), user
	}
	return "", s
}
