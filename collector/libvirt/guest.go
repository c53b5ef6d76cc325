package libvirt

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	platform "github.com/protip/protip/internal/platform/libvirt"
)

const (
	// guestEvery is how often guests' agents are asked: what they tell hardly changes.
	guestEvery = 5 * time.Minute
	// guestSoon is when agents that came lately are asked.
	guestSoon = 15 * time.Second
	// agentTimeout is how long an agent may take. Libvirt waits for it as long as we do.
	agentTimeout = 5 * time.Second
	// agentPause is for how many rounds of guestEvery an agent that did not answer is left alone.
	agentPause = 3
)

// guest is what a guest's agent tells.
type guest struct {
	hostname, ip, os string

	asked time.Time
	pause int // rounds to leave the agent alone
}

// guests asks the agents of guests, one after the other, over connections of its own: an agent that hangs holds up the call, a call that
// is held up costs its connection, and libvirt wants one that may write for this.
func (f *follower) guests(ctx context.Context) error {
	for f.watch.opts.Clock.Sleep(ctx, guestSoon) == nil {
		due := f.due(f.watch.opts.Clock.Now())
		if len(due) == 0 {
			continue
		}
		if err := f.askGuests(ctx, due); err != nil && ctx.Err() == nil {
			f.watch.opts.Observer.Fault("guest", err)
		}
	}
	return ctx.Err()
}

// due are the host's running VMs with an agent that is to be asked now.
func (f *follower) due(now time.Time) []platform.Domain {
	c := f.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []platform.Domain
	for u, v := range f.views {
		m := c.vms[u]
		if m == nil || m.owner != f.host || v.state != platform.DomainRunning || v.facts == nil || !v.facts.agent {
			continue
		}
		if now.Sub(m.guest.asked) < guestEvery {
			continue
		}
		m.guest.asked = now
		if m.guest.pause > 0 {
			m.guest.pause--
			continue
		}
		out = append(out, v.dom)
	}
	return out
}

func (f *follower) askGuests(ctx context.Context, due []platform.Domain) error {
	opts := f.host.opts
	opts.Timeout, opts.Write = agentTimeout, true
	var conn *platform.Conn
	defer func() {
		if conn != nil {
			conn.Close()
		}
	}()
	var last error
	for _, dom := range due {
		if conn == nil || conn.Err() != nil {
			var err error
			if conn, err = platform.Dial(ctx, opts); err != nil {
				return err
			}
		}
		g, err := askGuest(ctx, conn, dom)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		hung := conn.Err() != nil
		if err != nil {
			last = fmt.Errorf("VM %s: %w", dom.Name, err)
		}
		f.change(func(c *cluster) {
			m := c.vms[dom.UUID]
			switch {
			case m == nil:
			case hung:
				m.guest.pause = agentPause
			case err == nil:
				m.guest.hostname, m.guest.ip, m.guest.os = g.hostname, g.ip, g.os
				c.dirty[dom.UUID] = true
			}
		})
	}
	return last
}

// askGuest asks one agent. One that is too old for a question is not asked it again before its turn.
func askGuest(ctx context.Context, conn *platform.Conn, dom platform.Domain) (guest, error) {
	info, err := conn.GuestInfo(ctx, dom)
	if err != nil {
		return guest{}, err
	}
	g := guest{hostname: cut(info["hostname"]), os: cut(info["os.pretty-name"])}
	if g.os == "" {
		g.os = cut(info["os.name"])
	}
	interfaces, err := conn.GuestInterfaces(ctx, dom)
	if err != nil {
		return g, err
	}
	g.ip = address(interfaces)
	return g, nil
}

// maxWord bounds what a guest can make protip show of it.
const maxWord = 256

func cut(s string) string { return s[:min(len(s), maxWord)] }

// address is where the guest is reached: the first that is not only its own or its link's, IPv4 before IPv6.
func address(interfaces []platform.Interface) string {
	var six string
	for _, i := range interfaces {
		for _, a := range i.Addrs {
			ip, err := netip.ParseAddr(a)
			switch {
			case err != nil || !ip.IsGlobalUnicast() || ip.Zone() != "":
			case ip.Is4():
				return ip.String()
			case six == "":
				six = ip.String()
			}
		}
	}
	return six
}
