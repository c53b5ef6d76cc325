// Package sim runs simulated vCenters for tests, benchmarks and the demo: govmomi's simulator, made honest where it is not.
// It promises that quick stats, performance counters and placement agree at every moment, and that a client written for a real
// vCenter needs no mercy here. It must not import anything of protip but internal/clock.
package sim

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/simulator/vpx"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/sim/load"
)

// Config describes a vCenter and its fleet. Its zero value is an empty vCenter in real time on a free port.
type Config struct {
	Name         string // what the vCenter calls itself; default "vCenter"
	InstanceUUID string // default: made from Name
	User         string // default administrator@vsphere.local
	Password     string // default "secret"; login demands both
	Users        []User // further accounts
	Extensions   []Extension
	Listen       string // default 127.0.0.1:0

	Clock    *clock.Clock
	Load     load.Load // VM i of Clusters, counted through all hosts, demands what Load says of VM i; nil: nothing
	Clusters []Cluster
	// Datastores are all mounted by all hosts that they do not restrict themselves to; default is one, san-01.
	Datastores []Datastore
	// Networks are on all hosts that they do not restrict themselves to; default is one, VM Network.
	Networks []Network

	// MaxQueryMetrics is the setting config.vpxd.stats.maxQueryMetrics: how many counters one QueryPerf may ask for, summed
	// over its entities. 0: no such setting and no limit; negative: the setting says so and there is no limit.
	MaxQueryMetrics int
	// MigrationTime is how long (on Clock) a live migration of a VM with that much memory takes; nil: 10 s to 60 s.
	MigrationTime func(memoryBytes float64) time.Duration
	// MemoryOvercommit is how far a migration may fill a host: configured memory of its running VMs over its own. Default 1.
	MemoryOvercommit float64
}

// VCenter is a running simulated vCenter. All of its methods may be called from any goroutine.
type VCenter struct {
	cfg     Config
	clock   *clock.Clock
	service *simulator.Service
	reg     *simulator.Registry
	gate    *gateway
	usage   *usage
	changes *changeLog
	faults  faults
	counts  counts
	cert    tls.Certificate
	caPEM   []byte

	// shape is held for writing while objects come, go or move, and for reading by whoever walks from object to object:
	// the stock simulator follows references without locks.
	shape sync.RWMutex
	place place // where new objects are put

	quick struct { // what the quick stats now show
		sync.Mutex
		at     time.Time
		shapes int
	}

	tasks taskTable

	alive context.Context // ends with Close
	end   context.CancelFunc

	life   sync.Mutex
	addr   string
	server *http.Server
	down   chan struct{} // closed when the vCenter stops

	tunnelAddr string
	tunnel     *http.Server // for extensions, nil if there are none
	work       sync.WaitGroup
}

// making keeps two vCenters from being made at once: the stock simulator writes to a license that all of a process share, and
// reads it for each new host.
var making sync.Mutex

// StartVCenter builds the fleet and serves it until Close.
func StartVCenter(cfg Config) (*VCenter, error) {
	cfg = withDefaults(cfg)
	vc := &VCenter{cfg: cfg, clock: cfg.Clock, addr: cfg.Listen}
	vc.alive, vc.end = context.WithCancel(context.Background())
	if err := vc.assemble(); err != nil {
		return nil, fmt.Errorf("build vCenter %s: %w", cfg.Name, err)
	}
	vc.changes = newChangeLog()
	vc.reg.AddHandler(vc.changes)
	vc.gate = newGateway(vc)
	vc.reg.Put(vc.gate)
	vc.reg.Handler = vc.gate.dispatch

	var err error
	if vc.cert, vc.caPEM, err = newCertificate(vc.clock.Now()); err != nil {
		return nil, fmt.Errorf("certificate of vCenter %s: %w", cfg.Name, err)
	}
	if err := vc.Restart(); err != nil {
		return nil, err
	}
	return vc, nil
}

// assemble makes the stock service with this vCenter's fleet and settings.
func (vc *VCenter) assemble() error {
	making.Lock()
	defer making.Unlock()
	ctx, instance := simulator.NewServiceInstance(simulator.NewContext(), vpx.ServiceContent, vpx.RootFolder)
	instance.Content.About.InstanceUuid = vc.cfg.InstanceUUID
	instance.Content.About.FullName = "VMware vCenter Server 8.0.2 (simulated, " + vc.cfg.Name + ")"
	vc.service, vc.reg = simulator.New(ctx, instance), ctx.Map
	vc.reg.SessionManager().ValidLogin = vc.mayLogIn
	vc.service.Listen = &url.URL{User: url.UserPassword(vc.cfg.User, vc.cfg.Password)}
	vc.service.RegisterSDK(vc.reg, vc.reg.Path+"/vimService")
	vc.service.ServeMux.HandleFunc(vc.reg.Path+"/vimServiceVersions.xml", vc.service.ServiceVersions)
	vc.serveREST()

	vc.usage = newUsage(vc.cfg.Load, vc.clock.Now)
	if err := vc.build(); err != nil {
		return err
	}
	vc.applySettings()
	return nil
}

func withDefaults(cfg Config) Config {
	defaults := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	defaults(&cfg.Name, "vCenter")
	defaults(&cfg.InstanceUUID, uuidOf("vcenter", cfg.Name))
	defaults(&cfg.User, "administrator@vsphere.local")
	defaults(&cfg.Password, "secret")
	defaults(&cfg.Listen, "127.0.0.1:0")
	if cfg.Clock == nil {
		cfg.Clock = clock.New(1)
	}
	if cfg.Load == nil {
		cfg.Load = load.Steady(load.Use{})
	}
	if cfg.MigrationTime == nil {
		cfg.MigrationTime = func(memory float64) time.Duration {
			return min(time.Minute, 10*time.Second+time.Duration(memory/(1<<30)*1.5*float64(time.Second)))
		}
	}
	if cfg.MemoryOvercommit == 0 {
		cfg.MemoryOvercommit = 1
	}
	return cfg
}

// applySettings gives this vCenter settings of its own: the stock ones are shared by all simulators of a process.
func (vc *VCenter) applySettings() {
	options := vc.reg.OptionManager()
	options.Setting = slices.Clone(options.Setting)
	if vc.cfg.MaxQueryMetrics != 0 {
		options.Setting = append(options.Setting, &types.OptionValue{
			Key: "config.vpxd.stats.maxQueryMetrics", Value: fmt.Sprint(vc.cfg.MaxQueryMetrics),
		})
	}
}

// Restart serves again after Stop, at the same address. The inventory is as it was; sessions, views and filters are gone.
func (vc *VCenter) Restart() error {
	vc.life.Lock()
	defer vc.life.Unlock()
	if vc.server != nil {
		return fmt.Errorf("restart vCenter %s: it runs", vc.cfg.Name)
	}
	listener, err := net.Listen("tcp", vc.addr)
	if err != nil {
		return fmt.Errorf("restart vCenter %s: %w", vc.cfg.Name, err)
	}
	vc.addr = listener.Addr().String()
	vc.down = make(chan struct{})
	vc.server = &http.Server{
		Handler:           vc.gate.faultyAnswers(vc.service.ServeMux),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          discardLog(), // clients that do not trust the certificate, connections cut by Stop
	}
	server := vc.server
	tlsListener := tls.NewListener(listener, &tls.Config{
		Certificates: []tls.Certificate{vc.cert}, MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert,
	})
	vc.work.Go(func() { _ = server.Serve(tlsListener) })
	if len(vc.cfg.Extensions) > 0 {
		if vc.tunnel, err = vc.serveTunnel(); err != nil {
			return fmt.Errorf("restart vCenter %s: SDK tunnel: %w", vc.cfg.Name, err)
		}
	}
	return nil
}

// Stop cuts all connections and forgets all sessions. Migrations under way go on: they are the hosts' work.
func (vc *VCenter) Stop() {
	vc.life.Lock()
	defer vc.life.Unlock()
	if vc.server == nil {
		return
	}
	close(vc.down)
	_ = vc.server.Close()
	if vc.tunnel != nil {
		_ = vc.tunnel.Close()
	}
	vc.server, vc.tunnel = nil, nil
	vc.gate.forgetSessions()
}

// Close stops the vCenter for good and waits for what it does in the background.
func (vc *VCenter) Close() {
	vc.Stop()
	vc.end()
	vc.work.Wait()
}

// stopped is closed when the running vCenter stops.
func (vc *VCenter) stopped() <-chan struct{} {
	vc.life.Lock()
	defer vc.life.Unlock()
	return vc.down
}

// URL is the SDK endpoint, without credentials.
func (vc *VCenter) URL() *url.URL {
	vc.life.Lock()
	defer vc.life.Unlock()
	return &url.URL{Scheme: "https", Host: vc.addr, Path: vc.reg.Path}
}

// Login is URL with the user and the password, as govmomi wants it.
func (vc *VCenter) Login() *url.URL {
	u := vc.URL()
	u.User = url.UserPassword(vc.cfg.User, vc.password())
	return u
}

// CAPEM is the certificate to trust.
func (vc *VCenter) CAPEM() []byte { return vc.caPEM }

// Name is what the vCenter calls itself.
func (vc *VCenter) Name() string { return vc.cfg.Name }

// Clusters are the names of the clusters it was built with.
func (vc *VCenter) Clusters() []string {
	var names []string
	for _, c := range vc.cfg.Clusters {
		names = append(names, c.Name)
	}
	return names
}

// InstanceUUID is what About().InstanceUuid says.
func (vc *VCenter) InstanceUUID() string { return vc.cfg.InstanceUUID }

// context is one caller's way into the registry. Locks are shared by whoever shares a context, so each goroutine needs its own.
func (vc *VCenter) context(user string) *simulator.Context {
	ctx := *vc.service.Context
	ctx.Session = &simulator.Session{
		UserSession: types.UserSession{Key: "internal-" + user, UserName: user},
		Registry:    simulator.NewRegistry(),
		Map:         vc.reg,
	}
	return &ctx
}

// own is a context for what the vCenter does by itself or a test does behind its back.
func (vc *VCenter) own() *simulator.Context { return vc.context(`VSPHERE.LOCAL\Administrator`) }

func (vc *VCenter) content() types.ServiceContent {
	return vc.reg.Get(vim25.ServiceInstance).(*simulator.ServiceInstance).Content
}

var errNoSuch = errors.New("no such object")
