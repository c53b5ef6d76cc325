package hyperv

import (
	"encoding/binary"
	"unicode/utf16"

	"github.com/protip/protip/remediation"
)

// How a VM's role moves, as its two resources' private property has it (VmResdllContextMigrateType); 0 turns the VM off, 2 and 3
// shut it down.
const (
	moveQuick = 1
	moveLive  = 4
)

// Flags of MoveToNewNodeParams (CLUSAPI_GROUP_MOVE_).
const (
	moveReturnOnError = 2 // back to the source, running, if the move fails
	moveQueue         = 4 // wait for a slot rather than fail
)

// parameters is the clusapi property list that says how a role moves. Both of its resources are told, the VM and its configuration:
//
//	count 2
//	syntax 0x00040003 (name, string)  bytes  UTF-16 with its final zero, padded to four
//	syntax 0x00010002 (list, dword)   4      the way to move
//	syntax 0 (end of the property)
//	... and the same for the second
//
// All numbers are little-endian, of four bytes.
func parameters(kind remediation.Kind) []byte {
	way := uint32(moveLive)
	if kind == remediation.QuickMigration {
		way = moveQuick
	}
	resources := []string{"Virtual Machine", "Virtual Machine Configuration"}
	list := binary.LittleEndian.AppendUint32(nil, uint32(len(resources)))
	for _, name := range resources {
		units := utf16.Encode([]rune(name + "\x00"))
		list = words(list, 0x00040003, uint32(2*len(units)))
		for _, u := range units {
			list = binary.LittleEndian.AppendUint16(list, u)
		}
		for len(list)%4 != 0 {
			list = append(list, 0)
		}
		list = words(list, 0x00010002, 4, way, 0)
	}
	return list
}

func words(list []byte, words ...uint32) []byte {
	for _, w := range words {
		list = binary.LittleEndian.AppendUint32(list, w)
	}
	return list
}
