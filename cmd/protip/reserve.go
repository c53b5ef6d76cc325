package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/alecthomas/kingpin/v2"

	"github.com/protip/protip/internal/placement"
	"github.com/protip/protip/internal/web"
	"github.com/protip/protip/internal/web/client"
)

// placeFlags are a VM to be placed: one that exists, or one that is only described.
type placeFlags struct {
	vm, cluster                *string
	vcpus                      *int
	cpu, memory, disk, network *float64
	ha, explain                *bool
	tags                       *[]string
}

func addPlaceFlags(cmd *kingpin.CmdClause) placeFlags {
	return placeFlags{
		vm:      cmd.Flag("vm", "The VM, by name or by source/vm/ref.").String(),
		vcpus:   cmd.Flag("vcpus", "Of a VM that does not exist yet: its virtual processors.").Int(),
		cpu:     cmd.Flag("cpu-hertz", "What it is expected to use of CPU, as 2e9.").Default("-1").Float64(),
		memory:  cmd.Flag("memory", "What it is expected to use of memory, in bytes, as 8e9.").Default("-1").Float64(),
		disk:    cmd.Flag("disk", "What it is expected to read and write, in bytes per second.").Default("-1").Float64(),
		network: cmd.Flag("network", "What it is expected to receive and send, in bytes per second.").Default("-1").Float64(),
		ha:      cmd.Flag("ha", "It must be restarted when its host fails.").Bool(),
		tags:    cmd.Flag("tag", "A tag it will have, as category/name; repeatable.").Strings(),
		cluster: cmd.Flag("cluster", "Only the hosts of this cluster, by name or as source/name; else all hosts there are.").String(),
		explain: cmd.Flag("explain", "Each reason on a line of its own, with its code.").Bool(),
	}
}

func (f placeFlags) ask(ctx context.Context, agent *client.Client) (web.Placement, error) {
	described := *f.vcpus != 0 || *f.cpu >= 0 || *f.memory >= 0 || *f.disk >= 0 || *f.network >= 0 || *f.ha || len(*f.tags) > 0 || *f.cluster != ""
	switch {
	case *f.vm != "" && described:
		return web.Placement{}, usageError{errors.New("--vm names a VM that exists; the other flags describe one that does not")}
	case *f.vm != "":
		return agent.Place(ctx, *f.vm)
	case *f.vcpus < 1 || *f.cpu < 0 || *f.memory < 0:
		return web.Placement{}, usageError{errors.New("which VM? name one with --vm, or describe one with --vcpus, --cpu-hertz and --memory")}
	}
	number := func(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
	q := url.Values{"vcpus": {strconv.Itoa(*f.vcpus)}, "cpu_hertz": {number(*f.cpu)}, "memory_bytes": {number(*f.memory)}, "ha": {strconv.FormatBool(*f.ha)}}
	for name, flow := range map[string]float64{"disk_bytes_per_second": *f.disk, "network_bytes_per_second": *f.network} {
		if flow >= 0 {
			q.Set(name, number(flow))
		}
	}
	if len(*f.tags) > 0 {
		q["tag"] = *f.tags
	}
	if *f.cluster != "" {
		q.Set("cluster", *f.cluster)
	}
	return agent.PlaceNew(ctx, q)
}

func placeVM(ctx context.Context, c *console, agent *client.Client, f placeFlags) error {
	placed, err := f.ask(ctx, agent)
	if err != nil {
		return err
	}
	return c.print(placed, func(w *tabwriter.Writer) {
		if *f.explain {
			explainRatings(w, placed.Ratings)
			return
		}
		fmt.Fprintln(w, "STARS\tHOST\tWHY")
		for _, r := range placed.Ratings {
			why := make([]string, 0, len(r.Reasons))
			for _, reason := range r.Reasons {
				why = append(why, reason.Text)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\n", stars(r.Stars), printable(r.Name), printable(strings.Join(why, "; ")))
		}
	})
}

func explainRatings(w *tabwriter.Writer, ratings []placement.Rating) {
	for _, r := range ratings {
		fmt.Fprintf(w, "%s\t%s\t%s\n", stars(r.Stars), printable(r.Name), howMoved(r.Kind))
		for _, reason := range r.Reasons {
			mark := ""
			if reason.Bars {
				mark = "bars"
			}
			fmt.Fprintf(w, "\t  %s\t%s\t%s\n", reason.Code, mark, printable(reason.Text))
		}
	}
}

func howMoved(kind placement.MoveKind) string {
	switch kind {
	case placement.MoveLive:
		return "live migration: it runs on"
	case placement.MoveQuick:
		return "quick migration: it does not run while it is saved, moved and restored"
	}
	return ""
}

func addReserveCommand(app *kingpin.Application, add func(*kingpin.CmdClause, func(context.Context, *console, *client.Client) error)) {
	cmd := app.Command("reserve", "Which clusters survive the loss of hosts, and which do not.")
	cluster := cmd.Arg("cluster", "Only this cluster, by name or id.").String()
	explain := cmd.Flag("explain", "Who would be restarted where, for every set of hosts from which the others follow.").Bool()
	failed := cmd.Flag("failed", "Who would be restarted where if this host failed; repeat it for several at once.").Strings()
	limit := cmd.Flag("limit", "Plans shown of each cluster, 0 for all.").Default("20").Int()
	add(cmd, func(ctx context.Context, c *console, agent *client.Client) error {
		q := url.Values{"limit": {strconv.Itoa(*limit)}}
		if *cluster != "" {
			q.Set("cluster", *cluster)
		}
		if *explain {
			q.Set("explain", "true")
		}
		if len(*failed) > 0 {
			q["failed"] = *failed
		}
		found, err := agent.Reserves(ctx, q)
		if err != nil {
			return err
		}
		return c.print(found, func(w *tabwriter.Writer) { printReserves(w, found) })
	})
}

func printReserves(w *tabwriter.Writer, found []web.Reserve) {
	if len(found) == 0 {
		fmt.Fprintln(w, "no reserve is asked for: set placement.reserve")
		return
	}
	fmt.Fprintln(w, "SOURCE\tCLUSTER\tRESERVE\tANSWER\tASKED BY\tPLATFORM\tWHY")
	for _, r := range found {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\t%s\n", r.Source, printable(r.Name), r.Reserve, words(r.Answer), r.Asked, platformSays(r.Platform), printable(r.Why))
	}
	for _, r := range found {
		if r.Differs != "" {
			fmt.Fprintf(w, "\n%s: the platform says %s (%s): %s\n", printable(r.Name), platformSays(r.Platform), printable(r.Platform.Text), printable(r.Differs))
		}
		for _, p := range r.Plans {
			fmt.Fprintf(w, "\n%s, when %s fail\n", printable(r.Name), printable(strings.Join(p.Failed, " and ")))
			for _, to := range p.Restarts {
				fmt.Fprintf(w, "  %s\t-> %s\n", printable(to.Name), printable(to.Host))
			}
		}
	}
}

func platformSays(s placement.Second) string {
	switch {
	case s.Holds == nil:
		return "-"
	case *s.Holds:
		return "yes"
	}
	return "no"
}
