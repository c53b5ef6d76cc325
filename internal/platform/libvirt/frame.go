package libvirt

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// A message of libvirt's RPC: its whole length, six words of header, the payload. All big-endian.
const (
	headerSize = 28
	// maxFrame is what libvirt itself takes and sends at most.
	maxFrame = 32<<20 + 4

	program         = 0x20008086
	protocolVersion = 1

	kindCall    = 0
	kindReply   = 1
	kindMessage = 2

	statusOK = 0
)

// frame is one message.
type frame struct {
	program, procedure, kind, serial, status uint32
	payload                                  []byte
}

// frames reads messages.
type frames struct{ r *bufio.Reader }

func newFrames(r io.Reader) *frames { return &frames{bufio.NewReaderSize(r, 32<<10)} }

// next is the next message. Its payload is the caller's.
func (f *frames) next() (frame, error) {
	var h [headerSize]byte
	if _, err := io.ReadFull(f.r, h[:]); err != nil {
		return frame{}, err
	}
	size := binary.BigEndian.Uint32(h[:])
	if size < headerSize || size > maxFrame {
		return frame{}, fmt.Errorf("a message of %d bytes", size)
	}
	msg := frame{
		program:   binary.BigEndian.Uint32(h[4:]),
		procedure: binary.BigEndian.Uint32(h[12:]),
		kind:      binary.BigEndian.Uint32(h[16:]),
		serial:    binary.BigEndian.Uint32(h[20:]),
		status:    binary.BigEndian.Uint32(h[24:]),
	}
	msg.payload = make([]byte, size-headerSize)
	_, err := io.ReadFull(f.r, msg.payload)
	return msg, err
}

// appendCall appends a call.
func appendCall(b []byte, proc, serial uint32, args []byte) []byte {
	b = appendHeader(b, frame{program: program, procedure: proc, kind: kindCall, serial: serial, payload: args})
	return append(b, args...)
}

func appendHeader(b []byte, f frame) []byte {
	size := uint32(headerSize + len(f.payload))
	for _, word := range [...]uint32{size, f.program, protocolVersion, f.procedure, f.kind, f.serial, f.status} {
		b = binary.BigEndian.AppendUint32(b, word)
	}
	return b
}
