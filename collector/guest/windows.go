package guest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp/syntax"
	"strings"
	"time"

	"github.com/protip/protip/internal/clock"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/platform/winrm"
)

const (
	cimv2 = "root/cimv2"
	// maxRows is how many instances of one class of one guest are read.
	maxRows = 10_000
)

// windowsGuest asks one Windows guest for its services and performance classes, over one connection that it keeps. It enumerates and
// does nothing else. It is used by one goroutine at a time.
type windowsGuest struct {
	opts     winrm.Options
	clock    *clock.Clock
	mappings []mapping

	client *winrm.Client // nil while there is none
	who    evidence
	asked  time.Time // for who it is
}

func (s *Source) windowsSubject(h WindowsHost, mappings []mapping) (*subject, error) {
	h.Host.Observe = s.opts.Observer.Call
	h.Host.MaxConnections = 1 // who asks one thing after the other logs in once
	h.Host.OperationTimeout = s.opts.Timeout
	client, err := winrm.New(h.Host)
	if err != nil {
		return nil, err
	}
	g := &windowsGuest{opts: h.Host, clock: s.opts.Clock, mappings: mappings}
	subj := &subject{
		source: s.opts.Name, name: cmp.Or(h.Name, client.Host()), explicit: h.VM, kind: "windows", known: map[string]entry{}, ask: g.ask, hangUp: g.hangUp,
	}
	client.Close()
	return subj, nil
}

func (g *windowsGuest) hangUp() {
	if g.client != nil {
		g.client.Close()
		g.client = nil
	}
}

// ask asks once. A class that this Windows does not have costs what is read from it.
func (g *windowsGuest) ask(ctx context.Context, past *past) answer {
	if g.client == nil {
		client, err := winrm.New(g.opts)
		if err != nil {
			return answer{err: err}
		}
		g.client = client
	}
	l := &windowsLook{windowsGuest: g}
	l.identify(ctx)
	services := l.services(ctx)
	ans := gather(g.mappings, past, func(i int, m *mapping, next map[pastKey]totals, yield func(reading)) bool {
		if m.Type != Windows {
			return l.performance(ctx, i, m, past, next, yield)
		}
		for _, svc := range services {
			if m.names.MatchString(svc.name) {
				yield(reading{name: svc.name, state: svc.state()})
			}
		}
		return len(services) > 0
	})
	if l.failure != nil {
		return answer{err: l.failure}
	}
	ans.evidence, ans.missing = g.who, l.missing
	return ans
}

// windowsLook is one look.
type windowsLook struct {
	*windowsGuest
	missing []error // classes that this Windows does not have
	failure error   // of the look: nothing is asked after it
}

// each calls f with each instance of a query, and reports whether there are such instances to be asked for.
func (l *windowsLook) each(ctx context.Context, wql string, f func(winrm.Instance)) bool {
	if l.failure != nil {
		return false
	}
	rows := 0
	err := l.client.Enumerate(ctx, winrm.Query{Namespace: cimv2, WQL: wql}, func(i winrm.Instance) error {
		if rows++; rows > maxRows {
			return fmt.Errorf("more than %d instances: %s", maxRows, wql)
		}
		f(i)
		return nil
	})
	switch {
	case errors.Is(err, winrm.ErrInvalidQuery):
		l.missing = append(l.missing, err)
	case winrm.IsTimeout(err):
		l.failure = context.DeadlineExceeded
	case err != nil:
		l.failure = err
	}
	return err == nil
}

// identify reads by what the guest can be known, now and then: its address may be another's one day.
func (l *windowsLook) identify(ctx context.Context) {
	if now := l.clock.Now(); l.asked.IsZero() || now.Sub(l.asked) >= inventory.SlowInterval {
		var who evidence
		l.each(ctx, "SELECT UUID FROM Win32_ComputerSystemProduct", func(i winrm.Instance) {
			if u, ok := parseUUID(i.Text("UUID")); ok && len(who.uuids) == 0 {
				who.uuids = append(who.uuids, u)
			}
		})
		l.each(ctx, "SELECT MACAddress FROM Win32_NetworkAdapterConfiguration WHERE IPEnabled = TRUE", func(i winrm.Instance) {
			if mac := parseMAC(i.Text("MACAddress")); mac != "" && len(who.macs) < maxMACs {
				who.macs = append(who.macs, mac)
			}
		})
		l.each(ctx, "SELECT DNSHostName FROM Win32_ComputerSystem", func(i winrm.Instance) {
			who.hostname = strings.ToLower(i.Text("DNSHostName"))
		})
		if l.failure != nil {
			return
		}
		l.who, l.asked = who, now
	}
	l.who.addr = l.client.Peer()
}

// windowsService is one of Win32_Service, whose words are the same in every language.
type windowsService struct{ name, is, mode string }

// state is what a service's state means. One that is stopped and starts by itself should run; one on its way is neither.
func (w windowsService) state() inventory.ServiceState {
	switch {
	case w.is == "Running":
		return inventory.ServiceRunning
	case w.is == "Stopped" && w.mode == "Auto":
		return inventory.ServiceFailed
	case w.is == "Stopped" || w.is == "Paused":
		return inventory.ServiceStopped
	}
	return ""
}

// services reads Windows' services, those alone that are asked for where they are named in full. A user who may not see any is told of
// none, without an error: none is known then.
func (l *windowsLook) services(ctx context.Context) (found []windowsService) {
	var patterns []string
	for _, m := range l.mappings {
		if m.Type == Windows {
			patterns = append(patterns, m.Names...)
		}
	}
	if len(patterns) > 0 {
		l.each(ctx, "SELECT Name, State, StartMode FROM Win32_Service"+whereName(patterns), func(i winrm.Instance) {
			found = append(found, windowsService{strings.Clone(i.Text("Name")), strings.Clone(i.Text("State")), strings.Clone(i.Text("StartMode"))})
		})
	}
	return found
}

// maxWhere is how many names a query names.
const maxWhere = 50

// whereName is the condition that picks names, empty if one of the patterns is more than a name.
func whereName(patterns []string) string {
	if len(patterns) > maxWhere {
		return ""
	}
	var conditions []string
	for _, p := range patterns {
		re, err := syntax.Parse(p, syntax.Perl)
		if err != nil || re.Op != syntax.OpLiteral {
			return ""
		}
		name := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(string(re.Rune))
		conditions = append(conditions, "Name = '"+name+"'")
	}
	return " WHERE " + strings.Join(conditions, " OR ")
}

// performance reads one property of a performance class: each instance is a service. It reports whether the class is there.
func (l *windowsLook) performance(ctx context.Context, i int, m *mapping, past *past, next map[pastKey]totals, yield func(reading)) bool {
	if m.Type != Performance {
		return false
	}
	wql := "SELECT Name, " + m.Property
	if m.Latency == "mean" {
		wql += ", " + m.Property + "_Base, Frequency_PerfTime"
	}
	return l.each(ctx, wql+" FROM "+m.Class, func(row winrm.Instance) {
		instance := row.Text("Name")
		if len(m.Names) > 0 && !m.names.MatchString(instance) {
			return
		}
		name := m.Name
		if instance != "" {
			name += "/" + instance
		}
		yield(m.counter(i, row, name, past, next))
	})
}

// counter reads one instance. A number that is not told is absent.
func (m *mapping) counter(i int, row winrm.Instance, name string, past *past, next map[pastKey]totals) reading {
	r := reading{name: strings.Clone(name)}
	v, told := row.Uint(m.Property)
	switch {
	case !told:
	case m.Running && v == 0:
		r.state = inventory.ServiceFailed
	case m.Running:
		r.state = inventory.ServiceRunning
	case m.Latency == "mean":
		base, counted := row.Uint(m.Property + "_Base")
		frequency, timed := row.Uint("Frequency_PerfTime")
		if counted && timed && frequency > 0 {
			return m.since(i, r.name, totals{sum: float64(v) / float64(frequency), count: float64(base)}, past, next)
		}
	default:
		r.latency, r.measured = float64(v)*m.Scale, true
	}
	return r
}
