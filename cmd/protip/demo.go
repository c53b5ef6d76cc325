package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/promslog"
	"go.yaml.in/yaml/v3"

	"github.com/protip/protip/internal/app"
	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/sim"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
	"github.com/protip/protip/rules/packs"
)

// onceTimeout is how long --once waits for an outcome.
const onceTimeout = 120 * time.Second

// demoFlags are the demo's choices.
type demoFlags struct {
	trace       string
	seed        uint64
	speed       float64
	remediation string
	once        bool
	port        int
	keep        string
}

func addDemo(kp *kingpin.Application, verbs map[string]command) {
	cmd := kp.Command("demo", "Watch protip relieve a hot host: two simulated vCenters and a real agent, on this machine alone.")
	var f demoFlags
	cmd.Flag("trace", "Drive the VMs with the CPU load in this file: gzipped CSV, a column for each VM, a row for each 5 minutes, in percent.").StringVar(&f.trace)
	cmd.Flag("seed", "Another seed, another fleet.").Default("1").Uint64Var(&f.seed)
	cmd.Flag("speed", "How many seconds pass in the fleet in one of yours.").Default("30").Float64Var(&f.speed)
	cmd.Flag("remediation", "automatic, manual or off.").Default("automatic").EnumVar(&f.remediation, "automatic", "manual", "off")
	cmd.Flag("once", "Stop after the first tip with an outcome: 0 if the host recovered, 1 if none did within 120 s.").BoolVar(&f.once)
	cmd.Flag("port", "Where to listen on loopback; if it is busy, the next free one.").Default("9876").IntVar(&f.port)
	verbs[cmd.FullCommand()] = func(ctx context.Context, c *console) error { return demo(ctx, c, f) }
}

// demo runs until ctx is done, or with --once until the story is told.
func demo(ctx context.Context, c *console, f demoFlags) error {
	clk := clock.New(f.speed)
	if f.once {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, onceTimeout, errNoOutcome)
		defer cancel()
	}
	fleet, err := sim.NewDemo(sim.DemoConfig{Seed: f.seed, TracePath: f.trace, Clock: clk})
	if err != nil {
		return usageError{err}
	}
	defer fleet.Close()
	dir, err := os.MkdirTemp("", "protip-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file, token, err := writeDemoConfig(dir, fleet, f.remediation)
	if err != nil {
		return err
	}
	listener, err := listen(f.port)
	if err != nil {
		return err
	}
	story := newStory(c, f)
	a, err := app.New(ctx, app.Options{
		ConfigFile: file, DataDir: filepath.Join(dir, "data"), Clock: clk, Log: demoLog(c), LoopbackOnly: true, Notify: story.hear,
	})
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	story.opening(fleet, listener, token, f)
	return story.run(ctx, a, listener)
}

// demoLog is quiet unless more was asked for: the narrator says what happens.
func demoLog(c *console) *slog.Logger {
	if c.log.Level.String() == "info" {
		_ = c.log.Level.Set("error")
	}
	return promslog.New(c.log)
}

// writeDemoConfig writes the files that an operator would have written, and returns the config's path and the operator token.
func writeDemoConfig(dir string, fleet *sim.Demo, mode string) (file, token string, err error) {
	pack, err := packs.File("host-pressure")
	if err != nil {
		return "", "", err
	}
	set, err := rules.Load([]rules.File{pack}, rules.Options{})
	if err != nil {
		return "", "", err
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		err = errors.Join(err, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	type object = map[string]any
	var sources, automatic []object
	for _, vc := range []*sim.VCenter{fleet.A, fleet.B} {
		password, _ := vc.Login().User.Password()
		secret := write(vc.Name()+".password", password)
		sources = append(sources, object{
			"name": vc.Name(), "type": "vsphere", "url": vc.URL().String(),
			"username": vc.Login().User.Username(), "password_file": secret,
			"tls_config": object{"ca_file": write(vc.Name()+".pem", string(vc.CAPEM()))},
			"acting":     object{"username": vc.Login().User.Username(), "password_file": secret},
		})
		for _, cluster := range vc.Clusters() {
			for _, r := range set.Rules() {
				automatic = append(automatic, object{
					"source": vc.Name(), "cluster": cluster, "pack": r.Pack.Name, "rule": r.Name, "pack_sha256": r.Pack.SHA256,
				})
			}
		}
	}
	token = rand.Text()
	cfg := object{"sources": sources, "web": object{"operator_token_file": write("operator.token", token)}}
	switch mode {
	case "automatic":
		cfg["remediation"] = object{"mode": "manual", "automatic": automatic}
	case "manual":
		cfg["remediation"] = object{"mode": "manual"}
	}
	text, marshalErr := yaml.Marshal(cfg)
	if marshalErr != nil {
		return "", "", marshalErr
	}
	return write("protip.yml", string(text)), token, err
}

// listen takes the port, or the next free one.
func listen(port int) (net.Listener, error) {
	for p := port; p < port+50; p++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
		if !errors.Is(err, syscall.EADDRINUSE) {
			return l, err
		}
	}
	return nil, fmt.Errorf("ports %d to %d are all busy: name another with --port", port, port+49)
}

// errNoOutcome is why --once ends with 1.
var errNoOutcome = errors.New("no host recovered within " + onceTimeout.String())

// story follows the demo from the agent's events to its ending.
type story struct {
	c        *console
	once     bool
	narrator *narrator
	events   chan app.Event

	tip    *rules.Tip // the first that was active
	before *float64   // the host's CPU then
	lowest *float64   // the least it had since
	acts   map[string]remediation.Action
	order  []string
}

func newStory(c *console, f demoFlags) *story {
	return &story{
		c: c, once: f.once, narrator: newNarrator(c.out, c.json),
		events: make(chan app.Event, 1024), acts: map[string]remediation.Action{},
	}
}

// hear takes an event from the agent, which must not wait for a slow terminal.
func (s *story) hear(e app.Event) {
	select {
	case s.events <- e:
	default:
	}
}

// opening says what this is and where to look.
func (s *story) opening(fleet *sim.Demo, l net.Listener, token string, f demoFlags) {
	if s.c.json {
		return
	}
	port := l.Addr().(*net.TCPAddr).Port
	out := s.c.out
	fmt.Fprintf(out, "protip demo: %s and %s, two simulated vCenters. Time runs %gx. Nothing real is touched.\n\n", fleet.A.Name(), fleet.B.Name(), f.speed)
	if port != f.port {
		fmt.Fprintf(out, "  port %d is busy: listening on %d\n", f.port, port)
	}
	fmt.Fprintf(out, "  console   http://127.0.0.1:%d/\n  metrics   http://127.0.0.1:%d/metrics\n  operator  token %s\n", port, port, token)
	for _, vc := range []*sim.VCenter{fleet.A, fleet.B} {
		fmt.Fprintf(out, "  %s      https://%s@%s, password %s\n", vc.Name(), sim.DemoUser, vc.URL().Host, sim.DemoPassword)
	}
	fmt.Fprintln(out)
	fmt.Fprintf(out, "  scrape_configs:            # for prometheus.yml\n    - job_name: protip-demo\n      scrape_interval: 5s\n      honor_labels: true\n"+
		"      static_configs: [{targets: [\"127.0.0.1:%d\"]}]\n\n", port)
}

// run serves and tells until the story ends.
func (s *story) run(ctx context.Context, a *app.App, l net.Listener) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var running sync.WaitGroup
	server := &http.Server{Handler: a.Handler(), ReadHeaderTimeout: 10 * time.Second}
	running.Go(func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			stop(err)
		}
	})
	running.Go(func() {
		if err := a.Run(ctx); err != nil && !errors.Is(err, errNoOutcome) {
			stop(err)
		}
	})
	look := time.NewTicker(500 * time.Millisecond)
	defer look.Stop()
	var end error
	for telling := true; telling; {
		select {
		case <-ctx.Done():
			telling = false
		case e := <-s.events:
			snap := a.Snapshot()
			s.narrator.event(e, snap)
			s.follow(e, snap)
			telling = !s.once || !s.told()
		case <-look.C:
			snap := a.Snapshot()
			s.narrator.watch(snap)
			s.measure(snap)
		}
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		end = cause
	}
	snap := a.Snapshot()
	stop(nil)
	shutDown(server, time.Second)
	running.Wait()
	if s.once {
		s.ending(snap)
	}
	return end
}

// follow keeps what the ending tells: the first active tip and its actions.
func (s *story) follow(e app.Event, snap *inventory.Snapshot) {
	switch {
	case e.Tip != nil && s.tip == nil && e.Tip.Tip.State == rules.Active && e.Tip.Tip.Rule == "HostCPUOverload":
		tip := e.Tip.Tip
		s.tip = &tip
		s.before = hostCPU(snap, tip.Object)
		for _, ev := range tip.Evidence {
			if strings.HasSuffix(ev.Name, inventory.HostCPUUsageRatio.Field()) {
				s.before = &ev.Value
			}
		}
	case e.Tip != nil && s.tip != nil && e.Tip.Tip.ID == s.tip.ID:
		tip := e.Tip.Tip
		s.tip = &tip
	case e.Action != nil && s.tip != nil && e.Action.TipID == s.tip.ID:
		if _, known := s.acts[e.Action.ID]; !known {
			s.order = append(s.order, e.Action.ID)
		}
		s.acts[e.Action.ID] = *e.Action
	}
}

func (s *story) measure(snap *inventory.Snapshot) {
	if s.tip == nil {
		return
	}
	if cpu := hostCPU(snap, s.tip.Object); cpu != nil && (s.lowest == nil || *cpu < *s.lowest) {
		s.lowest = cpu
	}
}

// told reports whether a plan was carried out and its host has recovered.
func (s *story) told() bool {
	recovered := false
	for _, a := range s.acts {
		if !a.State.Final() || a.State == remediation.Done && a.Outcome == "" {
			return false
		}
		recovered = recovered || a.Outcome == remediation.Recovered
	}
	return recovered
}

// ending is the last line: one JSON object, or a sentence.
func (s *story) ending(snap *inventory.Snapshot) {
	type load struct {
		CPU *float64 `json:"host_cpu_ratio"`
	}
	ending := struct {
		Tip     *rules.Tip           `json:"tip"`
		Action  *remediation.Action  `json:"action"`  // the last one
		Actions []remediation.Action `json:"actions"` // all of the tip, in order
		Before  load                 `json:"before"`
		After   load                 `json:"after"`
		Lowest  load                 `json:"lowest"` // since the tip was active
	}{Tip: s.tip, Actions: []remediation.Action{}, Before: load{s.before}, Lowest: load{s.lowest}}
	for _, id := range s.order {
		ending.Actions = append(ending.Actions, s.acts[id])
	}
	if n := len(ending.Actions); n > 0 {
		ending.Action = &ending.Actions[n-1]
	}
	if s.tip != nil {
		ending.After.CPU = hostCPU(snap, s.tip.Object)
	}
	if s.c.json {
		_ = json.NewEncoder(s.c.out).Encode(ending)
		return
	}
	if s.told() && s.before != nil && ending.After.CPU != nil {
		s.narrator.line("END", "%s: CPU %.0f %% -> %.0f %% by %d moves", printable(s.tip.Name), *s.before*100, *ending.After.CPU*100, len(ending.Actions))
	}
}

func hostCPU(snap *inventory.Snapshot, id inventory.ID) *float64 {
	h, ok := snap.Host(id)
	if !ok {
		return nil
	}
	cpu, ok := h.Samples.Value(inventory.HostCPUUsageRatio)
	if !ok {
		return nil
	}
	return &cpu
}
