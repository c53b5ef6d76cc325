package vsphere

import (
	"context"
	"fmt"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// page is how many objects one answer of Retrieve holds at most.
const page = 500

// Properties are an object's values by their path. What the vCenter left out or may not show is not in it.
type Properties map[string]any

// Get is the object's value of a path, false if it has none or one of another type.
func Get[T any](p Properties, path string) (T, bool) {
	v, ok := p[path].(T)
	return v, ok
}

// Properties reads some of one object's properties.
func (c *Conn) Properties(ctx context.Context, ref types.ManagedObjectReference, paths ...string) (Properties, error) {
	var out Properties
	err := c.Retrieve(ctx, types.PropertyFilterSpec{
		PropSet:   []types.PropertySpec{{Type: ref.Type, PathSet: paths}},
		ObjectSet: []types.ObjectSpec{{Obj: ref}},
	}, func(_ types.ManagedObjectReference, p Properties) { out = p })
	if err == nil && out == nil {
		err = fmt.Errorf("vcenter %s: no answer for %s", c.URL().Host, ref.Value)
	}
	return out, err
}

// Retrieve reads properties of many objects, page by page. The values belong to each.
func (c *Conn) Retrieve(ctx context.Context, spec types.PropertyFilterSpec, each func(types.ManagedObjectReference, Properties)) error {
	pc := c.ServiceContent.PropertyCollector
	res, err := methods.RetrievePropertiesEx(ctx, c, &types.RetrievePropertiesEx{
		This: pc, SpecSet: []types.PropertyFilterSpec{spec}, Options: types.RetrieveOptions{MaxObjects: page},
	})
	if err != nil {
		return err
	}
	for result := res.Returnval; result != nil; {
		for i := range result.Objects {
			o := &result.Objects[i]
			if err := CheckMissing(o.MissingSet); err != nil {
				return fmt.Errorf("vcenter %s: read %s: %w", c.URL().Host, o.Obj.Value, err)
			}
			p := make(Properties, len(o.PropSet))
			for _, prop := range o.PropSet {
				if prop.Val != nil {
					p[prop.Name] = prop.Val
				}
			}
			each(o.Obj, p)
		}
		if result.Token == "" {
			return nil
		}
		next, err := methods.ContinueRetrievePropertiesEx(ctx, c, &types.ContinueRetrievePropertiesEx{This: pc, Token: result.Token})
		if err != nil {
			return err
		}
		result = &next.Returnval
	}
	return nil
}

// CheckMissing is the error in a list of properties that could not be read: a vCenter that does not know the session fills it
// and returns no other error. A property that the user may not see is no error; it is absent.
func CheckMissing(missing []types.MissingProperty) error {
	for i := range missing {
		if fault.Is(missing[i].Fault.Fault, &types.NotAuthenticated{}) {
			return &missingError{missing[i].Fault.Fault}
		}
	}
	return nil
}

// missingError is a fault that came in a list of missing properties.
type missingError struct{ fault types.BaseMethodFault }

func (e *missingError) Error() string                { return "not authenticated" }
func (e *missingError) Fault() types.BaseMethodFault { return e.fault }
