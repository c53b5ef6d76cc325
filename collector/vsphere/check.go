package vsphere

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/protip/protip/collector"
	platform "github.com/protip/protip/internal/platform/vsphere"
)

// Report is what a check of a source found.
type Report struct {
	Product      string        `json:"product"`
	APIVersion   string        `json:"api_version"`
	InstanceUUID string        `json:"instance_uuid"`
	Clusters     int           `json:"clusters"`
	Hosts        int           `json:"hosts"`
	VMs          int           `json:"vms"`
	ClockSkew    time.Duration `json:"clock_skew"` // protip's clock less the vCenter's
	// Lacks are the privileges for watching that the user does not have on the root folder and every cluster.
	Lacks []platform.Privilege `json:"lacks"`
	// Acting is what was found of the second credential, nil if the source has none.
	Acting *Acting `json:"acting,omitempty"`
}

// Acting is what a check found of the credential that may act. Nothing was done with it but logging in and out.
type Acting struct {
	Username string               `json:"username"`
	Lacks    []platform.Privilege `json:"lacks"` // for live migration
	Error    string               `json:"error,omitempty"`
}

// CheckSource logs in at the source's vCenter, looks at what the user can see, and logs out. Its errors say what to do.
func CheckSource(ctx context.Context, opts platform.Options) (Report, error) {
	session, err := platform.New(opts)
	if err != nil {
		return Report{}, err
	}
	defer session.Close()
	c, err := session.Login(ctx)
	if err != nil {
		return Report{}, explain(err)
	}
	about := c.ServiceContent.About
	r := Report{Product: about.FullName, APIVersion: c.APIVersion(), InstanceUUID: c.InstanceUUID()}
	if r.ClockSkew, err = c.Skew(ctx, time.Now); err != nil {
		return r, explain(err)
	}
	view, err := createView(ctx, c)
	if err != nil {
		return r, explain(err)
	}
	props, err := c.Properties(ctx, view, "view")
	if err != nil {
		return r, explain(err)
	}
	refs, _ := platform.Get[types.ArrayOfManagedObjectReference](props, "view")
	on := []types.ManagedObjectReference{c.ServiceContent.RootFolder}
	for _, ref := range refs.ManagedObjectReference {
		switch ref.Type {
		case typeCluster:
			r.Clusters++
			on = append(on, ref)
		case typeHost:
			r.Hosts++
		case typeVM:
			r.VMs++
		}
	}
	if r.Hosts == 0 {
		return r, errors.New("logged in, but the user sees no host: give it a read-only role on the vCenter, propagating to children")
	}
	if r.Lacks, err = c.LacksToWatch(ctx, on); err != nil {
		return r, explain(err)
	}
	return r, nil
}

// CheckActing logs in with the credential that may act, asks what it may do, and logs out.
func CheckActing(ctx context.Context, opts platform.Options) Acting {
	a := Acting{Username: opts.Who()}
	lacks, err := lacksToAct(ctx, opts)
	if a.Lacks = lacks; err != nil {
		a.Error = explain(err).Error()
	}
	return a
}

func lacksToAct(ctx context.Context, opts platform.Options) ([]platform.Privilege, error) {
	session, err := platform.New(opts)
	if err != nil {
		return nil, err
	}
	defer session.Close()
	c, err := session.Login(ctx)
	if err != nil {
		return nil, err
	}
	return c.LacksToAct(ctx, []types.ManagedObjectReference{c.ServiceContent.RootFolder})
}

// explain puts before an error what it means and what to do.
func explain(err error) error {
	var (
		name    x509.HostnameError
		unknown x509.UnknownAuthorityError
		expired x509.CertificateInvalidError
		dns     *net.DNSError
		dial    *net.OpError
	)
	switch {
	case errors.Is(err, platform.ErrInvalidLogin):
		return fmt.Errorf("%w: check username and password, or the extension's certificate: %w", collector.ErrCredentials, err)
	case errors.As(err, &name):
		return fmt.Errorf("the certificate is for another name: use that name in url, or set tls_config.server_name: %w", err)
	case errors.As(err, &unknown):
		return fmt.Errorf("the certificate is not signed by a known authority: set tls_config.ca_file: %w", err)
	case errors.As(err, &expired):
		return fmt.Errorf("the certificate is not valid: %w", err)
	case errors.As(err, &dns):
		return fmt.Errorf("the host name cannot be resolved: %w", err)
	case errors.As(err, &dial), platform.IsTimeout(err):
		return fmt.Errorf("unreachable: %w", err)
	}
	return err
}
