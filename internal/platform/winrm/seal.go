package winrm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/bodgit/ntlmssp"
)

const (
	boundary     = "Encrypted Boundary"
	sealProtocol = "application/HTTP-SPNEGO-session-encrypted"
	signatureLen = 16
)

// sealing encrypts and signs what goes over one connection. Both sides count: a message that is lost, repeated or out of
// order breaks it.
type sealing struct{ session *ntlmssp.SecuritySession }

func (*sealing) contentType() string {
	return `multipart/encrypted;protocol="` + sealProtocol + `";boundary="` + boundary + `"`
}

// seal writes an envelope as WinRM's multipart: a head that tells the plain length, and the signature and cipher text.
func (s *sealing) seal(envelope []byte) ([]byte, error) {
	sealed, signature, err := s.session.Wrap(envelope)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	var b bytes.Buffer
	b.Grow(len(sealed) + 512)
	fmt.Fprintf(&b, "--%s\r\nContent-Type: %s\r\nOriginalContent: type=%s;Length=%d\r\n--%[1]s\r\nContent-Type: application/octet-stream\r\n",
		boundary, sealProtocol, soapType, len(envelope))
	b.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(signature))))
	b.Write(signature)
	b.Write(sealed)
	b.WriteString("--" + boundary + "--\r\n")
	return b.Bytes(), nil
}

// open reads one or more such parts. Windows writes them in a form that no MIME reader takes, and the cipher text may hold
// the boundary: only the lengths tell.
func (s *sealing) open(body []byte, limit int) ([]byte, error) {
	var plain []byte
	for rest := body; ; {
		length, payload, err := partHead(rest)
		if err != nil {
			return nil, err
		}
		if length > limit-len(plain) {
			return nil, fmt.Errorf("it says to hold %d bytes", length)
		}
		if len(payload) < 4+signatureLen+length || binary.LittleEndian.Uint32(payload) != signatureLen {
			return nil, errors.New("it is too short")
		}
		text, err := s.session.Unwrap(payload[4+signatureLen:4+signatureLen+length], payload[4:4+signatureLen])
		if err != nil {
			return nil, err
		}
		plain = append(plain, text...)
		rest = payload[4+signatureLen+length:]
		end := []byte("--" + boundary + "--")
		if rest = bytes.TrimLeft(rest, "\r\n"); bytes.HasPrefix(rest, end) {
			return plain, nil
		}
	}
}

// partHead reads a part's two heads: the length of the plain text, and what follows.
func partHead(b []byte) (length int, payload []byte, err error) {
	const most = 1 << 10
	mark := []byte("Content-Type: application/octet-stream\r\n")
	i := bytes.Index(b[:min(len(b), most)], mark)
	if i < 0 {
		return 0, nil, errors.New("it is not sealed")
	}
	_, after, ok := strings.Cut(string(b[:i]), "Length=")
	digits := after[:len(after)-len(strings.TrimLeft(after, "0123456789"))]
	length, err = strconv.Atoi(digits)
	if !ok || err != nil {
		return 0, nil, errors.New("it says no length")
	}
	return length, b[i+len(mark):], nil
}
