package hyperv

import (
	"fmt"
	"time"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/sim/load"
)

// VirtualServerOptions describe a Virtual Server 2005 host on Windows Server 2003 with WinRM 1.1.
type VirtualServerOptions struct {
	Name        string // default vs-01
	Domain      string // default example.org
	Clock       *clock.Clock
	Load        load.Load
	Cores       int     // default 4
	MemoryBytes float64 // default 16 GiB
	VMs         []VM    // of these, Name, ID, MemoryBytes and Off matter; a VM has one processor
	Users       []User
	// AllowUnencrypted is what WinRM 1.1 needs to be spoken to by Basic over plain HTTP: there is no sealing by default there.
	AllowUnencrypted bool
}

// VirtualServer is a running simulated Virtual Server 2005 host. There is nothing in it that moves a VM.
type VirtualServer struct{ c *Cluster }

// NewVirtualServer builds the host and serves it until Close.
func NewVirtualServer(opt VirtualServerOptions) (*VirtualServer, error) {
	if opt.Cores == 0 {
		opt.Cores = 4
	}
	if opt.MemoryBytes == 0 {
		opt.MemoryBytes = 16 << 30
	}
	for i := range opt.VMs {
		opt.VMs[i].VCPUs, opt.VMs[i].Dynamic = 1, false
	}
	whole := withDefaults(Options{
		Name: orElse(opt.Name, "vs-01"), Domain: opt.Domain, Standalone: true, OS: server2003, Clock: opt.Clock, Load: opt.Load, Users: opt.Users,
		AllowUnencrypted: opt.AllowUnencrypted,
		Nodes:            []Node{{Name: orElse(opt.Name, "vs-01"), Cores: opt.Cores, MemoryBytes: opt.MemoryBytes, VMs: opt.VMs}},
	})
	c, err := build(whole)
	if err != nil {
		return nil, fmt.Errorf("virtual server: %w", err)
	}
	n := c.model.nodes[0]
	if err := c.open(n.name, &virtualServerMachine{nodeMachine{c, n}}, n.name, n.name+"."+c.opt.Domain); err != nil {
		c.Close()
		return nil, err
	}
	return &VirtualServer{c}, nil
}

// Close ends all connections and ports.
func (s *VirtualServer) Close() { s.c.Close() }

// Name is the host's name.
func (s *VirtualServer) Name() string { return s.c.opt.Name }

// URL is the host's endpoint over plain HTTP.
func (s *VirtualServer) URL() string { return s.c.URL(s.Name()) }

// TLSURL is the host's endpoint over HTTPS.
func (s *VirtualServer) TLSURL() string { return s.c.TLSURL(s.Name()) }

// Host is the machine behind it, for faults, truth and counts; its methods that move VMs have nothing to move to.
func (s *VirtualServer) Host() *Cluster { return s.c }

// virtualServerMachine is the host as WMI shows it: the classes of root/vm/virtualserver, and of root/cimv2 what Windows Server 2003 has.
type virtualServerMachine struct{ nodeMachine }

var _ machine = (*virtualServerMachine)(nil)

func (t *virtualServerMachine) product() string { return "OS: 5.2.3790 SP: 2.0 Stack: 1.1" }

// heartbeatInterval is how often the additions in a guest tell that they are there.
const heartbeatInterval = 60 * time.Second

func (t *virtualServerMachine) instances(cl *class) ([]*instance, *fault) {
	switch cl.name {
	case "VirtualMachine":
	case "Win32_Service":
		service := Service{Name: "Virtual Server", State: "Running", StartMode: "Auto"}
		return []*instance{{cl, service.row(t.name(), 1)}}, nil
	default:
		return t.nodeMachine.instances(cl)
	}
	return look(t.c, func(m *model) []*instance {
		var all []*instance
		for _, vm := range m.vms {
			values := map[string]any{
				"Name": vm.name, "CpuUtilization": uint32(0), "PhysicalMemoryAllocated": uint64(vm.assigned()), "DiskBytesRead": vm.readBytes, "DiskBytesWritten": vm.wroteBytes,
				"NetworkBytesReceived": vm.received, "NetworkBytesSent": vm.sent, "DiskSpaceUsed": uint64(8 << 30), "Uptime": uint32(vm.uptime(m).Seconds()),
				"HeartbeatInterval": uint32(heartbeatInterval.Seconds()), "HeartbeatRate": uint32(10), "HeartbeatPercentage": uint32(0), "HeartbeatCount": uint64(0),
			}
			if vm.state == vmRunning {
				values["CpuUtilization"] = uint32(100*vm.use.CPU/max(1, m.pressure(vm.on)) + 0.5)
				if vm.guest.Hostname != "" {
					values["HeartbeatPercentage"], values["HeartbeatCount"] = uint32(100), uint64(vm.uptime(m)/(heartbeatInterval/10))
				}
			}
			all = append(all, &instance{cl, values})
		}
		return all
	}), nil
}

func (t *virtualServerMachine) invoke(_ *instance, m string, _ *element) (map[string]any, *fault) {
	return nil, wmiFault(wbemProviderIncapable, m)
}
