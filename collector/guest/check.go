package guest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/protip/protip/collector"
	"github.com/protip/protip/internal/inventory"
)

// Check asks every target and probe once and says who answered and whose guests they are, or what machines.
func Check(ctx context.Context, opts Options) (collector.Report, error) {
	opts.Observer = silent{}
	s, err := New(opts)
	if err != nil {
		return collector.Report{}, err
	}
	defer s.hangUp()
	found := make([]inventory.Delta, len(s.subjects))
	missing := make([][]error, len(s.subjects))
	failed := make([]error, len(s.subjects))
	var asking sync.WaitGroup
	room := make(chan struct{}, fastLane)
	for i, subj := range s.subjects {
		room <- struct{}{}
		asking.Go(func() {
			defer func() { <-room }()
			ans := s.ask(ctx, subj)
			failed[i], missing[i] = ans.err, ans.missing
			if ans.err == nil {
				subj.evidence = ans.evidence
			}
			subj.joined = s.index.join(subj.explicit, subj.evidence)
			found[i] = subj.take(ans, s.opts.Clock.Now())
		})
	}
	asking.Wait()
	r := collector.Report{Product: "guests", Lacks: []collector.Privilege{}}
	if opts.Machines {
		r.Product = "machines"
	}
	vms, answered := map[inventory.ID]bool{}, 0
	for i, subj := range s.subjects {
		if failed[i] == nil {
			answered++
		}
		if !subj.joined.vm.IsZero() {
			vms[subj.joined.vm] = true
		}
		r.Notes = append(r.Notes, fmt.Sprintf("%s %s: %s; %s", subj.kind, subj.name, subj.outcome(failed[i], len(found[i].Services)), s.index.words(subj)))
		for _, err := range missing[i] {
			r.Notes = append(r.Notes, fmt.Sprintf("%s %s: %v", subj.kind, subj.name, err))
		}
	}
	r.VMs = len(vms)
	r.Notes = append(r.Notes, fmt.Sprintf("%d of %d targets and probes answer", answered, len(s.subjects)))
	if answered == 0 {
		return r, errors.New("nothing answers: " + r.Notes[0])
	}
	return r, nil
}

func (s *subject) outcome(err error, services int) string {
	if err != nil {
		return err.Error()
	}
	if m := s.machine; m != nil {
		told := []string{"answers"}
		for _, s := range []string{m.Model, m.OS} {
			if s != "" {
				told = append(told, s)
			}
		}
		return fmt.Sprintf("%s, %d CPUs, %.1f GiB", strings.Join(told, ", "), m.CPUs, m.MemoryBytes/(1<<30))
	}
	if services == 1 {
		return "answers, 1 service"
	}
	return fmt.Sprintf("answers, %d services", services)
}

// words say whose guest a subject is, and what to do if nobody knows.
func (x *indexer) words(s *subject) string {
	switch {
	case s.machine != nil && s.machine.VM.IsZero():
		return "no VM is known that it would be"
	case s.joined.err != nil:
		return s.joined.err.Error()
	case !s.joined.vm.IsZero():
		return fmt.Sprintf("VM %s, by %s", s.joined.vm, s.joined.how)
	}
	if id, ok := x.current().hint(s.evidence); ok {
		return fmt.Sprintf("no VM found; by its host name alone it may be %s: if so, write vm: %s/%s", id, id.Source, id.Ref)
	}
	return "no VM found: write vm: source/name if it is in one"
}

// silent is an Observer of what is told otherwise.
type silent struct{}

var _ collector.Observer = silent{}

func (silent) Call(string)           {}
func (silent) Fault(string, error)   {}
func (silent) Cycle(string, float64) {}
