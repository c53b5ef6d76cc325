package winrm

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// releaseTimeout bounds the good-bye to an enumeration that is given up.
const releaseTimeout = 3 * time.Second

// maxEmpty is how many answers in a row may hold nothing and not be the last.
const maxEmpty = 8

// enumeration is one Enumerate and its Pulls:
//
//	Enumerate --items, context--> Pull --items, context--> Pull ... --items, end--> done
//	    |                          |
//	    +--too large: fewer--------+   each failed, ctx done, malformed: Release
type enumeration struct {
	client   *Client
	query    Query
	each     func(Instance) error
	elements int // asked for in one answer
	context  string
}

func (e *enumeration) run(ctx context.Context) error {
	err := e.pages(ctx)
	if err == nil {
		return nil
	}
	e.release(ctx, err)
	var stop *stopped
	if errors.As(err, &stop) {
		return stop.error
	}
	if errors.Is(err, ErrNotFound) { // a class is no instance
		err = fmt.Errorf("%w: %w", ErrInvalidQuery, err)
	}
	return fmt.Errorf("host %s: enumerate %s: %w", e.client.url.Host, e.query, err)
}

func (e *enumeration) pages(ctx context.Context) error {
	for empty := 0; ; {
		body, err := e.client.send(ctx, e.message())
		if errors.Is(err, ErrTooLarge) && e.elements > 1 {
			e.elements = fewer(e.elements)
			e.client.fits.remember(e.query.String(), e.elements)
			continue
		}
		if err != nil {
			return err
		}
		p, err := decodePage(body, e.each)
		if p.context != "" {
			e.context = p.context
		}
		switch {
		case err != nil:
			return err
		case p.end:
			e.context = ""
			return nil
		case e.context == "":
			return malformed(errors.New("it is neither the last nor says how to go on"))
		case p.items > 0:
			empty = 0
		default:
			if empty++; empty > maxEmpty {
				return malformed(fmt.Errorf("%d answers in a row hold nothing", empty))
			}
		}
	}
}

// fewer is how many elements are asked for after an answer was too large. An answer that is too large has cost the host all
// its work, so the steps are wide.
func fewer(elements int) int { return max(1, min(elements, 4096)/8) }

// fits remembers how many elements fit into an answer of a query that was too large once, so that it is not too large again
// every time it is asked.
type fits struct {
	mu    sync.Mutex
	known map[string]int
}

// maxFits bounds the queries remembered; protip asks about thirty.
const maxFits = 256

func (f *fits) remember(query string, elements int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.known == nil || len(f.known) >= maxFits {
		f.known = map[string]int{}
	}
	f.known[query] = elements
}

// most is the number to begin with.
func (f *fits) most(query string, asked int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if known, ok := f.known[query]; ok {
		return min(known, asked)
	}
	return asked
}

// message asks for the next answer.
func (e *enumeration) message() message {
	ref := Ref{Namespace: e.query.Namespace, Class: e.query.Class}
	if e.query.WQL != "" {
		ref.Class = "*"
	}
	var b strings.Builder
	if e.context != "" {
		b.WriteString("<n:Pull>")
		element(&b, "n:EnumerationContext", "", e.context)
		element(&b, "n:MaxElements", "", strconv.Itoa(e.elements))
		b.WriteString("</n:Pull>")
		return message{operation: "Pull", action: actionPull, ref: ref, body: b.String()}
	}
	b.WriteString("<n:Enumerate><w:OptimizeEnumeration/>")
	element(&b, "w:MaxElements", "", strconv.Itoa(e.elements))
	if e.query.WQL != "" {
		element(&b, "w:Filter", ` Dialect="`+dialectWQL+`"`, e.query.WQL)
	}
	b.WriteString("</n:Enumerate>")
	return message{operation: "Enumerate", action: actionEnumerate, ref: ref, body: b.String()}
}

// release tells the host that nobody will ask on, so that it need not hold the rest. It is a courtesy: what it fails with
// is said nowhere.
func (e *enumeration) release(ctx context.Context, why error) {
	var f *Fault
	if e.context == "" || errors.As(why, &f) && !errors.Is(f, ErrTimedOut) {
		return // the host has given it up itself
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	m := e.message()
	var b strings.Builder
	b.WriteString("<n:Release>")
	element(&b, "n:EnumerationContext", "", e.context)
	b.WriteString("</n:Release>")
	m.operation, m.action, m.body = "Release", actionRelease, b.String()
	_, _ = e.client.send(ctx, m)
}
