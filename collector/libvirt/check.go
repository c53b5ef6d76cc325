package libvirt

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/protip/protip/collector"
	platform "github.com/protip/protip/internal/platform/libvirt"
)

// CheckSource logs in at each host, looks at what it has, and logs out. The error names every host that cannot be watched and what to
// do about it; the report is of the others.
func CheckSource(ctx context.Context, hosts []platform.Options) (collector.Report, error) {
	seen := make([]*sight, len(hosts))
	errs := make([]error, len(hosts))
	each(hosts, func(i int) { seen[i], errs[i] = look(ctx, hosts[i]) })
	r := collector.Report{Clusters: 1}
	var products []string
	vms := map[platform.UUID]bool{}
	addresses := map[string]string{} // by host
	for i, s := range seen {
		if errs[i] != nil {
			continue
		}
		r.Hosts++
		if first, twice := addresses[s.ref]; twice {
			errs[i] = sameHost(hosts[i].URI, first, s.ref)
		}
		addresses[s.ref] = hosts[i].URI
		for _, dom := range s.domains {
			vms[dom.UUID] = true
		}
		if !strings.Contains(strings.Join(products, "\n"), s.product) {
			products = append(products, s.product)
		}
		r.Notes = append(r.Notes, s.notes...)
	}
	r.VMs, r.Product = len(vms), strings.Join(products, "; ")
	return r, errors.Join(errs...)
}

// CheckActing logs in at each host as the credential that may act, and out. What it may do, libvirt does not tell.
func CheckActing(ctx context.Context, username string, hosts []platform.Options) collector.Acting {
	errs := make([]error, len(hosts))
	each(hosts, func(i int) {
		conn, err := platform.Dial(ctx, hosts[i])
		if err != nil {
			errs[i] = explain(err)
			return
		}
		conn.Close()
	})
	a := collector.Acting{Username: username}
	if err := errors.Join(errs...); err != nil {
		a.Error = err.Error()
	}
	return a
}

// each calls f with every host's index, at once.
func each(hosts []platform.Options, f func(int)) {
	var wg sync.WaitGroup
	for i := range hosts {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

// sight is what a check sees of a host.
type sight struct {
	ref     string
	product string
	domains []platform.Domain
	notes   []string
}

func look(ctx context.Context, opts platform.Options) (*sight, error) {
	conn, err := platform.Dial(ctx, opts)
	if err != nil {
		return nil, explain(err)
	}
	defer conn.Close()
	host, err := identify(ctx, conn, "check")
	if err != nil {
		return nil, explain(err)
	}
	s := &sight{ref: host.ID.Ref, product: host.Version}
	if s.domains, err = conn.ListAllDomains(ctx); err != nil {
		return nil, explain(err)
	}
	var found answer
	if err := conn.AllDomainStats(ctx, &found); err != nil {
		return nil, explain(err)
	}
	quiet := 0
	for i := range found.domains {
		d := &found.domains[i]
		_, balloon := d.number(balloonAvailable)
		if d.state == platform.DomainRunning && !balloon {
			quiet++
		}
	}
	if quiet > 0 {
		s.notes = append(s.notes, fmt.Sprintf("%s: %d running VMs do not tell what memory they use: "+
			"virt_vm_memory_guest_usage_bytes needs the balloon's driver in the guest, and <stats period='10'/> in its <memballoon>", host.Name, quiet))
	}
	return s, nil
}

// sameHost says that two addresses lead to one host.
func sameHost(uri, other, ref string) error {
	return fmt.Errorf("libvirt %s is the same host as %s (UUID %s): remove one of them from the config; or, if they are two machines whose firmware has one "+
		"UUID, set host_uuid in the libvirtd.conf of one", uri, other, ref)
}

// explain puts before an error what it means and what to do.
func explain(err error) error {
	var (
		name    x509.HostnameError
		unknown x509.UnknownAuthorityError
		key     *knownhosts.KeyError
		dns     *net.DNSError
		dial    *net.OpError
	)
	switch {
	case platform.IsRefused(err):
		return fmt.Errorf("%w: the daemon refuses this user: it has to be in the group libvirt on the host, or allowed by polkit: %w", collector.ErrCredentials, err)
	case errors.As(err, &key) && len(key.Want) == 0:
		return fmt.Errorf("the host's SSH key is not known: compare it and add it to known_hosts_file, as ssh-keyscan writes it: %w", err)
	case errors.As(err, &key):
		return fmt.Errorf("the host's SSH key is another than known_hosts_file has: find out why before you change it: %w", err)
	case strings.Contains(err.Error(), "unable to authenticate"):
		return fmt.Errorf("%w: the host does not take the SSH key: add its public part to authorized_keys there: %w", collector.ErrCredentials, err)
	case errors.As(err, &name):
		return fmt.Errorf("the certificate is for another name: use that name in hosts, or set tls_config.server_name: %w", err)
	case errors.As(err, &unknown):
		return fmt.Errorf("the certificate is not signed by the CA in tls_config.ca_file: %w", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the user that protip runs as may not use the socket: put it into the group libvirt: %w", err)
	case errors.As(err, &dns):
		return fmt.Errorf("the host name cannot be resolved: %w", err)
	case errors.As(err, &dial), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("unreachable: is libvirtd (or virtproxyd) running there, and listening? %w", err)
	}
	return err
}
