package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/protip/protip/internal/web"
	"github.com/protip/protip/internal/web/client"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// defaultAddress is where the agent listens and where the other commands look for it.
const defaultAddress = "127.0.0.1:9876"

// agentFlags are the flags of commands that speak to a running agent.
type agentFlags struct {
	url, tokenFile *string
}

func addAgentFlags(cmd *kingpin.CmdClause) agentFlags {
	return agentFlags{
		url: cmd.Flag("agent.url", "URL of the running agent.").Default("http://" + defaultAddress).
			Envar("PROTIP_AGENT_URL").String(),
		tokenFile: cmd.Flag("token.file", "File with a token: an operator's for what acts, a viewer's where reading is not open.").
			Envar("PROTIP_TOKEN_FILE").String(),
	}
}

func (f agentFlags) client() (*client.Client, error) {
	var token string
	if *f.tokenFile != "" {
		var err error
		if token, err = readSecret(*f.tokenFile); err != nil {
			return nil, usageError{fmt.Errorf("--token.file: %w", err)}
		}
	}
	c, err := client.New(client.Options{URL: *f.url, Token: token})
	if err != nil {
		return nil, usageError{fmt.Errorf("--agent.url %s: %w", *f.url, err)}
	}
	return c, nil
}

// cure adds to a refused token where this command takes one from.
func cure(err error, tokenFile string) error {
	var refused *client.Error
	switch {
	case !errors.As(err, &refused) || refused.Type != "unauthorized":
		return err
	case tokenFile == "":
		return errors.New("the agent wants to know who asks: name a file that holds a token with --token.file or PROTIP_TOKEN_FILE")
	}
	return fmt.Errorf("the agent does not know the token in %s: it has the one that its web.operator_token_file holds, and those of its web.users_file", tokenFile)
}

// addAgentCommands adds tips, actions, pause, resume, place and reserve.
func addAgentCommands(app *kingpin.Application, verbs map[string]command) {
	add := func(cmd *kingpin.CmdClause, do func(context.Context, *console, *client.Client) error) {
		flags := addAgentFlags(cmd)
		verbs[cmd.FullCommand()] = func(ctx context.Context, c *console) error {
			agent, err := flags.client()
			if err != nil {
				return err
			}
			return cure(do(ctx, c, agent), *flags.tokenFile)
		}
	}

	tips := app.Command("tips", "What should be done, and why.")
	list := tips.Command("list", "List the tips.").Default()
	all := list.Flag("all", "Resolved and pending ones too.").Bool()
	add(list, func(ctx context.Context, c *console, agent *client.Client) error {
		return listTips(ctx, c, agent, *all)
	})

	show := tips.Command("show", "Show a tip with its evidence, its actions and the next command.")
	shown := show.Arg("id", "The tip.").Required().String()
	add(show, func(ctx context.Context, c *console, agent *client.Client) error {
		return showTip(ctx, c, agent, *shown)
	})

	implement := tips.Command("implement", "Carry out a tip's remedy.")
	implemented := implement.Arg("id", "The tip.").Required().String()
	implementWhy := implement.Flag("why", "For the audit.").String()
	implementDowntime := implement.Flag("downtime", "Also take VMs down that cannot be moved live: they are saved, moved and restored.").Bool()
	add(implement, func(ctx context.Context, c *console, agent *client.Client) error {
		do := agent.Implement
		if *implementDowntime {
			do = agent.ImplementWithDowntime
		}
		actions, err := do(ctx, *implemented, *implementWhy)
		if err != nil {
			return err
		}
		return c.print(actions, func(w *tabwriter.Writer) { printActions(w, actions) })
	})

	dismiss := tips.Command("dismiss", "Hide a tip for a while; nothing acts on it.")
	dismissed := dismiss.Arg("id", "The tip.").Required().String()
	dismissFor := dismiss.Flag("for", "How long, as 24h or 7d.").Required().String()
	dismissWhy := dismiss.Flag("why", "For the audit.").String()
	add(dismiss, func(ctx context.Context, c *console, agent *client.Client) error {
		tip, err := agent.Dismiss(ctx, *dismissed, *dismissFor, *dismissWhy)
		if err != nil {
			return err
		}
		return c.print(tip, func(w *tabwriter.Writer) {
			fmt.Fprintf(w, "dismissed %s until %s\n", tip.ID, tip.DismissedUntil.Format(time.RFC3339))
		})
	})

	undismiss := tips.Command("undismiss", "Take a dismissal back.")
	undismissed := undismiss.Arg("id", "The tip.").Required().String()
	add(undismiss, func(ctx context.Context, c *console, agent *client.Client) error {
		tip, err := agent.Undismiss(ctx, *undismissed, "")
		if err != nil {
			return err
		}
		return c.print(tip, func(w *tabwriter.Writer) { fmt.Fprintf(w, "%s is %s again\n", tip.ID, tip.State) })
	})

	actions := app.Command("actions", "What was moved, is moving, or is unknown.")
	listActions := actions.Command("list", "List the newest actions.").Default()
	add(listActions, func(ctx context.Context, c *console, agent *client.Client) error {
		found, err := agent.Actions(ctx, "")
		if err != nil {
			return err
		}
		return c.print(found, func(w *tabwriter.Writer) { printActions(w, found) })
	})

	cancel := actions.Command("cancel", "Stop an action: withdraw what was not sent, and have the platform asked to give up what runs.")
	cancelled := cancel.Arg("id", "The action.").Required().String()
	cancelWhy := cancel.Flag("why", "For the audit.").String()
	add(cancel, func(ctx context.Context, c *console, agent *client.Client) error {
		action, err := agent.Cancel(ctx, *cancelled, *cancelWhy)
		if err != nil {
			return err
		}
		return c.print(action, func(w *tabwriter.Writer) {
			printActions(w, []remediation.Action{action})
			if !action.State.Final() {
				fmt.Fprintln(w, "\nHow it ends is told by where the VM is then: protip actions")
			}
		})
	})

	resolve := actions.Command("resolve", "Say what became of an action that is unknown, after a look where its VM is; frees the VM.")
	resolved := resolve.Arg("id", "The action.").Required().String()
	resolvedAs := resolve.Flag("as", "done or failed.").Required().Enum("done", "failed")
	resolveWhy := resolve.Flag("why", "For the audit.").String()
	add(resolve, func(ctx context.Context, c *console, agent *client.Client) error {
		action, err := agent.Resolve(ctx, *resolved, remediation.State(*resolvedAs), *resolveWhy)
		if err != nil {
			return err
		}
		return c.print(action, func(w *tabwriter.Writer) { printActions(w, []remediation.Action{action}) })
	})

	pause := app.Command("pause", "Stop all acting at once; survives restarts.")
	pauseSource := pause.Flag("source", "Only this source.").String()
	pauseWhy := pause.Flag("why", "For the audit.").String()
	add(pause, func(ctx context.Context, c *console, agent *client.Client) error {
		return c.done(agent.Pause(ctx, *pauseSource, *pauseWhy), "paused", *pauseSource)
	})

	resume := app.Command("resume", "Let protip act again.")
	resumeSource := resume.Flag("source", "Only this source.").String()
	resumeWhy := resume.Flag("why", "For the audit.").String()
	add(resume, func(ctx context.Context, c *console, agent *client.Client) error {
		return c.done(agent.Resume(ctx, *resumeSource, *resumeWhy), "resumed", *resumeSource)
	})

	place := app.Command("place", "Rate every host for a VM, one that exists or one that is only described.")
	placed := addPlaceFlags(place)
	add(place, func(ctx context.Context, c *console, agent *client.Client) error {
		return placeVM(ctx, c, agent, placed)
	})
	addReserveCommand(app, add)
	addHostCommands(app, add)
}

func listTips(ctx context.Context, c *console, agent *client.Client, all bool) error {
	tips, err := agent.Tips(ctx)
	if err != nil {
		return err
	}
	if !all {
		kept := tips[:0]
		for _, t := range tips {
			if t.State != rules.Resolved && t.State != rules.Pending {
				kept = append(kept, t)
			}
		}
		tips = kept
	}
	return c.print(tips, func(w *tabwriter.Writer) {
		if len(tips) == 0 {
			fmt.Fprintln(w, "no tips")
			return
		}
		fmt.Fprintln(w, "ID\tSEVERITY\tSTATE\tRULE\tOBJECT\tSUMMARY")
		for _, t := range tips {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", t.ID, t.Severity, t.State, t.Rule, printable(t.Name), printable(t.Summary))
		}
	})
}

func showTip(ctx context.Context, c *console, agent *client.Client, id string) error {
	tip, err := agent.Tip(ctx, id)
	if err != nil {
		return err
	}
	actions, err := agent.Actions(ctx, id)
	if err != nil {
		return err
	}
	type shown struct {
		web.Tip
		Actions []remediation.Action `json:"actions"`
		Plan    *web.Proposal        `json:"plan,omitempty"` // of what would be done now
	}
	var plan *web.Proposal
	if tip.State == rules.Active && tip.Remedy.Moves() {
		if p, err := agent.Plan(ctx, id); err == nil {
			plan = &p
		} else if refused := (*client.Error)(nil); !errors.As(err, &refused) || refused.Type != "conflict" {
			return err
		}
	}
	return c.print(shown{tip, actions, plan}, func(w *tabwriter.Writer) {
		fmt.Fprintf(w, "%s\n\n", printable(tip.Summary))
		fmt.Fprintf(w, "source\t%s\nsubject\t%s %s\nrule\t%s of pack %s\nseverity\t%s\nstate\t%s\n",
			tip.Object.Source, tip.Object.Kind, printable(tip.Name), tip.Rule, tip.Pack, tip.Severity, printable(standing(tip.Tip)))
		fmt.Fprintf(w, "since\t%s\ncause\t%s\n", tip.Since.Format(time.RFC3339), printable(tip.Cause))
		for _, e := range tip.Evidence {
			value := "no data"
			if e.Value != nil {
				value = quantity(*e.Value, e.Unit)
			}
			fmt.Fprintf(w, "seen\t%s = %s at %s\n", e.Name, value, e.At.Format(time.RFC3339))
		}
		fmt.Fprintf(w, "remedy\t%s\n", tip.Remedy.Words())
		if len(actions) > 0 {
			fmt.Fprintln(w)
			printActions(w, actions)
		}
		if plan != nil {
			fmt.Fprintln(w)
			printPlan(w, *plan)
		}
		if tip.Hint != "" {
			fmt.Fprintf(w, "\n%s\n", tip.Hint)
		}
		if tip.NextCommand != "" {
			fmt.Fprintf(w, "\nnext: %s\n", tip.NextCommand)
		}
	})
}

// standing is a tip's state in words, with what belongs to it.
func standing(t rules.Tip) string {
	switch t.State {
	case rules.Resolved:
		return fmt.Sprintf("resolved at %s: %s", t.ResolvedAt.Format(time.RFC3339), t.ResolvedWhy)
	case rules.Dismissed:
		return "dismissed until " + t.DismissedUntil.Format(time.RFC3339)
	case rules.Unknown:
		if t.NoDataSince.IsZero() {
			return "unknown: no data"
		}
		return "unknown: no data since " + t.NoDataSince.Format(time.RFC3339)
	}
	return words(t.State)
}

func printActions(w *tabwriter.Writer, actions []remediation.Action) {
	fmt.Fprintln(w, "ACTION\tVM\tFROM\tTO\tSTATE\tOUTCOME\tBY\tERROR")
	for _, a := range actions {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			a.ID, printable(a.VMName), printable(a.FromName), printable(a.ToName), standingOf(a), words(a.Outcome), a.By, printable(a.Error))
	}
}

// standingOf is an action's state, and what is special about it.
func standingOf(a remediation.Action) string {
	text := words(a.State)
	if a.Queued {
		text += ", queued by the platform"
	}
	switch {
	case a.State.Final() || a.CancelBy == "":
	case a.CancelError != "":
		text += fmt.Sprintf(", not cancelled for %s: %s", a.CancelBy, printable(a.CancelError))
	default:
		text += ", being cancelled for " + a.CancelBy
	}
	return text
}
