package vsphere

import (
	"context"
	"sync"
)

// maxLeftovers bounds the sessions that are remembered for a later log-out; a vCenter ends idle ones by itself, after half an hour
// by default.
const maxLeftovers = 16

// Leftovers are sessions that a vCenter may still hold although nobody uses them: the log-out failed, or the log-in's answer
// did not come whole. They are logged out after the next log-in, so that a vCenter that fails again and again does not fill with
// them. Sessions that follow one another at one vCenter share it. Its methods may be called from any goroutine.
type Leftovers struct {
	mu   sync.Mutex
	list []*Conn
}

func (l *Leftovers) add(c *Conn) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.list = append(l.list, c); len(l.list) > maxLeftovers {
		l.list = l.list[1:]
	}
}

// logOut logs all of them out, as far as the vCenter lets it.
func (l *Leftovers) logOut(ctx context.Context) {
	if l == nil {
		return
	}
	l.mu.Lock()
	list := l.list
	l.list = nil
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, logoutTimeout)
	defer cancel()
	for i, c := range list {
		over := c.logout(ctx)
		c.close()
		if over {
			continue
		}
		for _, rest := range list[i:] {
			l.add(rest)
		}
		return
	}
}
