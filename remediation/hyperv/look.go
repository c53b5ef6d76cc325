package hyperv

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/platform/winrm"
	"github.com/protip/protip/remediation"
)

// view is what the hosts show of a VM at one moment.
type view struct {
	role   string       // its role in the cluster; empty: it is none of a cluster's
	on     inventory.ID // the host that owns it; zero if none does
	runs   bool         // there, and nothing is pending
	down   string       // why it does not run there, in a word
	moving bool         // it is pending, in the queue, or its source has a job that moves it
	queued bool         // it waits for a slot
	job    *job         // that moves it, if there is one to be seen
	ended  []job        // of its migrations away from the source, those that the host remembers
}

// job is an Msvm_MigrationJob.
type job struct {
	id       string
	to       string // its target's name
	state    uint64
	percent  uint64
	words    string        // why it failed, in the host's language
	age      time.Duration // since it was asked for, by the host's clock
	ageKnown bool
}

// States of a job: from which on it runs, from which on it is over, and the one of these that is a success.
const (
	jobRuns      = 4
	jobOver      = 7
	jobSucceeded = 7
)

// look finds out whether the VM is a cluster's, and what is shown of it there or at the hosts.
func (e *Executor) look(ctx context.Context, a remediation.Action, vm string) (view, error) {
	role, err := e.role(ctx, vm)
	switch {
	case err == nil && role != "":
		return e.lookAtRole(ctx, a, vm, role)
	case err == nil || errors.Is(err, errNoCluster):
		return e.lookAtHosts(ctx, a, vm)
	}
	if h, missing := e.host(ctx, a.From); missing == nil && h.alone(ctx) { // others that do not answer have no say in it
		return e.lookAtHosts(ctx, a, vm)
	}
	return view{}, err
}

// alone reports whether a host says that it is in no cluster.
func (h *host) alone(ctx context.Context) bool {
	_, err := h.client.All(ctx, clusterName)
	return errors.Is(err, winrm.ErrInvalidQuery)
}

var clusterName = winrm.Query{Namespace: mscluster, WQL: "SELECT Name FROM MSCluster_Cluster"}

// role is the name of the VM's role in the cluster, empty if it has none. It is looked up each time: a role can be renamed, and another
// VM's be given its name. A cluster that does not tell of each role whose it is cannot say that the VM has none: its host must not then
// be told to move it behind the cluster's back.
func (e *Executor) role(ctx context.Context, vm string) (role string, err error) {
	err = e.cluster(ctx, func(c *winrm.Client) error {
		role = ""
		roles, nameless := 0, 0
		q := winrm.Query{Namespace: mscluster, WQL: "SELECT OwnerGroup, PrivateProperties FROM MSCluster_Resource WHERE Type = 'Virtual Machine'"}
		err := c.Enumerate(ctx, q, func(i winrm.Instance) error {
			roles++
			var id string
			if private, _ := i.Get("PrivateProperties"); private.Object != nil {
				id = guid(private.Object.Text("VmID"))
			}
			switch id {
			case vm:
				role = strings.Clone(i.Text("OwnerGroup"))
			case "":
				nameless++
			}
			return nil
		})
		switch {
		case errors.Is(err, winrm.ErrInvalidQuery):
			if names, _ := c.All(ctx, clusterName); len(names) > 0 {
				return fmt.Errorf("the cluster does not tell its VMs: %v", err)
			}
		case err == nil && role == "" && nameless > 0:
			return fmt.Errorf("host %s: the cluster does not tell of %d of its %d VMs which they are", c.Host(), nameless, roles)
		case err == nil && roles == 0:
			if _, err := one(ctx, c, mscluster, clusterName.WQL); err != nil {
				return fmt.Errorf("the cluster tells nothing: %v", err)
			}
		}
		return err
	})
	return role, err
}

// States of a role.
const (
	roleOnline  = 0
	roleOffline = 1
	roleFailed  = 2
	rolePartial = 3
	rolePending = 4
)

// waitingForMove is the bit of a role's StatusInformation that says that it is in the queue.
const waitingForMove = 1

func roleRef(role string) winrm.Ref {
	return winrm.Ref{Namespace: mscluster, Class: "MSCluster_ResourceGroup", Selectors: map[string]string{"Name": role}}
}

// lookAtRole reads the source's jobs first: one that is over when the role is read cannot hide where that went. What of the source
// cannot be read costs the progress and the words of a failure, no more.
func (e *Executor) lookAtRole(ctx context.Context, a remediation.Action, vm, role string) (view, error) {
	v := view{role: role}
	if err := e.jobs(ctx, a, vm, &v); err != nil {
		e.log.Debug("jobs of a migration not readable", "vm", a.VMName, "host", a.FromName, "err", err)
	}
	var row winrm.Instance
	err := e.cluster(ctx, func(c *winrm.Client) (err error) {
		row, err = c.Get(ctx, roleRef(role))
		return err
	})
	if err != nil {
		return v, err
	}
	state, told := row.Uint("State")
	owner := row.Text("OwnerNode")
	if !told || owner == "" {
		return v, fmt.Errorf("role %q: its owner and state are not told", role)
	}
	info, _ := row.Uint("StatusInformation")
	v.on = e.named(a, owner)
	v.queued = info&waitingForMove != 0
	v.moving = v.queued || state == rolePending || v.job != nil
	v.runs = state == roleOnline
	switch state {
	case roleOnline, rolePending:
	case roleOffline:
		v.down = "offline"
	case roleFailed:
		v.down = "failed"
	case rolePartial:
		v.down = "partly online"
	default:
		v.down = fmt.Sprintf("in state %d", state)
	}
	return v, nil
}

// named is the host with a node's name: as the action has it, if it is one of its two.
func (e *Executor) named(a remediation.Action, node string) inventory.ID {
	for _, id := range []inventory.ID{a.From, a.To} {
		if short(id.Ref) == short(node) {
			return id
		}
	}
	return inventory.ID{Source: e.opts.Source, Kind: inventory.KindHost, Ref: strings.ToLower(node)}
}

// States of a VM at its host.
const (
	vmRuns     = 2
	vmOff      = 3
	vmSaved    = 6
	vmStarting = 10
)

// lookAtHosts asks source and target for the VM, and all others if neither has it. A host that does not answer may have it: that is an
// error, unless the VM is seen to run.
func (e *Executor) lookAtHosts(ctx context.Context, a remediation.Action, vm string) (view, error) {
	var v view
	var failed error
	if err := e.jobs(ctx, a, vm, &v); err != nil && !errors.Is(err, errNoHost) {
		failed = err
	}
	seen := map[*host]bool{}
	visit := func(h *host, id inventory.ID) {
		if seen[h] {
			return
		}
		seen[h] = true
		rows, err := h.client.All(ctx, winrm.Query{Namespace: virtualization, WQL: "SELECT Name, EnabledState FROM Msvm_ComputerSystem WHERE Name = '" + vm + "'"})
		if err != nil {
			failed = errors.Join(failed, err)
		}
		for _, r := range rows {
			if state, told := r.Uint("EnabledState"); told {
				v.add(state, id)
			}
		}
	}
	for _, id := range []inventory.ID{a.From, a.To} {
		switch h, err := e.host(ctx, id); {
		case err == nil:
			visit(h, id)
		case !errors.Is(err, errNoHost):
			failed = errors.Join(failed, err)
		}
	}
	if v.on.IsZero() {
		for _, h := range e.hosts {
			if self, err := h.identity(ctx); err != nil {
				failed = errors.Join(failed, err)
			} else {
				visit(h, inventory.ID{Source: e.opts.Source, Kind: inventory.KindHost, Ref: self.full()})
			}
		}
	}
	v.moving = v.moving || v.job != nil
	v.queued = v.job != nil && v.job.state < jobRuns
	if failed != nil && (!v.runs || v.on != a.To) {
		return v, failed
	}
	return v, nil
}

// add counts in how one more host has the VM; the source is asked first. While it migrates, its target has it as one that is starting.
func (v *view) add(state uint64, on inventory.ID) {
	switch {
	case state == vmStarting:
		v.moving = true
	case state == vmRuns && v.runs: // both have it: it has not left yet
		v.moving = true
	case state == vmRuns:
		v.on, v.runs, v.down = on, true, ""
	case v.on.IsZero():
		v.on, v.down = on, vmWord(state)
	}
}

func vmWord(state uint64) string {
	switch state {
	case vmOff:
		return "off"
	case vmSaved:
		return "saved"
	}
	return fmt.Sprintf("in state %d", state)
}

// jobs reads the source's migrations of the VM.
func (e *Executor) jobs(ctx context.Context, a remediation.Action, vm string, v *view) error {
	h, err := e.host(ctx, a.From)
	if err != nil {
		return err
	}
	rows, err := h.client.All(ctx, winrm.Query{
		Namespace: virtualization,
		WQL: "SELECT InstanceID, DestinationHost, JobState, PercentComplete, TimeSubmitted, ErrorDescription, ErrorSummaryDescription " +
			"FROM Msvm_MigrationJob WHERE VirtualSystemName = '" + vm + "'",
	})
	if err != nil || len(rows) == 0 {
		return err
	}
	now, err := h.now(ctx)
	if err != nil {
		return err
	}
	for _, r := range rows {
		j := job{id: strings.Clone(r.Text("InstanceID")), to: strings.Clone(r.Text("DestinationHost")), words: plain(r.Text("ErrorSummaryDescription"))}
		if j.words == "" {
			j.words = plain(r.Text("ErrorDescription"))
		}
		var told bool
		if j.state, told = r.Uint("JobState"); !told {
			continue
		}
		j.percent, _ = r.Uint("PercentComplete")
		if sent, ok := r.Get("TimeSubmitted"); ok {
			if t, err := sent.Time(); err == nil {
				j.age, j.ageKnown = now.Sub(t), true
			}
		}
		if j.state >= jobOver {
			v.ended = append(v.ended, j)
		} else {
			v.job = &j
		}
	}
	return nil
}

// now is the host's clock.
func (h *host) now(ctx context.Context) (time.Time, error) {
	row, err := one(ctx, h.client, cimv2, "SELECT LocalDateTime FROM Win32_OperatingSystem")
	if err != nil {
		return time.Time{}, err
	}
	v, _ := row.Get("LocalDateTime")
	return v.Time()
}

// drift is how far protip's clock and a host's may have drifted apart between the call and the look.
const drift = 10 * time.Second

// since is the newest of the ended jobs that began after the action did, nil if there is none. An action from the future is one whose
// clock was set back: nothing is left out.
func (e *Executor) since(a remediation.Action, ended []job) *job {
	age := e.opts.Now().Sub(a.StartingAt)
	var newest *job
	for i, j := range ended {
		if !j.ageKnown || !a.StartingAt.IsZero() && age >= 0 && j.age > age+drift {
			continue
		}
		if newest == nil || j.age < newest.age {
			newest = &ended[i]
		}
	}
	return newest
}

// Find reads where the VM is and what moves it, or moved it since a.StartingAt.
func (e *Executor) Find(ctx context.Context, a remediation.Action) (remediation.Sighting, error) {
	vm, err := e.mine(a)
	if errors.Is(err, errNoVM) {
		return remediation.Sighting{}, nil
	}
	if err != nil {
		return remediation.Sighting{}, err
	}
	v, err := e.look(ctx, a, vm)
	if err != nil {
		return remediation.Sighting{}, fmt.Errorf("find %s: %w", a.VMName, err)
	}
	s := remediation.Sighting{Host: v.on}
	if !v.runs && !v.moving {
		s.Down = v.down
	}
	ref, j := taskRef(a), e.since(a, v.ended)
	switch {
	case v.moving:
		t := remediation.Task{Ref: ref, State: remediation.TaskRunning}
		if v.job != nil && v.job.to != "" {
			t.To = e.named(a, v.job.to)
		}
		s.Tasks = []remediation.Task{t}
	case a.TaskRef == ref && v.on == a.To && v.runs:
		s.Tasks = []remediation.Task{{Ref: ref, State: remediation.TaskSucceeded, To: a.To}}
	case a.TaskRef == ref && v.on == a.From:
		s.Tasks = []remediation.Task{{Ref: ref, State: remediation.TaskFailed, To: a.To, Error: e.why(ctx, v, j).Error()}}
	case a.TaskRef == "" && j != nil && j.state == jobSucceeded:
		s.Tasks = []remediation.Task{{Ref: ref, State: remediation.TaskSucceeded, To: e.named(a, j.to)}}
	case a.TaskRef == "" && j != nil:
		s.Tasks = []remediation.Task{{Ref: ref, State: remediation.TaskFailed, To: e.named(a, j.to), Error: e.why(ctx, v, j).Error()}}
	}
	return s, nil
}
