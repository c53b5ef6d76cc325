package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/promslog"
	"go.yaml.in/yaml/v3"

	"github.com/protip/protip/internal/app"
	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/sim"
	"github.com/protip/protip/internal/sim/hyperv"
	"github.com/protip/protip/rules"
	"github.com/protip/protip/rules/packs"
)

// demoFlags are the demo's choices.
type demoFlags struct {
	trace       string
	seed        uint64
	speed       float64
	remediation string
	once        bool
	timeout     time.Duration
	port        int
}

func addDemo(kp *kingpin.Application, verbs map[string]command) {
	cmd := kp.Command("demo", "Watch protip relieve a hot host: two simulated vCenters, a Hyper-V cluster and a real agent, on this machine alone.")
	var f demoFlags
	cmd.Flag("trace", "Drive the VMs with the CPU load in this file: gzipped CSV, a column for each VM, a row for each 5 minutes, in percent.").StringVar(&f.trace)
	cmd.Flag("seed", "Another seed, another fleet.").Default("1").Uint64Var(&f.seed)
	cmd.Flag("speed", "How many seconds pass in the fleet in one of yours; 1 or more.").Default("30").Float64Var(&f.speed)
	cmd.Flag("remediation", "automatic, manual or off.").Default("automatic").EnumVar(&f.remediation, "automatic", "manual", "off")
	cmd.Flag("once", "Stop after the first tip with an outcome: 0 if the host recovered, 1 if none did in time.").BoolVar(&f.once)
	cmd.Flag("timeout", "How long --once waits, from the start.").Default("120s").DurationVar(&f.timeout)
	cmd.Flag("port", "Where to listen on loopback; if it is busy, the next free one. 0 is any.").Default("9876").IntVar(&f.port)
	verbs[cmd.FullCommand()] = func(ctx context.Context, c *console) error { return demo(ctx, c, f) }
}

// demo runs until ctx is done, or with --once until the story is told.
func demo(ctx context.Context, c *console, f demoFlags) error {
	if !(f.speed >= 1 && f.speed <= 1000) {
		return usageError{fmt.Errorf("--speed %g: write a number from 1 to 1000", f.speed)}
	}
	if f.once {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, f.timeout, fmt.Errorf("no host recovered within %s", f.timeout))
		defer cancel()
	}
	clk := clock.New(f.speed)
	fleet, err := sim.NewDemo(sim.DemoConfig{Seed: f.seed, TracePath: f.trace, Clock: clk})
	if err != nil {
		return usageError{err}
	}
	defer fleet.Close()
	cluster, err := hyperv.NewDemo(hyperv.DemoConfig{Seed: f.seed, Clock: clk, After: hyperVAfter})
	if err != nil {
		return err
	}
	defer cluster.Close()
	dir, err := os.MkdirTemp("", "protip-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	pack, err := hostPressure()
	if err != nil {
		return err
	}
	files, err := writeDemoFiles(dir, fleet, cluster.Cluster, pack, f.remediation)
	if err != nil {
		return err
	}
	listener, err := listen(f.port)
	if err != nil {
		return err
	}
	story := newStory(c, f, clk, pack)
	ticket := rand.Text()
	a, err := app.New(ctx, app.Options{
		ConfigFile: files.config, DataDir: filepath.Join(dir, "data"), Clock: clk, Log: demoLog(c), LoopbackOnly: true, LoginTicket: ticket,
		Notify: story.hear,
	})
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	opening(c, f, fleet, cluster.Cluster, listener.Addr().(*net.TCPAddr), files.token, ticket)
	return story.run(ctx, a, listener)
}

// hyperVAfter is when the Hyper-V cluster becomes hot, in real time: one story begins after the other.
const hyperVAfter = 15 * time.Second

// demoLog is quiet unless more was asked for: the narrator says what happens.
func demoLog(c *console) *slog.Logger {
	if c.log.Level.String() == "info" {
		_ = c.log.Level.Set("error")
	}
	return promslog.New(c.log)
}

// hostPressure is the pack whose rules may act in the demo.
func hostPressure() (*rules.Pack, error) {
	file, err := packs.File("host-pressure")
	if err != nil {
		return nil, err
	}
	set, err := rules.Load([]rules.File{file}, rules.Options{})
	if err != nil {
		return nil, err
	}
	return set.Packs()[0], nil
}

// demoHyperV is the Hyper-V cluster's name, and its source's.
const demoHyperV = "hv-prod-01"

// demoFiles are the paths of what an operator would have written.
type demoFiles struct{ config, token string }

func writeDemoFiles(dir string, fleet *sim.Demo, hv *hyperv.Cluster, pack *rules.Pack, mode string) (files demoFiles, err error) {
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		err = errors.Join(err, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	type object = map[string]any
	var sources, automatic []object
	grant := func(source, cluster string) {
		for _, r := range pack.Rules {
			automatic = append(automatic, object{
				"source": source, "cluster": cluster, "pack": pack.Name, "rule": r.Name, "pack_sha256": pack.SHA256,
			})
		}
	}
	for _, vc := range []*sim.VCenter{fleet.A, fleet.B} {
		user := vc.Login().User.Username()
		password, _ := vc.Login().User.Password()
		secret := write(vc.Name()+".password", password)
		sources = append(sources, object{
			"name": vc.Name(), "type": "vsphere", "url": vc.URL().String(), "username": user, "password_file": secret,
			"tls_config": object{"ca_file": write(vc.Name()+".pem", string(vc.CAPEM()))},
			"acting":     object{"username": user, "password_file": secret},
		})
		for _, cluster := range vc.Clusters() {
			grant(vc.Name(), cluster)
		}
	}
	var hosts []string
	for _, node := range hv.Nodes() {
		hosts = append(hosts, hv.URL(node))
	}
	secret := write(demoHyperV+".password", hyperv.DefaultPassword)
	sources = append(sources, object{
		"name": demoHyperV, "type": "hyperv", "hosts": hosts, "username": hyperv.DefaultUser, "password_file": secret,
		"acting": object{"username": hyperv.DefaultUser, "password_file": secret},
	})
	grant(demoHyperV, demoHyperV)
	files.token = write("operator.token", rand.Text())
	cfg := object{"sources": sources, "web": object{"operator_token_file": files.token}, "placement": object{"reserve": 1}}
	switch mode {
	case "automatic":
		cfg["remediation"] = object{"mode": "manual", "automatic": automatic}
	case "manual":
		cfg["remediation"] = object{"mode": "manual"}
	}
	text, marshalErr := yaml.Marshal(cfg)
	if marshalErr != nil {
		return files, marshalErr
	}
	files.config = write("protip.yml", string(text))
	return files, err
}

// listen takes the port, or the next free one.
func listen(port int) (net.Listener, error) {
	if port < 0 || port > 65535 {
		return nil, usageError{fmt.Errorf("--port %d: write a number from 0 to 65535", port)}
	}
	last := min(port+49, 65535)
	for p := port; p <= last; p++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
		if !errors.Is(err, syscall.EADDRINUSE) {
			return l, err
		}
	}
	return nil, fmt.Errorf("ports %d to %d are all busy: name another with --port", port, last)
}

// opening says what this is and where to look.
func opening(c *console, f demoFlags, fleet *sim.Demo, hv *hyperv.Cluster, at *net.TCPAddr, tokenFile, ticket string) {
	url := fmt.Sprintf("http://%s", at)
	login := url + "/login?ticket=" + ticket
	vcs := []*sim.VCenter{fleet.A, fleet.B}
	if c.json {
		type vcenter struct {
			Name     string `json:"name"`
			URL      string `json:"url"`
			Username string `json:"username"`
			Password string `json:"password"`
		}
		said := struct {
			Console   string    `json:"console"`
			Login     string    `json:"login"` // of the console, once
			Metrics   string    `json:"metrics"`
			TokenFile string    `json:"token_file"`
			VCenters  []vcenter `json:"vcenters"`
			HyperV    []string  `json:"hyperv"`
			Speed     float64   `json:"speed"`
		}{Console: url + "/", Login: login, Metrics: url + "/metrics", TokenFile: tokenFile, Speed: f.speed}
		for _, vc := range vcs {
			said.VCenters = append(said.VCenters, vcenter{vc.Name(), vc.URL().String(), sim.DemoUser, sim.DemoPassword})
		}
		for _, node := range hv.Nodes() {
			said.HyperV = append(said.HyperV, hv.URL(node))
		}
		_ = jsonTo(c.out).Encode(map[string]any{"demo": said})
		return
	}
	out := c.out
	acts := map[string]string{"automatic": "moves VMs by itself", "manual": "moves VMs when you say so", "off": "moves nothing"}[f.remediation]
	fmt.Fprintf(out, "protip demo: an agent that watches two simulated vCenters and a simulated Hyper-V cluster, and %s. Time runs %g times as fast.\n", acts, f.speed)
	fmt.Fprint(out, "A host is about to run hot. All of it lives in this process and on loopback; nothing real is touched.\n\n")
	if f.port != 0 && at.Port != f.port {
		fmt.Fprintf(out, "  port %d is busy: listening on %d\n", f.port, at.Port)
	}
	fmt.Fprintf(out, "  console  %s/\n  log in   %s  once, as an operator\n  metrics  %s/metrics\n", url, login, url)
	for _, vc := range vcs {
		fmt.Fprintf(out, "  %-7s  https://%s@%s  password %s\n", vc.Name(), sim.DemoUser, vc.URL().Host, sim.DemoPassword)
	}
	for _, node := range hv.Nodes() {
		fmt.Fprintf(out, "  %-7s  %s  as %s, password %s\n", node, hv.URL(node), hyperv.DefaultUser, hyperv.DefaultPassword)
	}
	fmt.Fprintf(out, "\n  # for protip tips, place and pause in another terminal\n  export PROTIP_AGENT_URL=%s PROTIP_TOKEN_FILE=%s\n", url, tokenFile)
	fmt.Fprintf(out, "\n  # for prometheus.yml\n  scrape_configs:\n    - job_name: protip\n      scrape_interval: 5s\n"+
		"      static_configs: [{targets: [%q]}]\n\n", at.String())
}
