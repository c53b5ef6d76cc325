package sim

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/vmware/govmomi/simulator"
	vapi "github.com/vmware/govmomi/vapi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// What people write down of VMs: custom attributes, here, and tags, which are the stock REST endpoint's.

// SetAttribute gives a VM a custom attribute, which is made if it does not exist; "" takes it away.
func (vc *VCenter) SetAttribute(vm types.ManagedObjectReference, name, value string) error {
	obj, ok := vc.reg.Get(vm).(*simulator.VirtualMachine)
	if !ok {
		return fmt.Errorf("attribute of VM %s: %w", vm.Value, errNoSuch)
	}
	ctx := vc.own()
	fields := vc.reg.Get(*vc.content().CustomFieldsManager).(*simulator.CustomFieldsManager)
	var key int32
	ctx.WithLock(fields, func() {
		i := slices.IndexFunc(fields.Field, func(f types.CustomFieldDef) bool { return f.Name == name })
		if i < 0 {
			i = len(fields.Field)
			def := types.CustomFieldDef{Key: int32(i + 101), Name: name, Type: "string", ManagedObjectType: "VirtualMachine"}
			ctx.Update(fields, []types.PropertyChange{{Name: "field", Val: append(slices.Clone(fields.Field), def)}})
		}
		key = fields.Field[i].Key
	})
	ctx.WithLock(obj, func() {
		values := slices.DeleteFunc(slices.Clone(obj.CustomValue), func(v types.BaseCustomFieldValue) bool { return v.GetCustomFieldValue().Key == key })
		if value != "" {
			values = append(values, &types.CustomFieldStringValue{CustomFieldValue: types.CustomFieldValue{Key: key}, Value: value})
		}
		ctx.Update(obj, []types.PropertyChange{{Name: "customValue", Val: values}})
	})
	return nil
}

// serveREST serves tags. Calls count as those of a method named REST, and meet its faults as 503.
func (vc *VCenter) serveREST() {
	patterns, stock := vapi.New(vc.service.Listen, vc.reg)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		vc.counts.call("REST")
		if fault := vc.faults.meet("REST", vc.stopped()); fault != nil {
			http.Error(w, describe(fault), http.StatusServiceUnavailable)
			return
		}
		stock.ServeHTTP(w, r)
	})
	for _, p := range patterns {
		vc.service.ServeMux.Handle(p, handler)
	}
}
