package libvirt

import (
	"fmt"
	"net/url"
	"strings"
)

// place is where a daemon is and what it is asked for, taken from a URI.
type place struct {
	name      string // the URI as people may see it
	transport string // unix, tcp, tls, ssh
	driver    string // the URI that the daemon gets: qemu:///system
	host      string // empty for unix
	port      string // empty: the transport's
	user      string // ssh
	sockets   []string
}

// CheckURI reports what is wrong with a URI. It looks at the text only.
func CheckURI(uri string) error {
	_, err := parse(uri)
	return err
}

// parse reads a URI as libvirt does: driver[+transport]://[user@][host][:port]/[path][?socket=path].
func parse(uri string) (place, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return place{}, fmt.Errorf("libvirt URI: %q is not a URI", redact(uri))
	}
	if _, has := u.User.Password(); has {
		return place{}, fmt.Errorf("libvirt URI of %s: a password in the URI; use a key file", u.Host)
	}
	driver, transport, _ := strings.Cut(u.Scheme, "+")
	if transport == "" {
		transport = "unix"
		if u.Host != "" {
			transport = "tls" // as libvirt does
		}
	}
	p := place{
		name: uri, transport: transport, driver: driver + "://" + u.Path,
		host: u.Hostname(), port: u.Port(), user: u.User.Username(), sockets: socketsOf(driver),
	}
	query := u.Query()
	if s := query.Get("socket"); s != "" {
		p.sockets = []string{s}
	}
	for key := range query {
		if key != "socket" {
			return place{}, fmt.Errorf("libvirt URI %s: parameter %s is not known here; only socket is", uri, key)
		}
	}
	switch {
	case driver == "" || u.Opaque != "" || u.Path == "":
		return place{}, fmt.Errorf("libvirt URI %s: no driver and path, as in qemu+ssh://host/system", uri)
	case transport != "unix" && transport != "tcp" && transport != "tls" && transport != "ssh":
		return place{}, fmt.Errorf("libvirt URI %s: transport %s; use unix, tcp, tls or ssh", uri, transport)
	case transport == "unix" && p.host != "":
		return place{}, fmt.Errorf("libvirt URI %s: a unix socket has no host", uri)
	case transport != "unix" && p.host == "":
		return place{}, fmt.Errorf("libvirt URI %s: no host for %s", uri, transport)
	case p.user != "" && transport != "ssh":
		return place{}, fmt.Errorf("libvirt URI %s: a user, and %s has none", uri, transport)
	}
	return p, nil
}

// redact cuts a text that is no URI where a password might be.
func redact(uri string) string {
	if i := strings.LastIndex(uri, "@"); i >= 0 {
		return "..." + uri[i:]
	}
	return uri
}

// socketsOf are where a daemon listens, the first that is there being it: the one for all drivers, or the driver's own.
func socketsOf(driver string) []string {
	return []string{"/run/libvirt/libvirt-sock", "/run/libvirt/virt" + driver + "d-sock"}
}

// readOnly looks first where a daemon lets everybody read, unless a socket was named.
func (p *place) readOnly() {
	if len(p.sockets) < 2 {
		return
	}
	var first []string
	for _, socket := range p.sockets {
		first = append(first, socket+"-ro")
	}
	p.sockets = append(first, p.sockets...)
}
