package hyperv

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/platform/winrm"
)

// Namespaces.
const (
	cimv2          = "root/cimv2"
	virtualization = "root/virtualization/v2"
	mscluster      = "root/mscluster"
)

// host is a way to one host.
type host struct {
	client *winrm.Client

	mu   sync.Mutex
	self computer // zero until it was asked
}

// computer is how a host calls itself, in small letters.
type computer struct{ name, domain string }

// is reports whether an inventory's reference means the computer: its name, or its name and domain.
func (c computer) is(ref string) bool {
	name, domain, _ := strings.Cut(strings.ToLower(ref), ".")
	return short(name) == short(c.name) && (domain == "" || c.domain == "" || domain == c.domain)
}

// full is the name that other hosts find it by.
func (c computer) full() string {
	if c.domain == "" {
		return c.name
	}
	return c.name + "." + c.domain
}

// short is a computer's name as a cluster has it, from any form of it: 15 characters at most, without a domain.
func short(name string) string {
	name, _, _ = strings.Cut(strings.ToLower(name), ".")
	return name[:min(len(name), 15)]
}

// identity is who the host is.
func (h *host) identity(ctx context.Context) (computer, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.self.name != "" {
		return h.self, nil
	}
	row, err := one(ctx, h.client, cimv2, "SELECT Name, DNSHostName, Domain, PartOfDomain FROM Win32_ComputerSystem")
	if err != nil {
		return computer{}, err
	}
	c := computer{name: strings.ToLower(row.Text("DNSHostName"))}
	if c.name == "" {
		c.name = strings.ToLower(row.Text("Name"))
	}
	if !strings.EqualFold(row.Text("PartOfDomain"), "false") { // else it is the name of a workgroup
		c.domain = strings.ToLower(row.Text("Domain"))
	}
	if c.name == "" {
		return computer{}, fmt.Errorf("host %s: it does not tell its name", h.client.Host())
	}
	h.self = c
	return c, nil
}

// one is the only row of a query.
func one(ctx context.Context, c *winrm.Client, namespace, wql string) (winrm.Instance, error) {
	rows, err := c.All(ctx, winrm.Query{Namespace: namespace, WQL: wql})
	if err == nil && len(rows) == 0 {
		err = fmt.Errorf("host %s: no answer to %q: %w", c.Host(), wql, winrm.ErrNotFound)
	}
	if err != nil {
		return winrm.Instance{}, err
	}
	return rows[0], nil
}

// host is the way to the host that is meant, errNoHost if none of the configured ones is.
func (e *Executor) host(ctx context.Context, id inventory.ID) (*host, error) {
	var found *host
	var failed []error
	for _, h := range e.hosts {
		self, err := h.identity(ctx)
		switch {
		case errors.Is(err, winrm.ErrCredentials):
			return nil, err // one wrong password is enough
		case err != nil:
			failed = append(failed, err)
		case self.is(id.Ref) && found != nil:
			return nil, fmt.Errorf("%s and %s both call themselves %s", found.client.Host(), h.client.Host(), id.Ref)
		case self.is(id.Ref):
			found = h
		}
	}
	switch {
	case found != nil:
		return found, nil
	case len(failed) > 0: // it may be one of these
		return nil, errors.Join(failed...)
	}
	return nil, fmt.Errorf("%w among those of source %s: %s", errNoHost, e.opts.Source, id.Ref)
}

// turn is which host is asked for the cluster first: the one that answered last.
type turn struct {
	mu   sync.Mutex
	next int
}

func (t *turn) get() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.next
}

func (t *turn) set(i int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next = i
}

// errNoCluster says that no host is a node of a cluster.
var errNoCluster = errors.New("in no failover cluster")

// cluster asks one node after the other until one answers. f changes nothing. It is errNoCluster only if no host that could tell
// is in one, and each could.
func (e *Executor) cluster(ctx context.Context, f func(*winrm.Client) error) error {
	var failed []error
	first := e.turn.get()
	for i := range e.hosts {
		i = (first + i) % len(e.hosts)
		err := f(e.hosts[i].client)
		switch {
		case errors.Is(err, winrm.ErrInvalidQuery): // no such namespace: it is in none
			continue
		case err == nil || errors.Is(err, winrm.ErrNotFound):
			e.turn.set(i)
			return err
		case errors.Is(err, winrm.ErrCredentials) || ctx.Err() != nil:
			return err
		}
		failed = append(failed, err)
	}
	if len(failed) > 0 {
		return errors.Join(failed...)
	}
	return errNoCluster
}

// member is a node of the cluster.
type member struct {
	name         string
	state, drain uint64
}

// node is the cluster's node that is meant.
func (e *Executor) node(ctx context.Context, id inventory.ID) (member, error) {
	var found member
	err := e.cluster(ctx, func(c *winrm.Client) error {
		rows, err := c.All(ctx, winrm.Query{Namespace: mscluster, WQL: "SELECT Name, State, NodeDrainStatus FROM MSCluster_Node"})
		for _, r := range rows {
			if short(r.Text("Name")) != short(id.Ref) {
				continue
			}
			state, told := r.Uint("State")
			if !told {
				return fmt.Errorf("host %s: it does not tell the state of node %s", c.Host(), id.Ref)
			}
			drain, _ := r.Uint("NodeDrainStatus")
			found = member{strings.Clone(r.Text("Name")), state, drain}
		}
		return err
	})
	if err == nil && found.name == "" {
		err = fmt.Errorf("%w among the cluster's nodes: %s", errNoHost, id.Ref)
	}
	return found, err
}

// States of a node, and of its drain.
const (
	nodeUp      = 0
	nodeDown    = 1
	nodePaused  = 2
	nodeJoining = 3
	draining    = 1
)

// refuse says why the node should take nothing.
func (n member) refuse() error {
	switch {
	case n.state == nodeDown:
		return errors.New("is down")
	case n.state == nodePaused:
		return errors.New("is in maintenance: its node is paused")
	case n.state == nodeJoining:
		return errors.New("is just joining the cluster")
	case n.state != nodeUp:
		return fmt.Errorf("is not up: state %d of its node", n.state)
	case n.drain == draining:
		return errors.New("is going into maintenance: its node is being drained")
	}
	return nil
}
