package rules

import "github.com/protip/protip/internal/inventory"

// datastoreFacts are what packs can read of a datastore besides its samples.
func datastoreFacts() []field {
	const datastore = inventory.KindDatastore
	txt := func(name, help string, at func(*subject) *string) field {
		return field{
			object: datastore, name: name, typ: text, help: help,
			get: func(s *subject) any { return clip(*at(s)) }, set: func(s *subject, v any) { *at(s) = v.(string) },
		}
	}
	is := func(name, help string, at func(*subject) *bool) field {
		return field{
			object: datastore, name: name, typ: truth, help: help,
			get: func(s *subject) any { return *at(s) }, set: func(s *subject, v any) { *at(s) = v.(bool) },
		}
	}
	return []field{
		txt("name", "its name", func(s *subject) *string { return &s.datastore.Name }),
		txt("type", "as the platform calls it: VMFS, NFS, vsan, ...", func(s *subject) *string { return &s.datastore.Type }),
		is("accessible", "any host reaches it", func(s *subject) *bool { return &s.datastore.Accessible }),
		is("maintenance", "it is in maintenance mode, or entering it", func(s *subject) *bool { return &s.datastore.Maintenance }),
		{
			object: datastore, name: "capacity_bytes", typ: number, help: "its size",
			get: func(s *subject) any { return s.datastore.CapacityBytes },
			set: func(s *subject, v any) { s.datastore.CapacityBytes = v.(float64) },
		},
	}
}

func (e *evaluator) datastores(source string) {
	t := e.snapshot.DatastoreTable(source)
	e.grow(len(t.Facts))
	for i, d := range t.Facts {
		if d != nil {
			e.judge(d.ID, d.Name, &subject{datastore: d, datastoreSamples: t.Samples[i]})
		}
	}
}
