// Command protip-exporter shows Prometheus what protip's collectors see of a fleet, and does nothing else: it is built without
// any rule, store or executor, so it cannot move a VM whatever it is told.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/promslog"
	promslogflag "github.com/prometheus/common/promslog/flag"
	"github.com/prometheus/common/version"
	"github.com/prometheus/exporter-toolkit/web"
	"github.com/prometheus/exporter-toolkit/web/kingpinflag"

	"github.com/protip/protip/internal/config"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // could not listen, or stopped listening
	exitUsage  = 2 // the command line or a configuration file is wrong
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the command from its arguments to its exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	app := kingpin.New("protip-exporter", "Shows Prometheus the hosts and VMs of vCenters, read-only.")
	app.UsageWriter(stdout).ErrorWriter(stderr)
	app.Version(version.Print("protip-exporter"))
	app.HelpFlag.Short('h')
	exit := -1
	app.Terminate(func(code int) { exit = code })
	configFile := app.Flag("config.file", "The file that lists the sources; a remediation section in it is refused.").Default("protip.yml").String()
	metricsPath := app.Flag("web.telemetry-path", "Path of the metrics.").Default("/metrics").String()
	webFlags := kingpinflag.AddFlags(app, ":9877")
	logging := &promslog.Config{Writer: stderr}
	promslogflag.AddFlags(app, logging)

	_, err := app.Parse(args)
	if exit >= 0 { // --help or --version
		return exit
	}
	if err == nil {
		err = checkPath(*metricsPath)
	}
	if err != nil {
		fmt.Fprintf(stderr, "protip-exporter: %v; try --help\n", err)
		return exitUsage
	}
	cfg, err := load(*configFile)
	if err == nil {
		err = web.Validate(*webFlags.WebConfigFile)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitUsage
	}
	log := promslog.New(logging)
	e, err := newExporter(cfg, log, *metricsPath)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitUsage
	}
	log.Info("starting protip-exporter", "version", version.Info(), "sources", len(cfg.Sources))
	if err := e.run(ctx, webFlags); err != nil {
		log.Error("protip-exporter failed", "err", err)
		return exitFailed
	}
	log.Info("stopped")
	return exitOK
}

// load reads a configuration that only watches.
func load(file string) (*config.Config, error) {
	cfg, err := config.Load(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: write one there, or name another with --config.file", err)
	}
	if err != nil {
		return nil, err
	}
	if cfg.Remediation != nil {
		return nil, fmt.Errorf("%s: remediation is set, but protip-exporter moves nothing: remove the section, or run protip instead",
			cfg.At("remediation"))
	}
	return cfg, nil
}

var plainPath = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+)+$`)

func checkPath(path string) error {
	if !plainPath.MatchString(path) || strings.HasPrefix(path, "/-/") {
		return fmt.Errorf("--web.telemetry-path=%s is not a plain path of its own, as /metrics", path)
	}
	return nil
}
