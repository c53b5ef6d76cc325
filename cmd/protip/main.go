// Command protip is the agent and its command line: it watches every hypervisor, says what should move and why, and moves
// it if it is let.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/promslog"
	promslogflag "github.com/prometheus/common/promslog/flag"
	"github.com/prometheus/common/version"
)

// Exit codes, as the docs promise them.
const (
	exitOK     = 0
	exitFailed = 1 // what was asked for could not be done
	exitUsage  = 2 // the command line, the config or a pack is wrong
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// usageError is a mistake in what protip was given: exit code 2, no stack trace.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// console is what every command gets.
type console struct {
	out, err io.Writer
	format   string // text or json; of reports also csv and html
	json     bool
	log      *promslog.Config
}

// command is a parsed command line's verb.
type command func(ctx context.Context, c *console) error

// run parses the command line, carries it out and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c := &console{out: stdout, err: stderr, log: &promslog.Config{Writer: stderr}}
	app := kingpin.New("protip", "Watches every hypervisor a company runs, says what should move and why, and moves it if it is let.")
	var usage bytes.Buffer
	ends, said := 0, 0
	app.UsageWriter(&usage).ErrorWriter(stderr)
	app.Terminate(func(int) { // kingpin goes on after it, and what it says then was not asked for
		if ends++; ends == 1 {
			said = usage.Len()
		}
	})
	app.Version(version.Print("protip"))
	app.HelpFlag.Short('h')
	app.Flag("format", "What commands print: text or json; reports also csv or html.").Default("text").EnumVar(&c.format, "text", "json", "csv", "html")
	promslogflag.AddFlags(app, c.log)

	verbs := map[string]command{}
	addRun(app, verbs)
	addCheck(app, verbs)
	addAgentCommands(app, verbs)
	addPack(app, verbs)
	addReplay(app, verbs)
	addSimulate(app, verbs)
	addReport(app, verbs)
	addTry(app, verbs)
	addCapture(app, verbs)
	addUsers(app, verbs)
	addDemo(app, verbs)

	name, err := app.Parse(args)
	switch {
	case ends == 1 && errors.Is(err, kingpin.ErrCommandNotSpecified):
		fmt.Fprintln(stderr, "protip: no command, try --help")
		return exitUsage
	case ends > 0: // --help, --version
		_, _ = stdout.Write(usage.Bytes()[:said])
		return exitOK
	case err != nil:
		fmt.Fprintf(stderr, "protip: %v, try --help\n", err)
		return exitUsage
	case name != "report" && (c.format == "csv" || c.format == "html"):
		fmt.Fprintf(stderr, "protip: only reports are printed as %s, try --help\n", c.format)
		return exitUsage
	}
	c.json = c.format == "json"
	err = verbs[name](ctx, c)
	var wrong usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &wrong):
		fmt.Fprintln(stderr, wrong)
		return exitUsage
	default:
		fmt.Fprintf(stderr, "protip: %v\n", err)
		return exitFailed
	}
}
