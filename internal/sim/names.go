package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/vmware/govmomi/vim25/types"
)

// names gives the VMs of one vCenter names as people do: most by a scheme, some by hand.
type names struct {
	rnd   *rand.Rand
	place string
	count map[string]int
	odd   []string
	made  int
}

// oddNames are all allowed in vSphere. One stands there twice: names are not unique.
var oddNames = []string{
	`Müller's "Büro" server`,
	"print-server",
	"łódź-☃-испытание",
	"two\nlines",
	"print-server",
	`C:\temp{name="x"}`,
	"an-appliance-whose-name-somebody-filled-to-the-eighty-characters-vsphere-allows-1",
}

func newNames(rnd *rand.Rand, place string) *names {
	odd := make([]string, len(oddNames))
	copy(odd, oddNames)
	odd[len(odd)-1] = odd[len(odd)-1][:80]
	return &names{rnd: rnd, place: place, count: map[string]int{}, odd: odd}
}

// next is a VM with name, guest and address. Every fourth has an odd name, until there are no more.
func (n *names) next() VM {
	roles := []string{"web", "app", "db", "mail", "file", "proxy", "ldap", "build", "cache", "queue", "wiki", "erp"}
	role := roles[n.rnd.IntN(len(roles))]
	n.made++
	vm := VM{
		Name: n.numbered(role), GuestIP: fmt.Sprintf("10.20.%d.%d", n.made/250, n.made%250+1),
		GuestID: string(types.VirtualMachineGuestOsIdentifierUbuntu64Guest),
	}
	if role == "erp" || role == "file" || role == "mail" {
		vm.GuestID = string(types.VirtualMachineGuestOsIdentifierWindows2019srvNext_64Guest)
	}
	vm.GuestHostname = strings.ToLower(vm.Name) + "." + n.place + ".example.org"
	if n.made%4 == 0 && len(n.odd) > 0 {
		vm.Name, n.odd = n.odd[0], n.odd[1:]
	}
	return vm
}

// batch is a name of a VM whose work comes and goes.
func (n *names) batch() string { return n.numbered("batch") }

func (n *names) numbered(role string) string {
	n.count[role]++
	return fmt.Sprintf("%s-%s-%02d", n.place, role, n.count[role])
}
