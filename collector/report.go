package collector

import "time"

// Report is what a check of a source found: it logged in, looked, and changed nothing.
type Report struct {
	Product    string `json:"product"`
	APIVersion string `json:"api_version,omitempty"`
	// InstanceUUID is the platform's own identity, by which it is recognised behind another address.
	InstanceUUID string        `json:"instance_uuid,omitempty"`
	Clusters     int           `json:"clusters"`
	Hosts        int           `json:"hosts"`
	VMs          int           `json:"vms"`
	ClockSkew    time.Duration `json:"clock_skew"` // protip's clock less the platform's
	// Lacks are the privileges for watching that the user does not have everywhere.
	Lacks []Privilege `json:"lacks"`
	// Notes are further findings, a line each: what cannot be read, and what that costs.
	Notes []string `json:"notes,omitempty"`
	// Acting is what was found of the second credential, nil if the source has none.
	Acting *Acting `json:"acting,omitempty"`
}

// Acting is what a check found of the credential that may act. Nothing was done with it but logging in and out.
type Acting struct {
	Username string      `json:"username"`
	Lacks    []Privilege `json:"lacks"` // for live migration
	Error    string      `json:"error,omitempty"`
}

// Privilege is a right on a platform, by the platform's own id and as its own console shows it.
type Privilege struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}
