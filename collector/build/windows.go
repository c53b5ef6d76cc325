package build

import (
	"context"
	"fmt"

	"github.com/protip/protip/collector"
	"github.com/protip/protip/internal/config"
	"github.com/protip/protip/internal/inventory"
	vsphere "github.com/protip/protip/internal/platform/vsphere"
	"github.com/protip/protip/internal/platform/winrm"
)

// WindowsHosts is how to log in at each host of a source with one of its credentials: the source's own, which watches, or
// the one that may act. The hosts share what became of the credential's passwords, so that a wrong one is tried at one of
// them.
func WindowsHosts(src config.Source, as config.Credential) ([]winrm.Options, error) {
	return windowsHosts(src, as, src.Hosts)
}

func windowsHosts(src config.Source, as config.Credential, hosts []string) ([]winrm.Options, error) {
	logins := &winrm.Logins{}
	var out []winrm.Options
	for _, host := range hosts {
		u, err := config.HostURL(host)
		if err != nil {
			return nil, fmt.Errorf("source %q: a host %w", src.Name, err)
		}
		o := winrm.Options{
			URL: u.String(), Auth: winrm.Auth(as.Auth), Username: as.User(), TLS: src.TLS, AllowPlainBasic: src.PlainBasic, Logins: logins,
			Kerberos: winrm.KerberosOptions{Realm: as.Realm, ConfFile: src.Krb5Conf, KeytabFile: as.KeytabFile, CacheFile: as.CacheFile},
		}
		switch {
		case as.PasswordEnv != "":
			o.Password = vsphere.PasswordEnv(as.PasswordEnv)
		case as.PasswordFile != "":
			o.Password = vsphere.PasswordFile(as.PasswordFile)
		}
		out = append(out, o)
	}
	return out, nil
}

// checkWindows lists a source of Windows hosts once, and tells which hosts did not answer.
func checkWindows(ctx context.Context, cfg *config.Config, src config.Source) (collector.Report, error) {
	alone := *cfg
	alone.Sources = []config.Source{src}
	fleet, _, err := list(ctx, &alone)
	if err != nil {
		return collector.Report{}, err
	}
	snap := fleet.Snapshot()
	if is, _ := snap.Source(src.Name); !is.Synced {
		return collector.Report{}, fmt.Errorf("source %q: %s", src.Name, reason(is))
	}
	r := collector.Report{Product: map[string]string{config.HyperV: "Hyper-V", config.VirtualServer: "Virtual Server 2005"}[src.Type]}
	for range snap.Clusters() {
		r.Clusters++
	}
	for h := range snap.Hosts() {
		r.Hosts++
		if h.Connection != inventory.Connected {
			r.Notes = append(r.Notes, fmt.Sprintf("host %s does not answer, or is not in hosts", h.Name))
		}
	}
	for range snap.VMs() {
		r.VMs++
	}
	if silent := len(src.Hosts) - r.Hosts; silent > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%d of the hosts did not tell who they are", silent))
	}
	if src.Acting != nil {
		r.Acting = checkActingWindows(ctx, src)
	}
	return r, nil
}

// checkActingWindows logs in at each host with the credential that may act, until one accepts it. It asks for nothing but the host's name.
func checkActingWindows(ctx context.Context, src config.Source) *collector.Acting {
	found := &collector.Acting{Username: src.Acting.User()}
	hosts, err := WindowsHosts(src, *src.Acting)
	for _, h := range hosts {
		var client *winrm.Client
		if client, err = winrm.New(h); err != nil {
			break
		}
		_, err = client.All(ctx, winrm.Query{Namespace: "root/cimv2", WQL: "SELECT Name FROM Win32_ComputerSystem"})
		client.Close()
		if err == nil {
			return found
		}
	}
	if err != nil {
		found.Error = err.Error()
	}
	return found
}
