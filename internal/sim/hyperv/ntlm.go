package hyperv

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/rc4"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf16"

	"golang.org/x/crypto/md4" //lint:ignore SA1019 NTLM is made of it
)

// Flags of NTLM (MS-NLMP 2.2.2.5) that matter here.
const (
	ntlmUnicode          = 0x00000001
	ntlmOEM              = 0x00000002
	ntlmRequestTarget    = 0x00000004
	ntlmSign             = 0x00000010
	ntlmSeal             = 0x00000020
	ntlmNTLM             = 0x00000200
	ntlmAlwaysSign       = 0x00008000
	ntlmTargetIsDomain   = 0x00010000
	ntlmExtendedSecurity = 0x00080000
	ntlmTargetInfo       = 0x00800000
	ntlmVersion          = 0x02000000
	ntlm128              = 0x20000000
	ntlmKeyExchange      = 0x40000000
	ntlm56               = 0x80000000
)

const ntlmOffered = ntlmUnicode | ntlmRequestTarget | ntlmSign | ntlmSeal | ntlmNTLM | ntlmAlwaysSign | ntlmTargetIsDomain | ntlmExtendedSecurity |
	ntlmTargetInfo | ntlmVersion | ntlm128 | ntlmKeyExchange | ntlm56

// ntlmServer is the service's side of one handshake: it takes the negotiate message, gives the challenge, and judges the proof.
// Only NTLMv2 with extended session security is taken.
type ntlmServer struct {
	machine, domain      string // NetBIOS domain
	dnsDomain            string
	negotiate, challenge []byte
	nonce                [8]byte
	flags                uint32
}

var ntlmSignature = []byte("NTLMSSP\x00")

var errNTLM = errors.New("not a valid NTLM message")

// respond is the challenge for a negotiate message.
func (n *ntlmServer) respond(negotiate []byte) ([]byte, error) {
	if len(negotiate) < 16 || !bytes.HasPrefix(negotiate, ntlmSignature) || binary.LittleEndian.Uint32(negotiate[8:]) != 1 {
		return nil, errNTLM
	}
	asked := binary.LittleEndian.Uint32(negotiate[12:])
	n.flags = ntlmOffered &^ (ntlmSign | ntlmSeal | ntlm128 | ntlmKeyExchange | ntlm56 | ntlmVersion | ntlmExtendedSecurity)
	n.flags |= asked & (ntlmSign | ntlmSeal | ntlm128 | ntlmKeyExchange | ntlm56 | ntlmVersion | ntlmExtendedSecurity)
	if asked&ntlmUnicode == 0 { // names travel in the OEM code page, as ntlm-auth has it; the proof is of Unicode nevertheless
		n.flags = n.flags&^ntlmUnicode | ntlmOEM
	}
	if _, err := rand.Read(n.nonce[:]); err != nil {
		return nil, err
	}
	n.negotiate = bytes.Clone(negotiate)

	var info []byte
	pair := func(id uint16, value []byte) {
		info = binary.LittleEndian.AppendUint16(info, id)
		info = binary.LittleEndian.AppendUint16(info, uint16(len(value)))
		info = append(info, value...)
	}
	pair(2, utf16Bytes(n.domain))
	pair(1, utf16Bytes(strings.ToUpper(n.machine)))
	pair(4, utf16Bytes(n.dnsDomain))
	pair(3, utf16Bytes(n.machine+"."+n.dnsDomain))
	pair(7, binary.LittleEndian.AppendUint64(nil, fileTime(time.Now())))
	pair(0, nil)

	target := nameBytes(n.domain, n.flags)
	const fixed = 56
	m := append([]byte{}, ntlmSignature...)
	m = binary.LittleEndian.AppendUint32(m, 2)
	m = appendField(m, len(target), fixed)
	m = binary.LittleEndian.AppendUint32(m, n.flags)
	m = append(m, n.nonce[:]...)
	m = append(m, make([]byte, 8)...)
	m = appendField(m, len(info), fixed+len(target))
	m = append(m, 10, 0, 0x63, 0x45, 0, 0, 0, 15) // version 10.0.17763, as Server 2019 says
	m = append(m, target...)
	n.challenge = append(m, info...)
	return n.challenge, nil
}

func appendField(m []byte, length, offset int) []byte {
	m = binary.LittleEndian.AppendUint16(m, uint16(length))
	m = binary.LittleEndian.AppendUint16(m, uint16(length))
	return binary.LittleEndian.AppendUint32(m, uint32(offset))
}

// fileTime is a time in 100 ns since 1601.
func fileTime(t time.Time) uint64 { return uint64(t.UnixNano()/100) + 116444736000000000 }

// proof is a parsed authenticate message.
type proof struct {
	user, domain string
	nt, key      []byte
	flags        uint32
}

func parseProof(m []byte) (*proof, error) {
	if len(m) < 64 || !bytes.HasPrefix(m, ntlmSignature) || binary.LittleEndian.Uint32(m[8:]) != 3 {
		return nil, errNTLM
	}
	field := func(at int) ([]byte, error) {
		length, offset := int(binary.LittleEndian.Uint16(m[at:])), int(binary.LittleEndian.Uint32(m[at+4:]))
		if length == 0 {
			return nil, nil
		}
		if offset < 0 || offset > len(m) || length > len(m)-offset {
			return nil, errNTLM
		}
		return m[offset : offset+length], nil
	}
	p := &proof{flags: binary.LittleEndian.Uint32(m[60:])}
	var names [2][]byte
	for i, at := range []int{28, 36} {
		var err error
		if names[i], err = field(at); err != nil {
			return nil, err
		}
	}
	p.domain, p.user = nameString(names[0], p.flags), nameString(names[1], p.flags)
	var err error
	if p.nt, err = field(20); err != nil {
		return nil, err
	}
	if p.key, err = field(52); err != nil {
		return nil, err
	}
	return p, nil
}

// accept judges an authenticate message. password tells a user's password, false if there is no such user.
func (n *ntlmServer) accept(authenticate []byte, password func(user, domain string) (string, bool)) (user string, s *sealing, err error) {
	p, err := parseProof(authenticate)
	if err != nil {
		return "", nil, err
	}
	if len(p.nt) < 16+28 || p.flags&ntlmExtendedSecurity == 0 {
		return "", nil, errors.New("no NTLMv2 proof")
	}
	secret, exists := password(p.user, p.domain)
	if !exists {
		return "", nil, fmt.Errorf("user %s: %w", p.user, ErrUnknown)
	}
	hash := md4.New()
	hash.Write(utf16Bytes(secret))
	ntowf := macMD5(hash.Sum(nil), utf16Bytes(strings.ToUpper(p.user)+p.domain))
	proven := macMD5(ntowf, n.nonce[:], p.nt[16:])
	if !hmac.Equal(proven, p.nt[:16]) {
		return "", nil, errors.New("wrong password")
	}
	key := macMD5(ntowf, proven)
	if p.flags&ntlmKeyExchange != 0 {
		if len(p.key) != 16 {
			return "", nil, errNTLM
		}
		cipher, err := rc4.NewCipher(key)
		if err != nil {
			return "", nil, err
		}
		exported := make([]byte, 16)
		cipher.XORKeyStream(exported, p.key)
		key = exported
	}
	if err := n.checkMIC(p, authenticate, key); err != nil {
		return "", nil, err
	}
	s, err = newSealing(key, p.flags)
	return p.user, s, err
}

// checkMIC checks the code over all three messages, if the proof says that there is one.
func (n *ntlmServer) checkMIC(p *proof, authenticate, key []byte) error {
	info := p.nt[44:]
	said := false
	for len(info) >= 4 {
		id, length := binary.LittleEndian.Uint16(info), int(binary.LittleEndian.Uint16(info[2:]))
		if id == 0 || length > len(info)-4 {
			break
		}
		if id == 6 && length == 4 {
			said = info[4]&2 != 0
		}
		info = info[4+length:]
	}
	if !said {
		return nil
	}
	const at = 72
	if len(authenticate) < at+16 {
		return errNTLM
	}
	blank := bytes.Clone(authenticate)
	clear(blank[at : at+16])
	if !hmac.Equal(macMD5(key, n.negotiate, n.challenge, blank), authenticate[at:at+16]) {
		return errors.New("the message integrity code is wrong")
	}
	return nil
}

func macMD5(key []byte, parts ...[]byte) []byte {
	mac := hmac.New(md5.New, key)
	for _, p := range parts {
		mac.Write(p)
	}
	return mac.Sum(nil)
}

func utf16Bytes(s string) []byte {
	var b []byte
	for _, unit := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, unit)
	}
	return b
}

// nameBytes is a name in the code page that was agreed on. Of the OEM code page only ASCII is known here.
func nameBytes(s string, flags uint32) []byte {
	if flags&ntlmUnicode == 0 {
		return []byte(s)
	}
	return utf16Bytes(s)
}

func nameString(b []byte, flags uint32) string {
	if flags&ntlmUnicode == 0 {
		return string(b)
	}
	return utf16String(b)
}

func utf16String(b []byte) string {
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return string(utf16.Decode(units))
}

// sealing encrypts and signs the messages of one connection. They must come and go in order.
type sealing struct {
	seals   bool
	in, out sealingWay
}

type sealingWay struct {
	sign     []byte
	cipher   *rc4.Cipher
	sequence uint32
	exchange bool
}

func newSealing(key []byte, flags uint32) (*sealing, error) {
	way := func(direction string) (sealingWay, error) {
		derive := func(key []byte, purpose string) []byte {
			sum := md5.Sum(append(bytes.Clone(key), "session key to "+direction+" "+purpose+" key magic constant\x00"...))
			return sum[:]
		}
		short := key
		switch {
		case flags&ntlm128 != 0:
		case flags&ntlm56 != 0:
			short = key[:7]
		default:
			short = key[:5]
		}
		cipher, err := rc4.NewCipher(derive(short, "sealing"))
		return sealingWay{sign: derive(key, "signing"), cipher: cipher, exchange: flags&ntlmKeyExchange != 0}, err
	}
	s := &sealing{seals: flags&ntlmSeal != 0}
	var err error
	if s.in, err = way("client-to-server"); err != nil {
		return nil, err
	}
	s.out, err = way("server-to-client")
	return s, err
}

// signature is the 16 bytes that prove a message, and counts it.
func (w *sealingWay) signature(plain []byte) []byte {
	sequence := binary.LittleEndian.AppendUint32(nil, w.sequence)
	sum := macMD5(w.sign, sequence, plain)[:8]
	if w.exchange {
		w.cipher.XORKeyStream(sum, sum)
	}
	w.sequence++
	return append(append([]byte{1, 0, 0, 0}, sum...), sequence...)
}

func (s *sealing) wrap(plain []byte) (sealed, signature []byte) {
	sealed = make([]byte, len(plain))
	s.out.cipher.XORKeyStream(sealed, plain)
	return sealed, s.out.signature(plain)
}

func (s *sealing) unwrap(sealed, signature []byte) ([]byte, error) {
	plain := make([]byte, len(sealed))
	s.in.cipher.XORKeyStream(plain, sealed)
	if !hmac.Equal(signature, s.in.signature(plain)) {
		return nil, errors.New("the signature does not match the message")
	}
	return plain, nil
}
