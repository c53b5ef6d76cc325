package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/version"
	"golang.org/x/term"

	"github.com/protip/protip/internal/app"
	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/rules"
	"github.com/protip/protip/rules/packs"
)

func addReplay(kp *kingpin.Application, verbs map[string]command) {
	cmd := kp.Command("replay", "Say what a pack would have reported in the past, by the code that judges live.")
	names := cmd.Flag("pack", "File of a pack, or the name of a shipped one.").Required().Strings()
	since := cmd.Flag("since", "How far back to begin.").Default("7d").String()
	until := cmd.Flag("until", "How far back to end.").Default("0s").String()
	step := cmd.Flag("step", "Time between two evaluations.").Default("1m").String()
	past := addPastFlags(cmd)
	verbs[cmd.FullCommand()] = func(ctx context.Context, c *console) error {
		r, err := rangeOf(*since, *until, *step, time.Now())
		if err != nil {
			return usageError{err}
		}
		return replay(ctx, c, *names, r, past)
	}
}

// rangeOf reads lengths of time before now.
func rangeOf(since, until, step string, now time.Time) (history.Range, error) {
	var d [3]time.Duration
	for i, f := range []struct{ name, value string }{{"--since", since}, {"--until", until}, {"--step", step}} {
		v, err := model.ParseDuration(f.value)
		if err != nil {
			return history.Range{}, fmt.Errorf("%s %q is not a length of time: write it as 30d, 12h or 5m", f.name, f.value)
		}
		d[i] = time.Duration(v)
	}
	if d[0] <= d[1] || d[2] < time.Second {
		return history.Range{}, fmt.Errorf("from %s ago to %s ago by %s: there is nothing between", since, until, step)
	}
	now = now.Truncate(d[2])
	return history.Range{Start: now.Add(-d[0]), End: now.Add(-d[1]), Step: d[2]}, nil
}

// replayed is an episode as it is printed.
type replayed struct {
	rules.Episode
	Lasted string `json:"lasted"`
}

func replay(ctx context.Context, c *console, names []string, r history.Range, flags pastFlags) error {
	past, cfg, done, err := flags.open(c)
	if err != nil {
		return err
	}
	defer func() { _ = done() }()
	o := rules.Options{Version: version.Version}
	if cfg != nil {
		o = app.PackOptions(cfg)
	}
	o.Some = true
	platforms := map[string]string{}
	if cfg != nil {
		for _, src := range cfg.Sources {
			platforms[src.Name] = src.Type
		}
	}
	set, err := loadPacks(names, o)
	if err != nil {
		return usageError{err}
	}
	show := progress(c.err, "replaying")
	episodes, err := rules.Replay{Set: set, Past: past, Range: r, Platforms: platforms, Progress: show}.Run(ctx)
	if err != nil {
		return err
	}
	out := make([]replayed, 0, len(episodes))
	for _, e := range episodes {
		lasted := "still"
		if !e.EndedAt.IsZero() {
			lasted = model.Duration(e.EndedAt.Sub(e.ActiveAt).Round(time.Second)).String()
		}
		out = append(out, replayed{e, lasted})
	}
	return c.print(out, func(w *tabwriter.Writer) {
		fmt.Fprintf(w, "%s in %s\n", plural(len(out), "tip"), model.Duration(r.End.Sub(r.Start)))
		if len(out) > 0 {
			fmt.Fprintf(w, "\nACTIVE AT\tLASTED\tRULE\tOBJECT\tSUMMARY\n")
		}
		for _, e := range out {
			fmt.Fprintf(w, "%s\t%s\t%s/%s\t%s\t%s\n", e.ActiveAt.UTC().Format("2006-01-02 15:04:05Z"), e.Lasted, e.Tip.Pack, e.Tip.Rule,
				printable(e.Tip.Name), printable(e.Tip.Summary))
		}
	})
}

// loadPacks reads packs by file name, or by the name of a shipped one.
func loadPacks(names []string, o rules.Options) (*rules.Set, error) {
	var files []rules.File
	for _, name := range names {
		read := rules.ReadFile
		if !strings.ContainsAny(name, "./\\") {
			read = packs.File
		}
		f, err := read(name)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return rules.Load(files, o)
}

// progress shows how far something long has come, on a terminal only.
func progress(w io.Writer, what string) func(float64) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return func(done float64) {
		fmt.Fprintf(f, "\r%s: %3.0f %%", what, 100*done)
		if done >= 1 {
			fmt.Fprint(f, "\r\033[K")
		}
	}
}
