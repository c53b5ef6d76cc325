package vsphere

import (
	"context"
	"errors"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// Privilege is a right in a vCenter, by the vCenter's own id and as its client shows it.
type Privilege struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// The privileges that protip needs. The first are what the role "Read-only" holds.
func watching() []Privilege {
	return []Privilege{
		{"System.Anonymous", "System > Anonymous"},
		{"System.View", "System > View"},
		{"System.Read", "System > Read"},
	}
}

func acting() []Privilege {
	return append(watching(),
		Privilege{"Resource.HotMigrate", "Resource > Migrate powered on virtual machine"},
		Privilege{"Resource.QueryVMotion", "Resource > Query vMotion"},
		Privilege{"Resource.AssignVMToPool", "Resource > Assign virtual machine to resource pool"},
	)
}

// LacksToWatch are the privileges for watching that the session's user does not have on one of the objects at least.
func (c *Conn) LacksToWatch(ctx context.Context, on []types.ManagedObjectReference) ([]Privilege, error) {
	return c.lacks(ctx, watching(), on)
}

// LacksToAct are the privileges for live migration that the session's user does not have on one of the objects at least.
func (c *Conn) LacksToAct(ctx context.Context, on []types.ManagedObjectReference) ([]Privilege, error) {
	return c.lacks(ctx, acting(), on)
}

func (c *Conn) lacks(ctx context.Context, wanted []Privilege, on []types.ManagedObjectReference) ([]Privilege, error) {
	if c.ServiceContent.AuthorizationManager == nil || c.ServiceContent.SessionManager == nil {
		return nil, errors.New("vcenter has no authorization manager")
	}
	props, err := c.Properties(ctx, *c.ServiceContent.SessionManager, "currentSession")
	if err != nil {
		return nil, err
	}
	session, ok := Get[types.UserSession](props, "currentSession")
	if !ok {
		return nil, errors.New("vcenter does not tell whose session this is")
	}
	req := types.HasPrivilegeOnEntities{This: *c.ServiceContent.AuthorizationManager, Entity: on, SessionId: session.Key}
	for _, p := range wanted {
		req.PrivId = append(req.PrivId, p.ID)
	}
	res, err := methods.HasPrivilegeOnEntities(ctx, c, &req)
	if err != nil {
		return nil, err
	}
	granted := map[string]int{}
	for _, entity := range res.Returnval {
		for _, p := range entity.PrivAvailability {
			if p.IsGranted {
				granted[p.PrivId]++
			}
		}
	}
	var lacking []Privilege
	for _, p := range wanted {
		if granted[p.ID] < len(on) {
			lacking = append(lacking, p)
		}
	}
	return lacking, nil
}
