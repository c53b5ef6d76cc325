package vsphere

import (
	"reflect"
	"strings"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/vim25/types"
)

// maxWords bounds what is taken over of a vCenter's messages.
const maxWords = 1000

// faultWords are a fault's messages and type: "A general system error occurred: vMotion failed (SystemError)".
func faultWords(f *types.LocalizedMethodFault) string {
	if f == nil {
		return "failed, and the vCenter does not say why"
	}
	var words []string
	add := func(s string) {
		if s = strings.TrimSpace(s); s != "" && len(strings.Join(words, ": "))+len(s) < maxWords {
			words = append(words, s)
		}
	}
	add(f.LocalizedMessage)
	name := ""
	if f.Fault != nil {
		name = typeName(f.Fault)
		if base := f.Fault.GetMethodFault(); base != nil {
			for _, m := range base.FaultMessage {
				add(m.Message)
			}
		}
	}
	text := strings.Join(words, ": ")
	switch {
	case text == "" && name == "":
		return "failed, and the vCenter does not say why"
	case text == "":
		return name
	case name == "":
		return text
	}
	return text + " (" + name + ")"
}

// typeOf is the type of the fault that err is, in brackets.
func typeOf(err error) string {
	var f types.BaseMethodFault
	if _, ok := fault.As(err, &f); !ok {
		return ""
	}
	return " (" + typeName(f) + ")"
}

func typeName(f types.BaseMethodFault) string {
	t := reflect.TypeOf(f)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Name()
}
