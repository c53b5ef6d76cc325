package winrm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
)

// What errors of a call mean, for errors.Is.
var (
	ErrCredentials  = errors.New("credentials refused")           // 401; not sent again for a while
	ErrAccessDenied = errors.New("access denied")                 // logged in, and not allowed this
	ErrTimedOut     = errors.New("no answer in time")             // the host's own limit, or ours
	ErrQuota        = errors.New("quota of the host is used up")  // too many shells or operations
	ErrTooLarge     = errors.New("answer exceeds the envelope")   // even one instance at a time
	ErrNotFound     = errors.New("no such instance")              // Get or Invoke of something that is gone
	ErrInvalidQuery = errors.New("no such class or property")     // also a namespace: what this Windows does not have
	ErrNotSent      = errors.New("nothing was sent")              // the method of Invoke has certainly not run
	ErrUnavailable  = errors.New("host does not serve right now") // 503 and other HTTP errors
	ErrMalformed    = errors.New("malformed answer")              // an envelope that cannot be read
	errClosed       = errors.New("client is closed")
)

// Codes of WSManFault.
const (
	codeResourceNotFound = 0x80338000
	codeInvalidURI       = 0x80338002
	codeCannotFilter     = 0x8033801A
	codeEnvelopeTooLarge = 0x80338026
	codeTimedOut         = 0x80338029
	codeEncodingLimit    = 0x80338035
	codeQuotaLimit       = 0x8033803F
	codeEnvelopeExceeded = 0x80338048 // what the request allows
	codeEnvelopeLimit    = 0x80338049 // what the host does
	codeQuotaShells      = 0x803381A5 // up to codeQuotaSystem: shells, operations, user, system
	codeQuotaSystem      = 0x803381A8
	codeQuotaShellUsers  = 0x803381AB
	codeQuotaPluginFirst = 0x803381E4
	codeQuotaPluginLast  = 0x803381E9
	codeAccessDenied     = 5
)

// Codes of the provider, which is WMI mostly.
const (
	wbemNotFound         = 0x80041002
	wbemAccessDenied     = 0x80041003
	wbemInvalidNamespace = 0x8004100E
	wbemInvalidClass     = 0x80041010
	wbemInvalidQuery     = 0x80041017
	wbemQuota            = 0x8004106C
	hresultAccessDenied  = 0x80070005
)

// Fault is a SOAP fault of the host. Its words are in the host's language and may be anything: decisions key on its codes.
type Fault struct {
	Code     uint32 // of WSManFault; 0 if the answer has none
	Provider uint32 // the innermost HRESULT, of the provider or of Windows; 0 if there is none
	Subcode  string // TimedOut, CannotProcessFilter, ... without its prefix
	Detail   string // the last part of the fault detail's URI, MaxEnvelopeSizeExceeded say
	Reason   string // localised
}

func (f *Fault) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "fault 0x%08X", f.Code)
	if f.Subcode != "" {
		b.WriteString(" " + f.Subcode)
	}
	if f.Detail != "" {
		b.WriteString(" " + f.Detail)
	}
	if f.Provider != 0 {
		fmt.Fprintf(&b, ", provider 0x%08X", f.Provider)
	}
	if f.Reason != "" {
		b.WriteString(": " + f.Reason)
	}
	return b.String()
}

// HRESULT is the code that says most: the provider's, else WSManFault's.
func (f *Fault) HRESULT() uint32 {
	if f.Provider != 0 {
		return f.Provider
	}
	return f.Code
}

// Is says which of the package's errors a fault is.
func (f *Fault) Is(target error) bool { return target == f.meaning() }

func (f *Fault) meaning() error {
	switch f.Provider {
	case wbemInvalidNamespace, wbemInvalidClass, wbemInvalidQuery:
		return ErrInvalidQuery
	case wbemNotFound:
		return ErrNotFound
	case wbemAccessDenied, hresultAccessDenied:
		return ErrAccessDenied
	case wbemQuota:
		return ErrQuota
	}
	switch f.Code {
	case codeTimedOut:
		return ErrTimedOut
	case codeEncodingLimit, codeEnvelopeTooLarge, codeEnvelopeExceeded, codeEnvelopeLimit:
		return ErrTooLarge
	case codeCannotFilter, codeInvalidURI:
		return ErrInvalidQuery
	case codeResourceNotFound:
		return ErrNotFound
	case codeQuotaLimit, codeQuotaShellUsers:
		return ErrQuota
	case codeAccessDenied, hresultAccessDenied:
		return ErrAccessDenied
	}
	if between(f.Code, codeQuotaShells, codeQuotaSystem) || between(f.Code, codeQuotaPluginFirst, codeQuotaPluginLast) {
		return ErrQuota
	}
	switch f.Subcode {
	case "TimedOut":
		return ErrTimedOut
	case "EncodingLimit":
		return ErrTooLarge
	case "CannotProcessFilter":
		return ErrInvalidQuery
	case "DestinationUnreachable":
		return ErrNotFound
	case "AccessDenied":
		return ErrAccessDenied
	case "QuotaLimit":
		return ErrQuota
	}
	return nil
}

func between(n, first, last uint32) bool { return first <= n && n <= last }

// HRESULT is the code of the Windows error behind err, false if it has none.
func HRESULT(err error) (uint32, bool) {
	var f *Fault
	if !errors.As(err, &f) || f.HRESULT() == 0 {
		return 0, false
	}
	return f.HRESULT(), true
}

// IsTimeout reports whether the call had no answer in time, by the host's clock or by ours.
func IsTimeout(err error) bool {
	var ne net.Error
	return errors.Is(err, ErrTimedOut) || errors.Is(err, context.DeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
}

// notSent says of an error that nothing of the message had left when it came.
func notSent(err error) error { return &unsent{err} }

type unsent struct{ error }

func (u *unsent) Unwrap() error        { return u.error }
func (u *unsent) Is(target error) bool { return target == ErrNotSent }
