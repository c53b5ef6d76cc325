package build

import (
	"fmt"

	"github.com/protip/protip/internal/config"
	vsphere "github.com/protip/protip/internal/platform/vsphere"
	"github.com/protip/protip/internal/platform/winrm"
)

// WindowsHosts is how to log in at each host of a source with one of its credentials: the source's own, which watches, or
// the one that may act. The hosts share what became of the credential's passwords, so that a wrong one is tried at one of
// them.
func WindowsHosts(src config.Source, as config.Credential) ([]winrm.Options, error) {
	logins := &winrm.Logins{}
	var out []winrm.Options
	for i, host := range src.Hosts {
		u, err := config.HostURL(host)
		if err != nil {
			return nil, fmt.Errorf("source %q: hosts[%d] %w", src.Name, i, err)
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
