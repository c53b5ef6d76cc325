package libvirt

import (
	"context"
	"errors"
)

// maxEvents is how many events wait for their reader before the connection is dropped: who reads on after a loss would not
// know of it.
const maxEvents = 4096

// Event says that a domain's life took a turn.
type Event struct {
	Domain Domain
	Type   EventType
	Detail int32
}

// EventType is one of virDomainEventType.
type EventType int32

// Types of events.
const (
	Defined EventType = iota
	Undefined
	Started
	Suspended
	Resumed
	Stopped
	Shutdown
	PMSuspended
	Crashed
)

// Events are the events since Subscribe, in their order. It is never closed: see Done.
func (c *Conn) Events() <-chan Event { return c.events }

// Subscribe asks for the lifecycle events of all domains. What happened before its return may or may not be told.
func (c *Conn) Subscribe(ctx context.Context) error {
	const lifecycle, allDomains = 0, 0
	d, err := c.ask(ctx, "ConnectDomainEventCallbackRegisterAny", procEventRegister, appendUint32(appendUint32(nil, lifecycle), allDomains))
	if err != nil {
		return err
	}
	d.int32() // the callback's id: there is but one
	return c.end("ConnectDomainEventCallbackRegisterAny", d)
}

var errBehind = errors.New("more events than are read")

func (c *Conn) takeEvent(f frame) error {
	if f.procedure != procEventLifecycle {
		return nil
	}
	d := decoder{rest: f.payload}
	d.int32() // the callback's id
	e := Event{Domain: d.domain()}
	e.Type, e.Detail = EventType(d.int32()), d.int32()
	if d.err != nil {
		return d.err
	}
	select {
	case c.events <- e:
		return nil
	default:
		return errBehind
	}
}
