package libvirt

import (
	"errors"
	"fmt"
)

// Error is a libvirt daemon's own. Its codes are those of virErrorNumber.
type Error struct {
	Code    Code
	Domain  int // the part of libvirt it is from, of virErrorDomain; 0 if not told
	Message string
}

// Code is one of virErrorNumber.
type Code int

// Codes that callers decide by.
const (
	InternalError     Code = 1
	NoSupport         Code = 3
	InvalidArgument   Code = 8
	OperationFailed   Code = 9
	OperationDenied   Code = 29
	SystemError       Code = 38
	NoDomain          Code = 42
	AuthFailed        Code = 45
	OperationInvalid  Code = 55
	OperationTimeout  Code = 68
	OperationAborted  Code = 78
	AuthCancelled     Code = 79
	AuthUnavailable   Code = 80
	MigrateUnsafe     Code = 81
	ArgUnsupported    Code = 74
	AgentUnresponsive Code = 86
	AccessDenied      Code = 88
)

func (e *Error) Error() string { return fmt.Sprintf("%s (code %d)", e.Message, e.Code) }

// CodeOf is the code of the daemon's error in err, 0 if there is none.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}

// IsGone reports whether the call named a domain that the host does not have (any more).
func IsGone(err error) bool { return CodeOf(err) == NoDomain }

// IsRefused reports whether the daemon refused who asked.
func IsRefused(err error) bool {
	switch CodeOf(err) {
	case AuthFailed, AuthCancelled, AuthUnavailable, AccessDenied:
		return true
	}
	return errors.Is(err, errNoAuth)
}

// maxMessage bounds what is kept of an error's text.
const maxMessage = 2048

// decodeError reads the payload of an answer that is an error.
func decodeError(payload []byte) error {
	d := decoder{rest: payload}
	e := &Error{Code: Code(d.int32()), Domain: int(d.int32()), Message: d.optional()}
	if d.err != nil {
		return fmt.Errorf("an error that %w", d.err)
	}
	if e.Message == "" {
		e.Message = "no reason given"
	}
	e.Message = e.Message[:min(len(e.Message), maxMessage)]
	return e
}
