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

// CheckSource logs in at the source's vCenter, looks at what the user can see, and logs out. Its errors say what to do.
func CheckSource(ctx context.Context, opts platform.Options) (collector.Report, error) {
	session, err := platform.New(opts)
	if err != nil {
		return collector.Report{}, err
	}
	defer session.Close()
	c, err := session.Login(ctx)
	if err != nil {
		return collector.Report{}, explain(err)
	}
	about := c.ServiceContent.About
	r := collector.Report{Product: about.FullName, APIVersion: c.APIVersion(), InstanceUUID: c.InstanceUUID()}
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
	lacks, err := c.LacksToWatch(ctx, on)
	if err != nil {
		return r, explain(err)
	}
	r.Lacks = privileges(lacks)
	return r, nil
}

// CheckActing logs in with the credential that may act, asks what it may do, and logs out.
func CheckActing(ctx context.Context, opts platform.Options) collector.Acting {
	a := collector.Acting{Username: opts.Who()}
	lacks, err := lacksToAct(ctx, opts)
	if a.Lacks = privileges(lacks); err != nil {
		a.Error = explain(err).Error()
	}
	return a
}

func privileges(in []platform.Privilege) []collector.Privilege {
	out := make([]collector.Privilege, len(in))
	for i, p := range in {
		out[i] = collector.Privilege(p)
	}
	return out
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
