package libvirt

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/protip/protip/internal/inventory"
)

// How refs of networks begin: what they are matched by between hosts is the name that follows.
const (
	virtualNetwork = "network/"   // one of libvirt's own
	hostInterface  = "interface/" // a bridge of the host's, or a device that VMs share
)

// reach is what VMs on a host can be attached to, by refs. Of a kind that is not told nothing is known.
type reach struct {
	told map[string]bool // by kind
	has  map[string]bool
}

// reach asks what VMs on the host can be attached to. What it cannot tell costs only itself.
func (f *follower) reach(ctx context.Context) (reach, error) {
	r := reach{map[string]bool{}, map[string]bool{}}
	for kind, ask := range map[string]func(context.Context) ([]string, error){virtualNetwork: f.conn.ActiveNetworks, hostInterface: f.conn.HostInterfaces} {
		names, err := ask(ctx)
		if err != nil {
			if err = f.without(err); err != nil {
				return r, err
			}
			continue
		}
		r.told[kind] = true
		for _, name := range names {
			r.has[kind+name] = true
		}
	}
	return r, nil
}

// networks looks again at what the host has.
func (f *follower) networks(ctx context.Context) error {
	for f.watch.opts.Clock.Sleep(ctx, inventory.SlowInterval) == nil {
		r, err := f.reach(ctx)
		if err != nil {
			return err
		}
		f.change(func(c *cluster) { f.host.wired, c.rewired = r, true })
	}
	return ctx.Err()
}

// wire says which networks there are and which hosts have them, if that may have changed. An interface is a network only if a VM is
// attached to it. Which hosts have those of a kind is known only if all hosts tell, and none runs a VM on one that it does not tell of.
func (c *cluster) wire(d *inventory.Delta) {
	if !c.rewired {
		return
	}
	c.rewired = false
	there, unread := map[string]bool{}, map[string]bool{}
	kindOf := func(ref string) string { return ref[:strings.Index(ref, "/")+1] }
	for _, h := range c.hosts {
		for _, kind := range []string{virtualNetwork, hostInterface} {
			unread[kind] = unread[kind] || h.facts != nil && !h.wired.told[kind]
		}
		for ref := range h.wired.has {
			there[ref] = there[ref] || kindOf(ref) == virtualNetwork
		}
		for _, v := range h.views {
			if v.facts == nil {
				continue
			}
			for _, ref := range v.facts.nets {
				there[ref] = true
				if v.rank() == rankRunning && !h.wired.has[ref] {
					unread[kindOf(ref)] = true
				}
			}
		}
	}
	maps.DeleteFunc(there, func(_ string, wanted bool) bool { return !wanted })
	refs := slices.Sorted(maps.Keys(there))
	for _, ref := range refs {
		n := inventory.Network{ID: c.networkID(ref), Name: ref[len(kindOf(ref)):], Unread: unread[kindOf(ref)]}
		if was, listed := c.listed[ref]; !listed || was != n {
			c.listed[ref] = n
			d.Networks = append(d.Networks, n)
		}
	}
	for _, ref := range slices.Sorted(maps.Keys(c.listed)) {
		if !there[ref] {
			delete(c.listed, ref)
			d.Removed = append(d.Removed, c.networkID(ref))
		}
	}
	for _, h := range c.hosts {
		if h.facts != nil {
			facts := *h.facts
			facts.Networks = c.networkIDs(slices.DeleteFunc(slices.Clone(refs), func(ref string) bool { return !h.wired.has[ref] }))
			if len(h.wired.told) == 0 {
				facts.Networks = nil
			}
			h.facts = &facts
		}
	}
}

func (c *cluster) networkID(ref string) inventory.ID {
	return inventory.ID{Source: c.name, Kind: inventory.KindNetwork, Ref: ref}
}

func (c *cluster) networkIDs(refs []string) []inventory.ID {
	ids := make([]inventory.ID, len(refs))
	for i, ref := range refs {
		ids[i] = c.networkID(ref)
	}
	return ids
}

// rewires reports whether a view of a domain may change which networks there are.
func rewires(was *view, v *view) bool {
	return v.facts != nil && len(v.facts.nets) > 0 && (was == nil || was.facts == nil || was.rank() != v.rank() || !slices.Equal(was.facts.nets, v.facts.nets))
}
