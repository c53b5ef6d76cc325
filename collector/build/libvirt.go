package build

import (
	"context"
	"net/url"
	"strings"

	"github.com/protip/protip/collector"
	"github.com/protip/protip/collector/libvirt"
	"github.com/protip/protip/internal/config"
	platform "github.com/protip/protip/internal/platform/libvirt"
)

// LibvirtHosts is how to log in at a source's libvirt hosts with one of its credentials: the source's own, which watches, or the one
// that may act.
func LibvirtHosts(src config.Source, as config.Credential) []platform.Options {
	out := make([]platform.Options, 0, len(src.Hosts))
	for _, uri := range src.Hosts {
		if u, err := url.Parse(uri); err == nil && as.Username != "" && strings.HasSuffix(u.Scheme, "+ssh") {
			u.User = url.User(as.Username)
			uri = u.String()
		}
		out = append(out, platform.Options{
			URI: uri,
			TLS: platform.TLS{CAFile: src.TLS.CAFile, CertFile: src.TLS.CertFile, KeyFile: src.TLS.KeyFile, ServerName: src.TLS.ServerName},
			SSH: platform.SSH{KeyFile: as.SSHKeyFile, KnownHostsFile: src.KnownHostsFile},
		})
	}
	return out
}

func checkLibvirt(ctx context.Context, src config.Source) (collector.Report, error) {
	r, err := libvirt.CheckSource(ctx, LibvirtHosts(src, src.Credential))
	if err != nil || src.Acting == nil {
		return r, err
	}
	found := libvirt.CheckActing(ctx, src.Acting.User(), LibvirtHosts(src, *src.Acting))
	r.Acting = &found
	return r, nil
}
