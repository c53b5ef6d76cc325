package libvirt

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Procedures of the remote program, as libvirt's remote_protocol.x numbers them for ever.
const (
	procOpen              = 1
	procGetType           = 3
	procNodeGetInfo       = 6
	procCapabilities      = 7
	procXMLDesc           = 14
	procGetInfo           = 16
	procHostname          = 59
	procAuthList          = 66
	procAuthPolkit        = 70
	procNodeFreeMemory    = 102
	procLibVersion        = 157
	procGetState          = 212
	procNodeCPUStats      = 227
	procNodeMemoryStats   = 228
	procListAllDomains    = 273
	procListAllNetworks   = 283
	procListAllInterfaces = 284
	procEventRegister     = 316
	procEventLifecycle    = 318
	procAllDomainStats    = 344
	procEventAgent        = 348
	procInterfaceAdresses = 353
	procGuestInfo         = 418
)

// UUID identifies a domain or a host.
type UUID [16]byte

// String is the usual form, in lower case.
func (u UUID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// Domain is how libvirt refers to a VM.
type Domain struct {
	Name string
	UUID UUID
	ID   int32 // of the running process's; -1 if it does not run
}

// DomainState is one of virDomainState.
type DomainState int32

// States of domains.
const (
	DomainNoState DomainState = iota
	DomainRunning
	DomainBlocked
	DomainPaused
	DomainShutdown
	DomainShutoff
	DomainCrashed
	DomainPMSuspended
)

// errNoAuth says that the daemon wants what protip does not speak.
var errNoAuth = errors.New("it wants SASL, which protip does not speak: let it ask for nothing behind TLS or SSH, or use its unix socket")

// open logs in and opens the driver.
func (c *Conn) open(ctx context.Context, driver string, write bool) error {
	d, err := c.ask(ctx, "AuthList", procAuthList, nil)
	if err != nil {
		return err
	}
	var offered []uint32
	for n := d.count(4); n > 0; n-- {
		offered = append(offered, d.uint32())
	}
	if err := c.end("AuthList", d); err != nil {
		return err
	}
	const none, polkit = 0, 2
	switch {
	case len(offered) == 0 || slices.Contains(offered, none):
	case slices.Contains(offered, polkit):
		if _, err := c.ask(ctx, "AuthPolkit", procAuthPolkit, nil); err != nil {
			return err
		}
	default:
		return c.wrap("AuthList", errNoAuth)
	}
	const present, readOnly = 1, 1
	flags := uint32(readOnly)
	if write {
		flags = 0
	}
	args := appendString(appendUint32(nil, present), driver)
	_, err = c.ask(ctx, "ConnectOpen", procOpen, appendUint32(args, flags))
	return err
}

// end is the error of an answer that could not be decoded. The connection lives on: its frames are whole.
func (c *Conn) end(method string, d *decoder) error {
	if d.err != nil {
		return c.wrap(method, d.err)
	}
	return nil
}

// text makes a call whose answer is a string.
func (c *Conn) text(ctx context.Context, method string, proc uint32, args []byte) (string, error) {
	d, err := c.ask(ctx, method, proc, args)
	if err != nil {
		return "", err
	}
	s := d.string()
	return s, c.end(method, d)
}

// Capabilities is the host's own description: an XML document that begins with the host's UUID and its CPU.
func (c *Conn) Capabilities(ctx context.Context) (string, error) {
	return c.text(ctx, "ConnectGetCapabilities", procCapabilities, nil)
}

// Hostname is what the host calls itself.
func (c *Conn) Hostname(ctx context.Context) (string, error) {
	return c.text(ctx, "ConnectGetHostname", procHostname, nil)
}

// Driver is the hypervisor's name, such as QEMU.
func (c *Conn) Driver(ctx context.Context) (string, error) {
	return c.text(ctx, "ConnectGetType", procGetType, nil)
}

// Version is the daemon's, such as 9.0.0.
func (c *Conn) Version(ctx context.Context) (string, error) {
	d, err := c.ask(ctx, "ConnectGetLibVersion", procLibVersion, nil)
	if err != nil {
		return "", err
	}
	v := d.uint64()
	return fmt.Sprintf("%d.%d.%d", v/1_000_000, v/1000%1000, v%1000), c.end("ConnectGetLibVersion", d)
}

// NodeInfo is what a host is made of.
type NodeInfo struct {
	Model     string // of the CPUs' architecture, such as x86_64
	MemoryKiB uint64
	CPUs      int // that are active: threads of cores
	MHz       int
	Nodes     int // NUMA cells
	Sockets   int // of each cell
	Cores     int // of each socket
	Threads   int // of each core
}

// NodeInfo asks what the host is made of.
func (c *Conn) NodeInfo(ctx context.Context) (NodeInfo, error) {
	d, err := c.ask(ctx, "NodeGetInfo", procNodeGetInfo, nil)
	if err != nil {
		return NodeInfo{}, err
	}
	var model []byte
	for range 32 { // a char takes a word
		if b := byte(d.uint32()); b != 0 {
			model = append(model, b)
		}
	}
	info := NodeInfo{
		Model: string(model), MemoryKiB: d.uint64(), CPUs: int(d.int32()), MHz: int(d.int32()),
		Nodes: int(d.int32()), Sockets: int(d.int32()), Cores: int(d.int32()), Threads: int(d.int32()),
	}
	return info, c.end("NodeGetInfo", d)
}

// NodeCPUStats is the time in nanoseconds that the host's CPUs spent since it started, summed, by kind: kernel, user, idle, iowait.
func (c *Conn) NodeCPUStats(ctx context.Context) (map[string]uint64, error) {
	const allCPUs = -1
	return c.nodeStats(ctx, "NodeGetCPUStats", procNodeCPUStats, func(b []byte, n uint32) []byte {
		return appendUint32(appendUint32(b, 1<<32+allCPUs), n)
	})
}

// NodeMemoryStats is the host's memory in KiB by kind: total, free, buffers, cached.
func (c *Conn) NodeMemoryStats(ctx context.Context) (map[string]uint64, error) {
	const allCells = -1
	return c.nodeStats(ctx, "NodeGetMemoryStats", procNodeMemoryStats, func(b []byte, n uint32) []byte {
		return appendUint32(appendUint32(b, n), 1<<32+allCells)
	})
}

// NodeFreeMemory is the host's idle memory in bytes, from drivers that have no NodeMemoryStats.
func (c *Conn) NodeFreeMemory(ctx context.Context) (uint64, error) {
	d, err := c.ask(ctx, "NodeGetFreeMemory", procNodeFreeMemory, nil)
	if err != nil {
		return 0, err
	}
	free := d.uint64()
	return free, c.end("NodeGetFreeMemory", d)
}

// nodeStats asks how many there are, once, and for these.
func (c *Conn) nodeStats(ctx context.Context, method string, proc uint32, args func([]byte, uint32) []byte) (map[string]uint64, error) {
	const most = 16
	c.mu.Lock()
	n := c.counts[proc]
	c.mu.Unlock()
	if n == 0 {
		d, err := c.ask(ctx, method, proc, appendUint32(args(nil, 0), 0))
		if err != nil {
			return nil, err
		}
		d.count(minStat)
		n = min(d.uint32(), most)
		if err := c.end(method, d); err != nil {
			return nil, err
		}
		c.mu.Lock()
		c.counts[proc] = n
		c.mu.Unlock()
	}
	d, err := c.ask(ctx, method, proc, appendUint32(args(nil, n), 0))
	if err != nil {
		return nil, err
	}
	out := map[string]uint64{}
	for n := d.count(minStat); n > 0; n-- {
		field := d.string()
		out[field] = d.uint64()
	}
	return out, c.end(method, d)
}

// minStat is what a statistic of a host takes at least: a name's length and a number.
const minStat = 12

// ListAllDomains lists the domains that run and those that are only defined.
func (c *Conn) ListAllDomains(ctx context.Context) ([]Domain, error) {
	const wantResults, all = 1, 0
	d, err := c.ask(ctx, "ConnectListAllDomains", procListAllDomains, appendUint32(appendUint32(nil, wantResults), all))
	if err != nil {
		return nil, err
	}
	var out []Domain
	for n := d.count(minDomain); n > 0; n-- {
		out = append(out, d.domain())
	}
	return out, c.end("ConnectListAllDomains", d)
}

// ActiveNetworks names libvirt's virtual networks that are active on the host.
func (c *Conn) ActiveNetworks(ctx context.Context) ([]string, error) {
	const wantResults, active = 1, 1 << 1
	d, err := c.ask(ctx, "ConnectListAllNetworks", procListAllNetworks, appendUint32(appendUint32(nil, wantResults), active))
	if err != nil {
		return nil, err
	}
	var out []string
	for n := d.count(4 + 16); n > 0; n-- {
		out = append(out, d.string())
		d.take(16) // UUID
	}
	return out, c.end("ConnectListAllNetworks", d)
}

// HostInterfaces names the host's own network interfaces, bridges among them, but for those that are part of a bridge.
func (c *Conn) HostInterfaces(ctx context.Context) ([]string, error) {
	const wantResults, all = 1, 0
	d, err := c.ask(ctx, "ConnectListAllInterfaces", procListAllInterfaces, appendUint32(appendUint32(nil, wantResults), all))
	if err != nil {
		return nil, err
	}
	var out []string
	for n := d.count(4 + 4); n > 0; n-- {
		out = append(out, d.string())
		d.bytes() // MAC address
	}
	return out, c.end("ConnectListAllInterfaces", d)
}

// minDomain is what a domain takes at least: a name's length, a UUID and an id.
const minDomain = 24

// maxDomains is how many domains libvirt itself lists at most.
const maxDomains = 16384

// Stats receives what AllDomainStats reads, in this order: a domain, its parameters, the next domain.
type Stats interface {
	Domain(dom Domain)
	Param(name []byte, v Value) // name is lent for the call
}

// AllDomainStats asks for every statistic of every domain in one call. What a domain that does something else just now would have to be
// waited for is left out.
func (c *Conn) AllDomainStats(ctx context.Context, to Stats) error {
	const noDomains, allStats, noWait = 0, 0, 1 << 29
	args := appendUint32(appendUint32(appendUint32(nil, noDomains), allStats), noWait)
	d, err := c.ask(ctx, "ConnectGetAllDomainStats", procAllDomainStats, args)
	if err != nil {
		return err
	}
	n := d.count(minDomain + 4)
	if n > maxDomains {
		return c.wrap("ConnectGetAllDomainStats", fmt.Errorf("%d domains on one host", n))
	}
	for ; n > 0 && d.err == nil; n-- {
		dom := d.domain()
		if d.err == nil {
			to.Domain(dom)
			d.params(to.Param)
		}
	}
	return c.end("ConnectGetAllDomainStats", d)
}

// DomainState asks how a domain is, and for the reason as libvirt numbers it for each state.
func (c *Conn) DomainState(ctx context.Context, dom Domain) (state DomainState, reason int32, err error) {
	d, err := c.ask(ctx, "DomainGetState", procGetState, appendUint32(appendDomain(nil, dom), 0))
	if err != nil {
		return 0, 0, err
	}
	state, reason = DomainState(d.int32()), d.int32()
	return state, reason, c.end("DomainGetState", d)
}

// DomainInfo is the little that every driver knows of a domain.
type DomainInfo struct {
	State        DomainState
	MaxMemoryKiB uint64
	MemoryKiB    uint64
	VCPUs        int
	CPUTime      time.Duration // of all vCPUs, since it was started
}

// DomainInfo asks for the little that every driver knows of a domain.
func (c *Conn) DomainInfo(ctx context.Context, dom Domain) (DomainInfo, error) {
	d, err := c.ask(ctx, "DomainGetInfo", procGetInfo, appendDomain(nil, dom))
	if err != nil {
		return DomainInfo{}, err
	}
	info := DomainInfo{
		State: DomainState(d.int32()), MaxMemoryKiB: d.uint64(), MemoryKiB: d.uint64(), VCPUs: int(d.int32()), CPUTime: time.Duration(d.uint64()),
	}
	return info, c.end("DomainGetInfo", d)
}

// DomainXML is a domain's description: of what runs, if it runs. It holds no secrets, for they are not asked for.
func (c *Conn) DomainXML(ctx context.Context, dom Domain) (string, error) {
	return c.text(ctx, "DomainGetXMLDesc", procXMLDesc, appendUint32(appendDomain(nil, dom), 0))
}

// GuestInfo needs Options.Write. It asks the guest's agent for its OS and its host name, in one call, by the names that virDomainGetGuestInfo gives. It fails if the
// guest has no agent that answers.
func (c *Conn) GuestInfo(ctx context.Context, dom Domain) (map[string]string, error) {
	const osInfo, hostname = 1 << 1, 1 << 3
	args := appendUint32(appendUint32(appendDomain(nil, dom), osInfo|hostname), 0)
	d, err := c.ask(ctx, "DomainGetGuestInfo", procGuestInfo, args)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	d.params(func(name []byte, v Value) {
		if s, ok := v.Text(); ok {
			out[string(name)] = s
		}
	})
	return out, c.end("DomainGetGuestInfo", d)
}

// Interface is a network interface as the guest's agent sees it.
type Interface struct {
	Name  string
	MAC   string
	Addrs []string // IPv4 and IPv6
}

// GuestInterfaces needs Options.Write. It asks the guest's agent for its network interfaces.
func (c *Conn) GuestInterfaces(ctx context.Context, dom Domain) ([]Interface, error) {
	const fromAgent = 1
	args := appendUint32(appendUint32(appendDomain(nil, dom), fromAgent), 0)
	d, err := c.ask(ctx, "DomainInterfaceAddresses", procInterfaceAdresses, args)
	if err != nil {
		return nil, err
	}
	var out []Interface
	for n := d.count(12); n > 0 && d.err == nil; n-- {
		i := Interface{Name: d.string(), MAC: d.optional()}
		for m := d.count(12); m > 0; m-- {
			d.int32() // 4 or 6
			i.Addrs = append(i.Addrs, d.string())
			d.uint32() // prefix
		}
		out = append(out, i)
	}
	return out, c.end("DomainInterfaceAddresses", d)
}
