package remediation

import "context"

// DryRun is an executor that checks for real and does nothing. Its actions end done with DryRun set: they are never verified,
// start no cooldown, spend no budget and have no outcome.
func DryRun(e Executor) Executor { return dryRun{e} }

type dryRun struct{ Executor }

var _ Executor = dryRun{}

func (dryRun) Do(context.Context, Action, func(Progress) error) error { return nil }
