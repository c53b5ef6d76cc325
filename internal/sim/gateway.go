package sim

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// gateway answers the calls that the stock simulator answers wrongly or not at all. It is one object for all of them: the
// registry's hook sends a call to it by changing the call's target, and the request still names the object that it was made
// to. So the stock objects stay of the stock types, which the stock code insists on.
type gateway struct {
	Self      types.ManagedObjectReference
	vc        *VCenter
	catalogue []types.PerfCounterInfo
	counters  catalogue

	mu       sync.Mutex
	sessions map[string]*sessionState
	made     int // collectors and filters, for their references
}

// sessionState is what a session owns beyond what the stock session holds.
type sessionState struct {
	collectors map[types.ManagedObjectReference]*collector
	views      []simulator.RegisterObject
}

func newGateway(vc *VCenter) *gateway {
	perf := types.ManagedObjectReference{Type: "PerformanceManager", Value: "PerfMgr"}
	counters := vc.reg.Get(perf).(*simulator.PerformanceManager).PerfCounter
	return &gateway{
		Self: types.ManagedObjectReference{Type: "Gateway", Value: "gateway"},
		vc:   vc, catalogue: counters, counters: newCatalogue(counters), sessions: map[string]*sessionState{},
	}
}

// Reference makes the gateway an object of the registry.
func (g *gateway) Reference() types.ManagedObjectReference { return g.Self }

// Lock and Unlock do nothing: the simulator locks an object while it answers, and the gateway answers many at once.
func (g *gateway) Lock()   {}
func (g *gateway) Unlock() {}

// answered are the methods that the gateway answers, by the type of object they are called on.
var answered = map[string][]string{
	"ServiceInstance": {"CurrentTime"},
	"SessionManager":  {"Logout", "TerminateSession"},
	"ViewManager":     {"CreateContainerView"},
	"PropertyCollector": {
		"CreateFilter", "CreatePropertyCollector", "DestroyPropertyCollector", "RetrievePropertiesEx", "RetrieveProperties",
		"WaitForUpdatesEx", "WaitForUpdates", "CheckForUpdates", "CancelWaitForUpdates",
	},
	"PropertyFilter":                    {"DestroyPropertyFilter"},
	"PerformanceManager":                {"QueryPerf", "QueryAvailablePerfMetric"},
	"EventManager":                      {"QueryEvents"},
	"TaskManager":                       {"CreateCollectorForTasks"},
	"TaskHistoryCollector":              {"ReadNextTasks", "ReadPreviousTasks", "DestroyCollector"},
	"Task":                              {"CancelTask"},
	"VirtualMachine":                    {"MigrateVM_Task", "RelocateVM_Task", "PowerOnVM_Task", "PowerOffVM_Task", "Destroy_Task"},
	"AuthorizationManager":              {"HasPrivilegeOnEntities"},
	"Folder":                            {"CreateVM_Task"},
	"HostSystem":                        {"EnterMaintenanceMode_Task", "ExitMaintenanceMode_Task", "DisconnectHost_Task", "ReconnectHost_Task"},
	"VirtualMachineProvisioningChecker": {"CheckMigrate_Task", "CheckRelocate_Task"},
}

// dispatch sees every call before it is made.
func (g *gateway) dispatch(_ *simulator.Context, m *simulator.Method) (mo.Reference, types.BaseMethodFault) {
	g.vc.counts.call(m.Name)
	if fault := g.vc.faults.meet(m.Name, g.vc.stopped()); fault != nil {
		return nil, fault
	}
	kind := m.This.Type
	if slices.Contains(answered[kind], m.Name) {
		m.This = g.Self
		return g, nil
	}
	if unsupported(kind, m.Name) {
		return nil, &types.NotSupported{}
	}
	return nil, nil
}

// unsupported are stock tasks that would need files, or would change the fleet behind the back of its usage.
func unsupported(kind, method string) bool {
	switch kind {
	case "VirtualMachine", "Folder", "HostSystem", "ClusterComputeResource", "ResourcePool":
		return method == "UnregisterVM" || strings.HasSuffix(method, "_Task") && method != "Rename_Task"
	default:
		return false
	}
}

func notFound(ref types.ManagedObjectReference) *soap.Fault {
	return simulator.Fault(
		fmt.Sprintf("The object '%s:%s' has already been deleted or has not been completely created", ref.Type, ref.Value),
		&types.ManagedObjectNotFound{Obj: ref})
}

// CurrentTime is the time of the vCenter's clock.
func (g *gateway) CurrentTime(*simulator.Context, *types.CurrentTime) soap.HasFault {
	return &methods.CurrentTimeBody{Res: &types.CurrentTimeResponse{Returnval: g.vc.clock.Now().UTC()}}
}

// Logout ends a session and what it owns.
func (g *gateway) Logout(ctx *simulator.Context, req *types.Logout) soap.HasFault {
	g.forget(ctx.Session.Key)
	return g.vc.reg.SessionManager().Logout(ctx, req)
}

// TerminateSession ends other sessions and what they own.
func (g *gateway) TerminateSession(ctx *simulator.Context, req *types.TerminateSession) soap.HasFault {
	answer := g.vc.reg.SessionManager().TerminateSession(ctx, req)
	if answer.Fault() == nil {
		for _, key := range req.SessionId {
			g.forget(key)
		}
	}
	return answer
}

// session is the state of the caller's session, made when first asked for.
func (g *gateway) session(ctx *simulator.Context) *sessionState {
	g.mu.Lock()
	defer g.mu.Unlock()
	s, ok := g.sessions[ctx.Session.Key]
	if !ok {
		s = &sessionState{collectors: map[types.ManagedObjectReference]*collector{}}
		g.sessions[ctx.Session.Key] = s
	}
	return s
}

func (g *gateway) forget(key string) {
	g.mu.Lock()
	s, ok := g.sessions[key]
	delete(g.sessions, key)
	g.mu.Unlock()
	if !ok {
		return
	}
	for _, view := range s.views {
		g.vc.reg.RemoveHandler(view)
	}
	for _, c := range s.collectors {
		c.destroy()
	}
}

// forgetSessions ends all sessions: their cookies are worth nothing any more.
func (g *gateway) forgetSessions() {
	ctx := g.vc.own()
	for _, key := range g.vc.sessionKeys(ctx) {
		g.vc.reg.SessionManager().TerminateSession(ctx, &types.TerminateSession{SessionId: []string{key}})
	}
	g.mu.Lock()
	var keys []string
	for key := range g.sessions {
		keys = append(keys, key)
	}
	g.mu.Unlock()
	for _, key := range keys {
		g.forget(key)
	}
}

func (vc *VCenter) sessionKeys(ctx *simulator.Context) []string {
	sessions := ctx.Session.Get(vc.reg.SessionManager().Self).(*simulator.SessionManager)
	var keys []string
	for _, s := range sessions.SessionList {
		keys = append(keys, s.Key)
	}
	return keys
}

// Sessions is how many sessions are open.
func (vc *VCenter) Sessions() int { return len(vc.sessionKeys(vc.own())) }

// CreateContainerView makes a stock view while nothing comes or goes.
func (g *gateway) CreateContainerView(ctx *simulator.Context, req *types.CreateContainerView) soap.HasFault {
	g.vc.shape.RLock()
	defer g.vc.shape.RUnlock()
	answer := g.vc.reg.ViewManager().CreateContainerView(ctx, req)
	if body := answer.(*methods.CreateContainerViewBody); body.Res != nil {
		view := ctx.Session.Get(body.Res.Returnval).(simulator.RegisterObject)
		s := g.session(ctx)
		g.mu.Lock()
		s.views = append(s.views, view)
		g.mu.Unlock()
	}
	return answer
}
