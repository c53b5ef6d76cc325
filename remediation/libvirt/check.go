package libvirt

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"

	golibvirt "github.com/digitalocean/go-libvirt"

	platform "github.com/protip/protip/internal/platform/libvirt"
	"github.com/protip/protip/remediation"
)

// Check asks the hosts whether the VM runs on a.From, could run on a.To and has room there.
func (e *Executor) Check(ctx context.Context, a remediation.Action) error {
	vm, err := e.mine(a)
	if err != nil {
		return fmt.Errorf("vm %s: %w", a.VMName, err)
	}
	source, dom, err := e.checkVM(ctx, a, vm)
	if err != nil {
		return fmt.Errorf("vm %s: %w", a.VMName, err)
	}
	target, err := e.host(ctx, a.To.Ref)
	if err == nil {
		_, err = e.targetURI(ctx, target)
	}
	if err == nil {
		err = checkName(ctx, target, dom)
	}
	if err == nil {
		err = checkRoom(ctx, source, target, dom)
	}
	if err != nil {
		return fmt.Errorf("host %s: %w", a.ToName, err)
	}
	if err := checkCPU(ctx, source, target, dom); err != nil {
		return fmt.Errorf("vm %s cannot move to %s: %w", a.VMName, a.ToName, err)
	}
	return nil
}

// checkVM refuses a VM that is not on its source, does not run, or is busy.
func (e *Executor) checkVM(ctx context.Context, a remediation.Action, vm platform.UUID) (*host, golibvirt.Domain, error) {
	var none golibvirt.Domain
	v, err := e.look(ctx, a, vm)
	switch {
	case err != nil:
		return nil, none, err
	case v.on.IsZero():
		return nil, none, fmt.Errorf("%w on any host of source %s", errNoVM, e.opts.Source)
	case v.moving:
		return nil, none, fmt.Errorf("another migration of it is under way: %s", taskRef(a))
	case v.on == a.To && (v.runs || a.To == a.From):
		return nil, none, fmt.Errorf("on %s: %w", a.ToName, remediation.ErrNoOp)
	case v.on != a.From:
		return nil, none, fmt.Errorf("is on %s and not on %s any more", v.on.Ref, a.FromName)
	}
	source, err := e.host(ctx, a.From.Ref)
	if err != nil {
		return nil, none, err
	}
	state, dom, err := source.state(ctx, vm)
	switch {
	case err != nil:
		return nil, none, err
	case state != golibvirt.DomainRunning && state != golibvirt.DomainBlocked:
		return nil, none, fmt.Errorf("is not powered on but %s", stateWord(state))
	}
	return source, dom, nil
}

func stateWord(s golibvirt.DomainState) string {
	switch s {
	case golibvirt.DomainPaused:
		return "paused"
	case golibvirt.DomainShutdown:
		return "shutting down"
	case golibvirt.DomainShutoff:
		return "shut off"
	case golibvirt.DomainCrashed:
		return "crashed"
	case golibvirt.DomainPmsuspended:
		return "suspended"
	}
	return fmt.Sprintf("in state %d", s)
}

// checkName refuses a target that has another VM of that name: libvirt would, after it had begun.
func checkName(ctx context.Context, target *host, dom golibvirt.Domain) error {
	var other golibvirt.Domain
	err := target.ask(ctx, "DomainLookupByName", func(l *golibvirt.Libvirt) (err error) {
		other, err = l.DomainLookupByName(dom.Name)
		return err
	})
	switch {
	case platform.IsGone(err):
		return nil
	case err != nil:
		return err
	case other.UUID != dom.UUID:
		return fmt.Errorf("has another VM of the name %q, with the UUID %s: rename or remove one of them", dom.Name, platform.UUID(other.UUID))
	}
	return nil
}

// checkRoom refuses a VM whose memory is more than what the target has left. What the hosts do not tell refuses nothing.
func checkRoom(ctx context.Context, source, target *host, dom golibvirt.Domain) error {
	var need uint64
	err := source.ask(ctx, "DomainGetInfo", func(l *golibvirt.Libvirt) (err error) {
		_, _, need, _, _, err = l.DomainGetInfo(dom)
		return err
	})
	if err != nil {
		return err
	}
	free := uint64(0)
	err = target.ask(ctx, "NodeGetMemoryStats", func(l *golibvirt.Libvirt) error {
		const allCells = -1
		_, n, err := l.NodeGetMemoryStats(0, allCells, 0)
		if err != nil {
			return err
		}
		stats, _, err := l.NodeGetMemoryStats(min(n, 16), allCells, 0)
		for _, s := range stats {
			if s.Field == "free" || s.Field == "buffers" || s.Field == "cached" {
				free += s.Value
			}
		}
		return err
	})
	if platform.CodeOf(err) == platform.NoSupport {
		return nil
	}
	if err == nil && need > free {
		return fmt.Errorf("has no room: %d MiB of memory are free, and the VM takes %d", free>>10, need>>10)
	}
	return err
}

// checkCPU refuses a target whose CPU lacks what the VM was started with. A VM that sees its host's own CPU needs one that can do all
// that the source's can.
func checkCPU(ctx context.Context, source, target *host, dom golibvirt.Domain) error {
	var d domainXML
	err := source.ask(ctx, "DomainGetXMLDesc", func(l *golibvirt.Libvirt) error {
		text, err := l.DomainGetXMLDesc(dom, golibvirt.DomainXMLMigratable)
		if err != nil {
			return err
		}
		return xml.Unmarshal([]byte(text), &d)
	})
	if err != nil {
		return err
	}
	var result int32
	switch {
	case d.CPU == nil:
		return nil // it has the emulator's own, which is the same everywhere
	case d.CPU.Mode == "host-passthrough":
		var own string
		if own, err = hostCPU(ctx, source); err != nil {
			return err
		}
		err = target.ask(ctx, "ConnectCompareCPU", func(l *golibvirt.Libvirt) (err error) {
			result, err = l.ConnectCompareCPU(own, 0)
			return err
		})
	default:
		emulator := golibvirt.OptString{}
		cpu := d.CPU.String()
		err = target.ask(ctx, "ConnectCompareHypervisorCPU", func(l *golibvirt.Libvirt) (err error) {
			result, err = l.ConnectCompareHypervisorCPU(emulator, golibvirt.OptString{d.OS.Arch}, golibvirt.OptString{d.OS.Machine},
				golibvirt.OptString{d.Type}, cpu, 0)
			return err
		})
	}
	switch {
	case platform.CodeOf(err) == platform.NoSupport || platform.CodeOf(err) == platform.ArgUnsupported || errors.Is(err, golibvirt.ErrUnsupported):
		return nil // nobody can say before the migration itself does
	case err != nil:
		return err
	case golibvirt.CPUCompareResult(result) == golibvirt.CPUCompareIncompatible:
		return errors.New("its CPU lacks what the VM was started with")
	}
	return nil
}

// domainXML is what a domain's description tells of its processor.
type domainXML struct {
	Type string `xml:"type,attr"`
	OS   struct {
		Arch    string `xml:"arch,attr"`
		Machine string `xml:"machine,attr"`
	} `xml:"os>type"`
	CPU *cpuXML `xml:"cpu"`
}

// cpuXML is a description of a processor, as it is.
type cpuXML struct {
	Mode  string `xml:"mode,attr"`
	Match string `xml:"match,attr"`
	Inner string `xml:",innerxml"`
}

// String is the description without what the VM's own guard needs (check=).
func (c *cpuXML) String() string {
	return fmt.Sprintf(`<cpu mode="%s" match="%s">%s</cpu>`, attr(c.Mode, "custom"), attr(c.Match, "exact"), c.Inner)
}

// attr is one of libvirt's own words, or else.
func attr(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	for _, r := range s {
		if (r < 'a' || r > 'z') && r != '-' {
			return otherwise
		}
	}
	return s
}

// hostCPU is the description of a host's own processor.
func hostCPU(ctx context.Context, h *host) (string, error) {
	var caps struct {
		CPU struct {
			Inner string `xml:",innerxml"`
		} `xml:"host>cpu"`
	}
	err := h.ask(ctx, "ConnectGetCapabilities", func(l *golibvirt.Libvirt) error {
		text, err := l.ConnectGetCapabilities()
		if err != nil {
			return err
		}
		return xml.Unmarshal([]byte(text), &caps)
	})
	return "<cpu>" + caps.CPU.Inner + "</cpu>", err
}
