package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/protip/protip/internal/config"
	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/rules/report"
)

// reportFlags are what a report is asked for on the command line.
type reportFlags struct {
	name, since, until, output *string
	scope                      report.Scope
	thresholds                 *[]float64
	reserve, hosts, vms        *int

	backtest *bool
	seed     *uint64
	each     *int
	traces   *[]string

	past pastFlags
}

func addReport(kp *kingpin.Application, verbs map[string]command) {
	cmd := kp.Command("report", "Say what months of numbers mean. --format=csv and --format=html (one page with charts) are for reports only.")
	f := reportFlags{
		name:       cmd.Arg("name", "One of "+strings.Join(report.Names(), ", ")+".").Required().Enum(report.Names()...),
		since:      cmd.Flag("since", "How far back to begin.").Default("30d").String(),
		until:      cmd.Flag("until", "How far back to end.").Default("0s").String(),
		output:     cmd.Flag("output", "File to write to, instead of the terminal.").String(),
		thresholds: cmd.Flag("threshold", "growth: utilisation, 0..1, to tell the days until. Repeatable.").Default("0.8", "0.95").Float64List(),
		reserve:    cmd.Flag("reserve", "growth: hosts of a cluster that may fail; the load must fit what is left. 0 is none.").Default("1").Int(),
		hosts:      cmd.Flag("what-if.hosts", "growth: what if each cluster had so many hosts more.").Default("0").Int(),
		vms:        cmd.Flag("what-if.vms", "growth: what if each cluster had so many VMs more.").Default("0").Int(),
		backtest:   cmd.Flag("backtest", "growth: forecast what is known already, and say how well that went.").Bool(),
		seed:       cmd.Flag("backtest.seed", "Seed of the generated series.").Default("1").Uint64(),
		each:       cmd.Flag("backtest.series", "Generated series of each kind.").Default("60").Int(),
		traces:     cmd.Flag("backtest.trace", "File of a day's utilisation of many VMs: CSV, a column each; .gz is unpacked. Repeatable.").Strings(),
		past:       addPastFlags(cmd),
	}
	cmd.Flag("source", "Only of this source.").StringVar(&f.scope.Source)
	cmd.Flag("cluster", "Only of the cluster of this name.").StringVar(&f.scope.Cluster)
	cmd.Flag("host", "Only of the host of this name; a VM counts while it was there.").StringVar(&f.scope.Host)
	cmd.Flag("tag", "Only of VMs with this tag, as category=tag or tag.").StringVar(&f.scope.Tag)
	verbs[cmd.FullCommand()] = func(ctx context.Context, c *console) error {
		if *f.backtest {
			return f.test(ctx, c)
		}
		return f.make(ctx, c)
	}
}

func (f *reportFlags) make(ctx context.Context, c *console) error {
	r, err := f.request(time.Now())
	if err != nil {
		return usageError{err}
	}
	past, cfg, done, err := f.past.open(c)
	if err != nil {
		return err
	}
	defer func() { _ = done() }()
	r.Past, r.Ceiling = past, config.DefaultCeiling
	if cfg != nil && cfg.Remediation != nil {
		r.Ceiling = cfg.Remediation.Ceiling
	}
	r.Progress = progress(c.err, "asking")
	made, err := report.Make(ctx, *f.name, r)
	if err != nil {
		return err
	}
	write := map[string]func(io.Writer) error{"text": made.Text, "json": made.JSON, "csv": made.CSV, "html": made.HTML}[c.format]
	if *f.output == "" {
		return write(c.out)
	}
	var whole bytes.Buffer
	if err := write(&whole); err != nil {
		return err
	}
	return os.WriteFile(*f.output, whole.Bytes(), 0o600)
}

// request is what the flags ask for.
func (f *reportFlags) request(now time.Time) (report.Request, error) {
	r := report.Request{Scope: f.scope, Thresholds: *f.thresholds, Reserve: *f.reserve, MoreHosts: *f.hosts, MoreVMs: *f.vms}
	for _, t := range r.Thresholds {
		if !(t > 0 && t <= 10) {
			return r, fmt.Errorf("--threshold %g: a utilisation is written as 0.8", t)
		}
	}
	if r.Reserve < 0 || r.MoreHosts < 0 || r.MoreVMs < 0 {
		return r, errors.New("--reserve, --what-if.hosts and --what-if.vms are not negative")
	}
	rough, err := rangeOf(*f.since, *f.until, "5m", now)
	if err != nil {
		return r, err
	}
	step := report.StepOf(*f.name, rough)
	end := rough.End.Truncate(step)
	r.Range = history.Range{Start: end.Add(-rough.End.Sub(rough.Start)).Truncate(step), End: end, Step: step}
	return r, nil
}

// test holds the forecast against series whose future is known.
func (f *reportFlags) test(ctx context.Context, c *console) error {
	switch {
	case *f.name != "growth":
		return usageError{fmt.Errorf("--backtest is of growth, not of %s", *f.name)}
	case c.format == "csv" || c.format == "html":
		return usageError{errors.New("--backtest prints text or json")}
	case *f.each < 1 || *f.each > 10_000:
		return usageError{fmt.Errorf("--backtest.series %d is not from 1 to 10000", *f.each)}
	}
	var scores []report.Score
	for _, name := range *f.traces {
		vms, err := readTrace(name)
		if err != nil {
			return usageError{fmt.Errorf("--backtest.trace %s: %w", name, err)}
		}
		for _, group := range []int{1, 20} {
			s, err := report.Traced(fmt.Sprintf("%s, %s", name, plural(group, "VM")), vms, group)
			if err != nil {
				return usageError{fmt.Errorf("--backtest.trace %s: %w", name, err)}
			}
			scores = append(scores, s)
		}
	}
	generated, err := report.Generated(ctx, *f.seed, *f.each, progress(c.err, "forecasting"))
	if err != nil {
		return err
	}
	scores = append(generated, scores...)
	return c.print(scores, func(w *tabwriter.Writer) {
		fmt.Fprint(w, "SERIES\tN\tMASE\tLAST VALUE\tPREDICT_LINEAR\tSEASONAL NAIVE\tIN 90% INTERVAL\tSAID TO GROW\tGROW\tDAYS RIGHT\n")
		for _, s := range scores {
			right := "-"
			if s.Growing > 0 {
				right = fmt.Sprintf("%.1f%%", 100*s.Until)
			}
			fmt.Fprintf(w, "%s\t%d\t%.3f\t%.3f\t%.3f\t%.3f\t%.1f%%\t%.1f%%\t%.1f%%\t%s\n", printable(s.Kind), s.Series, s.MASE, s.Last, s.Linear, s.Seasonal,
				100*s.Coverage, 100*s.Trends, 100*s.Growing, right)
		}
	})
}

func readTrace(name string) ([][]float64, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if !strings.HasSuffix(name, ".gz") {
		return report.ReadTrace(file)
	}
	z, err := gzip.NewReader(file)
	if err != nil {
		return nil, err
	}
	return report.ReadTrace(z)
}
