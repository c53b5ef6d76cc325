package sim

import (
	"crypto/subtle"
	"slices"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// User is an account beside Config.User. What it lacks is only said when a client asks: calls are not refused for it.
type User struct {
	Name, Password string
	Lacks          []string // privileges, as Resource.HotMigrate; it has all others
}

// SetPassword changes the password of Config.User. Sessions go on.
func (vc *VCenter) SetPassword(password string) {
	vc.life.Lock()
	defer vc.life.Unlock()
	vc.cfg.Password = password
}

func (vc *VCenter) password() string {
	vc.life.Lock()
	defer vc.life.Unlock()
	return vc.cfg.Password
}

// mayLogIn reports whether an account has that password.
func (vc *VCenter) mayLogIn(req *types.Login) bool {
	same := func(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
	if req.UserName == vc.cfg.User && same(req.Password, vc.password()) {
		return true
	}
	return slices.ContainsFunc(vc.cfg.Users, func(u User) bool { return u.Name == req.UserName && same(req.Password, u.Password) })
}

// HasPrivilegeOnEntities grants all but what the session's user lacks.
func (g *gateway) HasPrivilegeOnEntities(ctx *simulator.Context, req *types.HasPrivilegeOnEntities) soap.HasFault {
	var lacks []string
	for _, u := range g.vc.cfg.Users {
		if u.Name == ctx.Session.UserName {
			lacks = u.Lacks
		}
	}
	res := &types.HasPrivilegeOnEntitiesResponse{}
	for _, entity := range req.Entity {
		answer := types.EntityPrivilege{Entity: entity}
		for _, id := range req.PrivId {
			answer.PrivAvailability = append(answer.PrivAvailability, types.PrivilegeAvailability{
				PrivId: id, IsGranted: !slices.Contains(lacks, id),
			})
		}
		res.Returnval = append(res.Returnval, answer)
	}
	return &methods.HasPrivilegeOnEntitiesBody{Res: res}
}
