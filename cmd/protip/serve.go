package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/common/version"
	"github.com/prometheus/exporter-toolkit/web"
	"github.com/prometheus/exporter-toolkit/web/kingpinflag"
	"go.yaml.in/yaml/v3"

	"github.com/protip/protip/internal/app"
	"github.com/protip/protip/internal/clock"
	agentweb "github.com/protip/protip/internal/web"
)

// shutdownTimeout is how long requests under way may take when the agent ends.
const shutdownTimeout = 10 * time.Second

// configFlag names the agent's configuration.
func configFlag(cmd *kingpin.CmdClause) *string {
	return cmd.Flag("config.file", "The agent's configuration.").Default("protip.yml").String()
}

func addRun(kp *kingpin.Application, verbs map[string]command) {
	cmd := kp.Command("run", "Run the agent.")
	file := configFlag(cmd)
	dir := cmd.Flag("storage.path", "Directory of the agent's database; one agent at a time has it.").Default("data/").String()
	flags := kingpinflag.AddFlags(cmd, ":9876")
	verbs[cmd.FullCommand()] = func(ctx context.Context, c *console) error {
		if _, _, err := app.CheckConfig(*file); err != nil {
			return usageError{missing(err)}
		}
		if err := checkWebConfig(*flags.WebConfigFile); err != nil {
			return usageError{err}
		}
		log := promslog.New(c.log)
		a, err := app.New(ctx, app.Options{ConfigFile: *file, DataDir: *dir, Clock: clock.New(1), Log: log})
		if err != nil {
			return err
		}
		log.Info("starting protip", "version", version.Info())
		ctx, stop := context.WithCancelCause(ctx)
		var running sync.WaitGroup
		running.Go(func() { reloadOnHUP(ctx, a) })
		server := agentweb.NewServer(a.Handler())
		running.Go(func() {
			if err := web.ListenAndServe(server, flags, log); !errors.Is(err, http.ErrServerClosed) {
				stop(fmt.Errorf("serve: %w", err))
			}
		})
		running.Go(func() {
			<-ctx.Done()
			shutDown(server, shutdownTimeout)
		})
		err = a.Run(ctx)
		stop(nil)
		running.Wait()
		if cause := context.Cause(ctx); err == nil && !errors.Is(cause, context.Canceled) {
			return cause
		}
		return err
	}
}

// shutDown ends a server with time for requests under way.
func shutDown(server *http.Server, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		_ = server.Close() // a request that would not end in time
	}
}

// reloadOnHUP reads the configuration again on SIGHUP; what went wrong is in the log and on /metrics.
func reloadOnHUP(ctx context.Context, a *app.App) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			a.ReloadAndLog(ctx)
		}
	}
}

// missing adds the cure to the error of a configuration that is not there.
func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: write one there, or name another with --config.file", err)
	}
	return err
}

// checkWebConfig refuses what cannot work here: once exporter-toolkit has users it asks for Basic authentication on every
// path, and a bearer token never arrives.
func checkWebConfig(file string) error {
	if file == "" {
		return nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("--web.config.file: %w", err)
	}
	var cfg struct {
		Users yaml.Node `yaml:"basic_auth_users"`
	}
	if err := yaml.Unmarshal(text, &cfg); err != nil {
		return fmt.Errorf("--web.config.file %s: %w", file, err)
	}
	if !cfg.Users.IsZero() {
		return fmt.Errorf("%s:%d: basic_auth_users would shut out tokens and sessions: remove it, and set web.users_file in the agent's configuration",
			file, cfg.Users.Line)
	}
	return web.Validate(file)
}
