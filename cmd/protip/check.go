package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/protip/protip/collector"
	"github.com/protip/protip/collector/build"
	"github.com/protip/protip/internal/app"
	"github.com/protip/protip/internal/config"
)

// checkTimeout bounds a check of one source.
const checkTimeout = time.Minute

func addCheck(kp *kingpin.Application, verbs map[string]command) {
	check := kp.Command("check", "Check a configuration or a source.")

	cfg := check.Command("config", "Check the configuration and all packs it names; connects to nothing.")
	cfgFile := configFlag(cfg)
	verbs[cfg.FullCommand()] = func(_ context.Context, c *console) error { return checkConfig(c, *cfgFile) }

	src := check.Command("source", "Log in at a source, look at what its user can see, and log out.")
	srcFile := configFlag(src)
	name := src.Arg("name", "The source.").Required().String()
	verbs[src.FullCommand()] = func(ctx context.Context, c *console) error { return checkSource(ctx, c, *srcFile, *name) }
}

// checkedPack is a pack as check config prints it: its hash is what remediation.automatic asks for.
type checkedPack struct {
	Pack    string   `json:"pack"`
	Version string   `json:"version"`
	SHA256  string   `json:"sha256"`
	Rules   []string `json:"rules"`
}

func checkConfig(c *console, file string) error {
	cfg, set, err := app.CheckConfig(file)
	if err != nil {
		return usageError{missing(err)}
	}
	var checked []checkedPack
	for _, p := range set.Packs() {
		pack := checkedPack{Pack: p.Name, Version: p.Version, SHA256: p.SHA256}
		for _, r := range p.Rules {
			pack.Rules = append(pack.Rules, r.Name)
		}
		checked = append(checked, pack)
	}
	out := map[string]any{"config": file, "sources": len(cfg.Sources), "packs": checked}
	return c.print(out, func(w *tabwriter.Writer) {
		fmt.Fprintf(w, "%s is good: %s, %s\n\nPACK\tVERSION\tSHA256\tRULES\n",
			file, plural(len(cfg.Sources), "source"), plural(len(checked), "pack"))
		for _, p := range checked {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", p.Pack, p.Version, p.SHA256, strings.Join(p.Rules, " "))
		}
	})
}

func checkSource(ctx context.Context, c *console, file, name string) error {
	cfg, err := config.Load(file)
	if err != nil {
		return usageError{missing(err)}
	}
	var names []string
	for _, src := range cfg.Sources {
		if src.Name != name {
			names = append(names, src.Name)
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, checkTimeout)
		defer cancel()
		r, err := build.Check(ctx, cfg, src)
		if err != nil {
			return fmt.Errorf("source %s: %w", name, err)
		}
		return c.print(r, func(w *tabwriter.Writer) {
			fmt.Fprintf(w, "source\t%s\nproduct\t%s\n", name, printable(r.Product))
			if src.Type == config.Guest || src.Type == config.Machines {
				fmt.Fprintf(w, "joined to\t%s\n", plural(r.VMs, "VM"))
			} else {
				printSeen(w, r)
			}
			printLacks(w, src.User()+" lacks, to watch", r.Lacks)
			for _, note := range r.Notes {
				fmt.Fprintf(w, "note\t%s\n", printable(note))
			}
			if r.Acting == nil {
				return
			}
			if r.Acting.Error != "" {
				fmt.Fprintf(w, "acting\t%s\n", printable(r.Acting.Error))
			}
			printLacks(w, r.Acting.Username+" lacks, to act", r.Acting.Lacks)
		})
	}
	return usageError{fmt.Errorf("%s: no source is named %q, only %s", file, name, strings.Join(names, ", "))}
}

func printSeen(w *tabwriter.Writer, r collector.Report) {
	fmt.Fprintf(w, "API version\t%s\ninstance UUID\t%s\nsees\t%s, %s, %s\nclock skew\t%s\n", r.APIVersion, r.InstanceUUID,
		plural(r.Clusters, "cluster"), plural(r.Hosts, "host"), plural(r.VMs, "VM"), r.ClockSkew.Round(time.Millisecond))
}

// printLacks prints privileges that are missing, in the platform's own names.
func printLacks(w *tabwriter.Writer, what string, lacks []collector.Privilege) {
	for _, p := range lacks {
		fmt.Fprintf(w, "%s\t%s (%s)\n", printable(what), p.Name, p.ID)
	}
}
