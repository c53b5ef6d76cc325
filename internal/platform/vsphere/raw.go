package vsphere

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vim25/xml"
)

// maxFault bounds the answer that says why a call failed.
const maxFault = 1 << 20

const (
	envelopeHead = `<?xml version="1.0" encoding="UTF-8"?>` + "\n" + `<Envelope xmlns="http://schemas.xmlsoap.org/soap/envelope/"><Body>`
	envelopeTail = `</Body></Envelope>`
)

// Call makes one call whose request was written by hand and whose answer is read by hand: it is for the few that come often
// and are large. write appends the method's element, of about size bytes; read is given the answer's, open. Deadline, errors and faults are as those of
// RoundTrip. The whole answer was well-formed, and was read, if there is no error; read must not trust what it has before.
func (c *Conn) Call(ctx context.Context, method string, size int, write func([]byte) []byte, read func(*Scanner) error) error {
	return c.call(ctx, method, 0, size, write, read)
}

// call is Call for one that the vCenter is asked to hold.
func (c *Conn) call(
	ctx context.Context, method string, held time.Duration, size int, write func([]byte) []byte, read func(*Scanner) error,
) error {
	return c.guard(ctx, method, held, func(ctx context.Context) error {
		// Not from a pool: the transport may still read it when the answer has come.
		body := append(make([]byte, 0, len(envelopeHead)+size+len(envelopeTail)), envelopeHead...)
		body = append(write(body), envelopeTail...)
		req, err := http.NewRequest(http.MethodPost, c.URL().String(), bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", `text/xml; charset="utf-8"`)
		req.Header.Set("SOAPAction", c.soap.Namespace+"/"+c.soap.Version)
		return c.soap.Do(ctx, req, func(res *http.Response) error {
			switch res.StatusCode {
			case http.StatusOK:
				s := NewScanner(res.Body)
				defer s.Close()
				return ReadAnswer(s, method, read)
			case http.StatusInternalServerError: // of which the answer says why
				return readFault(res.Body)
			}
			return errors.New(res.Status)
		})
	})
}

// ReadAnswer reads the answer of a call: it opens the envelope, the body and in it the method's answer, or reads the fault that is there
// instead.
func ReadAnswer(s *Scanner, method string, read func(*Scanner) error) error {
	if !s.Child() || string(s.Name()) != "Envelope" {
		return orErr(s, "the answer is not an envelope")
	}
	answered := false
	for s.Child() {
		if string(s.Name()) != "Body" {
			s.Skip()
			continue
		}
		if answered {
			return errors.New("the answer has two bodies")
		}
		answered = true
		if !s.Child() {
			return orErr(s, "empty answer")
		}
		if string(s.Name()) == "Fault" {
			all, ok := s.replay()
			if !ok {
				return errors.New("a fault comes too late in the answer")
			}
			return readFault(all)
		}
		if string(s.Name()) != method+"Response" {
			return errors.New("the answer is not that of the call")
		}
		if err := read(s); err != nil {
			return err
		}
		if s.Child() {
			return errors.New("the answer's body holds more than the answer")
		}
	}
	if !answered {
		return orErr(s, "empty answer")
	}
	return s.Finish()
}

func orErr(s *Scanner, otherwise string) error {
	if err := s.Err(); err != nil {
		return err
	}
	return errors.New(otherwise)
}

// faultBody is the body of an answer that says why a call failed.
type faultBody struct {
	Reason *soap.Fault `xml:"http://schemas.xmlsoap.org/soap/envelope/ Fault,omitempty"`
}

// readFault is the fault of an answer, in govmomi's types.
func readFault(r io.Reader) error {
	var body faultBody
	dec := xml.NewDecoder(io.LimitReader(r, maxFault))
	dec.TypeFunc = types.TypeFunc()
	if err := dec.Decode(&soap.Envelope{Body: &body}); err != nil {
		return fmt.Errorf("%s: %w", http.StatusText(http.StatusInternalServerError), err)
	}
	if body.Reason == nil {
		return errors.New(http.StatusText(http.StatusInternalServerError) + " without a fault")
	}
	return soap.WrapSoapFault(body.Reason)
}
