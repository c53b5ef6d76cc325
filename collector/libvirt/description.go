package libvirt

import (
	"encoding/xml"
	"fmt"
	"path"
	"slices"
	"strings"
)

// facts are what a domain's description says of it.
type facts struct {
	vcpus   int
	memory  float64  // bytes
	macs    []string // lower case
	nets    []string // refs of the networks that its interfaces are attached to, in order
	os      string   // as its owner noted it for libosinfo, such as debian 12
	agent   bool     // there is an agent that answers
	notLive string   // why it cannot be moved live

	sizes *[2]uint64 // what the bulk answer said of it at that time; nil while none did
}

// description is what is read of a domain's XML. Libvirt writes memory in KiB whatever it was told.
type description struct {
	XMLName xml.Name `xml:"domain"`
	Memory  kib      `xml:"memory"`
	VCPU    struct {
		Current int `xml:"current,attr"`
		Max     int `xml:",chardata"`
	} `xml:"vcpu"`
	OS struct {
		ID string `xml:"id,attr"`
	} `xml:"metadata>libosinfo>os"`
	Interfaces []struct {
		Type string `xml:"type,attr"`
		MAC  struct {
			Address string `xml:"address,attr"`
		} `xml:"mac"`
		Source struct {
			Network string `xml:"network,attr"`
			Bridge  string `xml:"bridge,attr"`
			Device  string `xml:"dev,attr"`
		} `xml:"source"`
	} `xml:"devices>interface"`
	Channels []struct {
		Target struct {
			Name  string `xml:"name,attr"`
			State string `xml:"state,attr"`
		} `xml:"target"`
	} `xml:"devices>channel"`
	HostDevices []struct {
		Type string `xml:"type,attr"`
	} `xml:"devices>hostdev"`
}

type kib struct {
	Unit  string `xml:"unit,attr"`
	Value uint64 `xml:",chardata"`
}

// parseDescription reads a domain's XML.
func parseDescription(text string) (*facts, error) {
	var d description
	if err := xml.Unmarshal([]byte(text), &d); err != nil {
		return nil, fmt.Errorf("description of a domain: %w", err)
	}
	f := &facts{vcpus: max(d.VCPU.Max, 0)}
	if n := d.VCPU.Current; n > 0 {
		f.vcpus = n
	}
	if d.Memory.Unit == "" || d.Memory.Unit == "KiB" {
		f.memory = float64(d.Memory.Value) * 1024
	}
	for _, i := range d.Interfaces {
		if i.MAC.Address != "" {
			f.macs = append(f.macs, strings.ToLower(i.MAC.Address))
		}
		kind, name := "", ""
		switch i.Type {
		case "network":
			kind, name = virtualNetwork, i.Source.Network
		case "bridge":
			kind, name = hostInterface, i.Source.Bridge
		case "direct":
			kind, name = hostInterface, i.Source.Device
		}
		if name != "" {
			f.nets = append(f.nets, kind+name)
		}
	}
	slices.Sort(f.nets)
	f.nets = slices.Compact(f.nets)
	for _, c := range d.Channels {
		f.agent = f.agent || c.Target.Name == "org.qemu.guest_agent.0" && c.Target.State == "connected"
	}
	if len(d.HostDevices) > 0 {
		f.notLive = fmt.Sprintf("a device of the host (%s) is passed through to it", d.HostDevices[0].Type)
	}
	f.os = osName(d.OS.ID)
	return f, nil
}

// osName makes words of libosinfo's id: debian 12 of http://debian.org/debian/12.
func osName(id string) string {
	if id == "" {
		return ""
	}
	return path.Base(path.Dir(id)) + " " + path.Base(id)
}

// capabilities is what is read of a host's own description.
type capabilities struct {
	XMLName xml.Name `xml:"capabilities"`
	UUID    string   `xml:"host>uuid"`
	CPU     struct {
		Model    string `xml:"model"`
		Vendor   string `xml:"vendor"`
		Counters []struct {
			Name      string  `xml:"name,attr"`
			Frequency float64 `xml:"frequency,attr"`
		} `xml:"counter"`
	} `xml:"host>cpu"`
}

func parseCapabilities(text string) (capabilities, error) {
	var c capabilities
	err := xml.Unmarshal([]byte(text), &c)
	if err != nil {
		err = fmt.Errorf("capabilities of a host: %w", err)
	}
	return c, err
}
