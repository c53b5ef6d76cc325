package build

import (
	"net/url"
	"strings"

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
