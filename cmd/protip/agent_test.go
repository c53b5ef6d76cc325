package main

import (
	"testing"

	"github.com/protip/protip/remediation"
)

func TestStandingOf(t *testing.T) {
	for _, tc := range []struct {
		action remediation.Action
		want   string
	}{
		{remediation.Action{State: remediation.RolledBack, CancelBy: "ann"}, "rolled back"},
		{remediation.Action{State: remediation.Started, Queued: true}, "started, queued by the platform"},
		{remediation.Action{State: remediation.Starting, CancelBy: "ann"}, "starting, being cancelled for ann"},
		{
			remediation.Action{State: remediation.Started, Queued: true, CancelBy: "ann", CancelError: "too late"},
			"started, queued by the platform, not cancelled for ann: too late",
		},
	} {
		if got := standingOf(tc.action); got != tc.want {
			t.Errorf("%q, want %q", got, tc.want)
		}
	}
}
