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

	// AgentChanged says that the guest's agent came or went. It is protip's own number.
	AgentChanged EventType = -1
)

// StoppedMigrated is the detail of Stopped that says that the domain runs on, elsewhere.
const StoppedMigrated = 3

// Events are the events since Subscribe, in their order. It is never closed: see Done.
func (c *Conn) Events() <-chan Event { return c.events }

// Subscribe asks for the events of all domains: of their lives, and of their agents if the driver tells of those. What happened
// before its return may or may not be told.
func (c *Conn) Subscribe(ctx context.Context) error {
	const lifecycle, agent = 0, 18
	if err := c.register(ctx, lifecycle); err != nil {
		return err
	}
	if err := c.register(ctx, agent); CodeOf(err) == 0 {
		return err
	}
	return nil
}

func (c *Conn) register(ctx context.Context, event uint32) error {
	const method, allDomains = "ConnectDomainEventCallbackRegisterAny", 0
	d, err := c.ask(ctx, method, procEventRegister, appendUint32(appendUint32(nil, event), allDomains))
	if err != nil {
		return err
	}
	d.int32() // the callback's id: each event is registered once
	return c.end(method, d)
}

var errBehind = errors.New("more events than are read")

func (c *Conn) takeEvent(f frame) error {
	if f.procedure != procEventLifecycle && f.procedure != procEventAgent {
		return nil
	}
	d := decoder{rest: f.payload}
	d.int32() // the callback's id
	e := Event{Domain: d.domain(), Type: EventType(d.int32()), Detail: d.int32()}
	if f.procedure == procEventAgent {
		e.Type = AgentChanged
	}
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
