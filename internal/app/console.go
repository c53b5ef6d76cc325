package app

import (
	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/history/promql"
	"github.com/protip/protip/internal/web/console"
)

// newConsole makes the pages for people.
func (a *App) newConsole() *console.Console {
	return console.New(console.Options{
		Agent: agent{a}, Past: a.past, Log: a.log,
		Trials: func(m history.Matrix) history.Querier { return promql.Memory(m...) },
	})
}
