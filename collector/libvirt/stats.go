package libvirt

import (
	"bytes"
	"strconv"

	platform "github.com/protip/protip/internal/platform/libvirt"
)

// stats is what one answer says of one domain. What it does not say is not there: numbers are guarded by has.
type stats struct {
	dom    platform.Domain
	state  platform.DomainState
	reason int32

	has     uint32
	numbers [numberCount]uint64
	delayed int // vCPUs that told their delay
	devices []device
}

// number is one of a domain's numbers, in libvirt's units.
type number int

const (
	stateNumber number = iota
	reasonNumber
	cpuTime     // ns
	vcpuDelay   // ns, all vCPUs
	vcpuCurrent // how many
	balloonCurrent
	balloonMaximum // KiB, as all of the balloon
	balloonRSS
	balloonAvailable
	balloonUsable
	balloonUnused
	numberCount
)

var numberNames = map[string]number{
	"state.state": stateNumber, "state.reason": reasonNumber, "cpu.time": cpuTime, "vcpu.current": vcpuCurrent,
	"balloon.current": balloonCurrent, "balloon.maximum": balloonMaximum, "balloon.rss": balloonRSS,
	"balloon.available": balloonAvailable, "balloon.usable": balloonUsable, "balloon.unused": balloonUnused,
}

func (s *stats) number(n number) (uint64, bool) { return s.numbers[n], s.has&(1<<n) != 0 }

func (s *stats) set(n number, v uint64) {
	s.numbers[n] = v
	s.has |= 1 << n
}

// device is one disk or network interface.
type device struct {
	key      deviceKey
	has      uint32
	counters [counterCount]uint64
}

// deviceKey tells devices of a VM apart.
type deviceKey struct {
	disk bool
	name string
}

// counter is what a device counts since its VM was started on its host.
type counter int

const (
	diskReadBytes counter = iota
	diskWriteBytes
	diskReads
	diskWrites
	diskReadTime // ns
	diskWriteTime
	netReceiveBytes
	netTransmitBytes
	netReceivePackets
	netTransmitPackets
	netReceiveDropped
	netTransmitDropped
	counterCount
)

var diskCounters = map[string]counter{
	"rd.bytes": diskReadBytes, "wr.bytes": diskWriteBytes, "rd.reqs": diskReads, "wr.reqs": diskWrites,
	"rd.times": diskReadTime, "wr.times": diskWriteTime,
}

var netCounters = map[string]counter{
	"rx.bytes": netReceiveBytes, "tx.bytes": netTransmitBytes, "rx.pkts": netReceivePackets, "tx.pkts": netTransmitPackets,
	"rx.drop": netReceiveDropped, "tx.drop": netTransmitDropped,
}

// answer collects what ConnectGetAllDomainStats says.
type answer struct {
	domains []stats
	index   int // of the device that the last parameter was of
	disk    bool
}

var _ platform.Stats = (*answer)(nil)

// Domain implements platform.Stats.
func (a *answer) Domain(dom platform.Domain) {
	a.domains = append(a.domains, stats{dom: dom})
	a.index = -1
}

// Param implements platform.Stats.
func (a *answer) Param(name []byte, v platform.Value) {
	s := &a.domains[len(a.domains)-1]
	if n, ok := numberNames[string(name)]; ok {
		if value, ok := v.Uint(); ok {
			s.set(n, value)
			switch n {
			case stateNumber:
				s.state = platform.DomainState(value)
			case reasonNumber:
				s.reason = int32(value)
			}
		}
		return
	}
	group, rest, _ := bytes.Cut(name, []byte("."))
	index, field, ok := bytes.Cut(rest, []byte("."))
	if !ok {
		return
	}
	i, err := strconv.Atoi(string(index))
	if err != nil {
		return
	}
	switch string(group) {
	case "vcpu":
		if value, ok := v.Uint(); ok && string(field) == "delay" {
			s.set(vcpuDelay, s.numbers[vcpuDelay]+value)
			s.delayed++
		}
	case "block":
		a.device(s, true, i, field, v)
	case "net":
		a.device(s, false, i, field, v)
	}
}

// device takes one parameter of a device. Libvirt tells a device's parameters together, its name first; what comes in another order is
// left out.
func (a *answer) device(s *stats, disk bool, i int, field []byte, v platform.Value) {
	if string(field) == "name" {
		if name, ok := v.Text(); ok {
			s.devices = append(s.devices, device{key: deviceKey{disk, name}})
			a.index, a.disk = i, disk
		}
		return
	}
	if i != a.index || disk != a.disk || len(s.devices) == 0 {
		return
	}
	names := netCounters
	if disk {
		names = diskCounters
	}
	value, number := v.Uint()
	if c, ok := names[string(field)]; ok && number {
		d := &s.devices[len(s.devices)-1]
		d.counters[c] = value
		d.has |= 1 << c
	}
}
