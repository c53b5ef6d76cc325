package app

import (
	"context"
	"fmt"
	"slices"

	"github.com/protip/protip/remediation"
)

// How fast a source copies is told by the last paceMoves of its live moves, among the paceActions that ended well last.
const (
	paceMoves   = 20
	paceActions = 200
)

// pace is how fast a migration copies, and how that is known; zero is not known.
type pace struct {
	bytesPerSecond float64
	from           string
}

func (p pace) String() string { return fmt.Sprintf("%.0f MB/s, %s", p.bytesPerSecond/1e6, p.from) }

// paceOf is the median of what the source's last live moves copied per second, from the call to the platform's word that it was done: what
// was written to memory and copied again meanwhile is in it. Before the first one it is what the configuration says.
func (a *App) paceOf(source string) (pace, error) {
	p := pace{a.settings.Load().config.Placement.CopyRate, "as configured"}
	if a.acting == nil {
		return p, nil
	}
	past, err := a.acting.engine.Actions(context.Background(), remediation.Filter{States: []remediation.State{remediation.Done}, Limit: paceActions})
	if err != nil {
		return p, fmt.Errorf("read how long past moves took: %w", err)
	}
	var rates []float64
	for _, act := range past {
		took := act.VerifyingAt.Sub(act.StartingAt).Seconds() // not above 0 where either is not known
		if act.VM.Source == source && act.Kind == remediation.LiveMigration && act.Sent() && act.CopyBytes > 0 && took > 0 && len(rates) < paceMoves {
			rates = append(rates, act.CopyBytes/took)
		}
	}
	if len(rates) == 0 {
		return p, nil
	}
	slices.Sort(rates)
	return pace{rates[(len(rates)-1)/2], fmt.Sprintf("the median of the last %s of %s", countOf(len(rates), "live move"), source)}, nil
}

func countOf(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
