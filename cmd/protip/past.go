package main

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/alecthomas/kingpin/v2"
	promconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/promslog"

	"github.com/protip/protip/internal/app"
	"github.com/protip/protip/internal/config"
	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/history/promql"
	"github.com/protip/protip/internal/history/remote"
	"github.com/protip/protip/internal/history/tsdb"
)

// queryTimeout bounds one query of a command that looks far back.
const queryTimeout = 5 * time.Minute

// pastFlags say whose history a command looks into: that of a server, of the configuration, or of the agent that runs.
type pastFlags struct {
	file, dir, url *string
	agent          agentFlags
}

func addPastFlags(cmd *kingpin.CmdClause) pastFlags {
	return pastFlags{
		file:  configFlag(cmd),
		dir:   cmd.Flag("storage.path", "Directory of the agent's database, if it is not running.").Default("data/").String(),
		url:   cmd.Flag("history.url", "A Prometheus-compatible server to ask instead of protip's own history.").String(),
		agent: addAgentFlags(cmd),
	}
}

// open is the history, and the configuration if there is one; done closes it.
func (f pastFlags) open(c *console) (past history.Querier, cfg *config.Config, done func() error, err error) {
	nothing := func() error { return nil }
	if cfg, err = config.Load(*f.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nothing, usageError{missing(err)}
	}
	if *f.url != "" {
		past, err = ask(*f.url, "")
		return past, cfg, nothing, err
	}
	if cfg != nil {
		past, done, err = app.OpenHistory(cfg, *f.dir, promslog.New(c.log))
		if err == nil {
			return past, cfg, done, nil
		}
		if !errors.Is(err, tsdb.ErrLocked) {
			return nil, nil, nothing, err
		}
	}
	past, err = ask(*f.agent.url+"/prometheus", *f.agent.tokenFile)
	return past, cfg, nothing, err
}

// ask is the history of a server, which wants the token in a file, or none.
func ask(url, tokenFile string) (history.Querier, error) {
	how := promconfig.DefaultHTTPClientConfig
	if tokenFile != "" {
		how.Authorization = &promconfig.Authorization{Type: "Bearer", CredentialsFile: tokenFile}
	}
	past, err := remote.New(remote.Options{URL: url, HTTP: how, Timeout: queryTimeout, Samples: promql.DefaultLimits().Samples})
	if err != nil {
		return nil, usageError{fmt.Errorf("history: %w", err)}
	}
	return past, nil
}
