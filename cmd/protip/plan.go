package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/protip/protip/internal/placement"
	"github.com/protip/protip/internal/web"
	"github.com/protip/protip/internal/web/client"
)

// addHostCommands adds evacuate, free and fill: what a person can ask of one host.
func addHostCommands(app *kingpin.Application, add func(*kingpin.CmdClause, func(context.Context, *console, *client.Client) error)) {
	for _, c := range []struct {
		what web.What
		help string
	}{
		{web.Evacuate, "Show how a host's VMs would be moved off it; with --implement, move them."},
		{web.Free, "Show how a host would be emptied wholly and without crowding others; with --implement, empty it."},
		{web.Fill, "Show how a host, a new one say, would get its share of its cluster's load; with --implement, move the VMs."},
	} {
		cmd := app.Command(string(c.what), c.help)
		host := cmd.Arg("host", "The host, by name or by source/host/ref.").Required().String()
		implement := cmd.Flag("implement", "Carry the plan out.").Bool()
		plan := cmd.Flag("plan", "Only if the plan is still this one.").String()
		downtime := cmd.Flag("downtime", "Also take VMs down that cannot be moved live: they are saved, moved and restored.").Bool()
		why := cmd.Flag("why", "For the audit.").String()
		add(cmd, func(ctx context.Context, out *console, agent *client.Client) error {
			if *implement {
				actions, err := agent.ImplementHost(ctx, c.what, *host, web.Agreement{Plan: *plan, Downtime: *downtime}, *why)
				if err != nil {
					return err
				}
				return out.print(actions, func(w *tabwriter.Writer) { printActions(w, actions) })
			}
			p, err := agent.HostPlan(ctx, c.what, *host)
			if err != nil {
				return err
			}
			return out.print(p, func(w *tabwriter.Writer) {
				printPlan(w, p)
				if p.NextCommand != "" {
					fmt.Fprintf(w, "\nnext: %s\n", printable(p.NextCommand))
				}
			})
		})
	}
}

// printPlan shows the moves by wave, each with what it is for and what it costs, and what stays.
func printPlan(w *tabwriter.Writer, p web.Proposal) {
	if len(p.Waves) == 0 {
		fmt.Fprintln(w, "plan\tnothing moves")
	} else {
		fmt.Fprintln(w, "WAVE\tVM\tFROM\tTO\tBENEFIT\tCOST\tWHY")
	}
	for n, wave := range p.Waves {
		for _, m := range wave {
			fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n",
				n+1, printable(m.Name), printable(m.FromName), printable(m.ToName), benefit(m), cost(m.Step), printable(m.Why))
		}
	}
	if p.Why != "" {
		fmt.Fprintf(w, "but\t%s\n", printable(p.Why))
	}
	for _, l := range p.Left {
		fmt.Fprintf(w, "stays\t%s: %s\n", printable(l.Name), printable(l.Why))
	}
	if p.Apart != nil {
		fmt.Fprintf(w, "apart\t%.0f %% of their CPU now, %.0f %% afterwards\n", 100*p.Apart.Before, 100*p.Apart.After)
	}
	for _, k := range p.Kept {
		fmt.Fprintf(w, "reserve\t%s\n", printable(k.Why))
	}
	if p.Downtime != "" {
		fmt.Fprintf(w, "downtime\t%s\n", printable(p.Downtime))
	}
	fmt.Fprintf(w, "who\t%s\n", printable(p.Decision.Why))
	if p.Seconds > 0 {
		fmt.Fprintf(w, "takes\tabout %s, at %s\n", (time.Duration(p.Seconds) * time.Second).String(), printable(p.Pace))
	}
	if !p.FollowedSince.IsZero() {
		fmt.Fprintf(w, "demand\tfollowed since %s\n", p.FollowedSince.Format(time.RFC3339))
	}
}

func benefit(m web.ProposedMove) string {
	switch {
	case m.GainedHertz > 0:
		return fmt.Sprintf("%.1f GHz more served", m.GainedHertz/1e9)
	case m.Closer > 0:
		return fmt.Sprintf("%.0f %% closer", 100*m.Closer)
	case m.For == placement.ForEvacuation || m.For == placement.ForFreeing:
		return "off the host"
	case m.Stars > 0:
		return stars(m.Stars)
	}
	return string(m.For)
}

func cost(s placement.Step) string {
	text := fmt.Sprintf("copies %.1f GiB", s.Cost.CopyBytes/(1<<30))
	if s.Cost.Seconds > 0 {
		text += ", " + (time.Duration(s.Cost.Seconds) * time.Second).String()
	}
	switch {
	case s.Cost.DowntimeSeconds > 0:
		text += fmt.Sprintf(", down %s", time.Duration(s.Cost.DowntimeSeconds)*time.Second)
	case s.Kind == placement.MoveQuick:
		text += ", down meanwhile"
	}
	return text
}
