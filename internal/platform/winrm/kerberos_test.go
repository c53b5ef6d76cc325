package winrm

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jcmturner/gokrb5/v8/iana/etypeID"
	"github.com/jcmturner/gokrb5/v8/iana/nametype"
	"github.com/jcmturner/gokrb5/v8/keytab"
	"github.com/jcmturner/gokrb5/v8/messages"
	"github.com/jcmturner/gokrb5/v8/spnego"
	"github.com/jcmturner/gokrb5/v8/types"
)

const testRealm = "CORP.EXAMPLE.COM"

// ticket is one entry of a cache of tickets, as kinit would have written it.
func ticket(t *testing.T, keys *keytab.Keytab, service ...string) []byte {
	t.Helper()
	user := types.NewPrincipalName(nametype.KRB_NT_PRINCIPAL, "watcher")
	name := types.PrincipalName{NameType: nametype.KRB_NT_SRV_INST, NameString: service}
	now := time.Now().UTC()
	tkt, key, err := messages.NewTicket(user, testRealm, name, testRealm, types.NewKrbFlags(), keys, etypeID.AES256_CTS_HMAC_SHA1_96, 1,
		now, now.Add(-time.Minute), now.Add(time.Hour), now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := tkt.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	b := append(principal("watcher"), principal(service...)...)
	b = binary.BigEndian.AppendUint16(b, uint16(key.KeyType))
	b = data(b, key.KeyValue)
	for _, at := range []time.Time{now, now.Add(-time.Minute), now.Add(time.Hour), now.Add(time.Hour)} {
		b = binary.BigEndian.AppendUint32(b, uint32(at.Unix()))
	}
	b = append(b, 0, 0, 0, 0, 0)            // no session key, no flags
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)   // no addresses, no authorization
	return append(data(b, raw), 0, 0, 0, 0) // no second ticket
}

func principal(components ...string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 1}, uint32(len(components)))
	b = data(b, []byte(testRealm))
	for _, c := range components {
		b = data(b, []byte(c))
	}
	return b
}

func data(b, d []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(d))), d...)
}

func writeFile(t *testing.T, name string, b []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestKerberos shows tickets of a cache to a service that checks them.
func TestKerberos(t *testing.T) {
	keys := keytab.New()
	for _, service := range []string{"HTTP/hv-01.corp.example.com", "krbtgt/" + testRealm} {
		if err := keys.AddEntry(service, testRealm, "service's secret", time.Now(), 1, etypeID.AES256_CTS_HMAC_SHA1_96); err != nil {
			t.Fatal(err)
		}
	}
	answer := pages("one", "two")
	var seen atomic.Int32
	host := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		seen.Add(1)
		status, body := answer(r.Context(), string(b))
		w.Header().Set("Content-Type", soapType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
	server := httptest.NewTLSServer(spnego.SPNEGOKRB5Authenticate(host, keys))
	defer server.Close()

	cache := append([]byte{5, 4, 0, 0}, principal("watcher")...)
	cache = append(cache, ticket(t, keys, "krbtgt", testRealm)...)
	cache = append(cache, ticket(t, keys, "HTTP", "hv-01.corp.example.com")...)
	opts := Options{URL: server.URL, Auth: Kerberos}
	opts.TLS.InsecureSkipVerify = true
	opts.Kerberos = KerberosOptions{
		Service: "HTTP/hv-01.corp.example.com", CacheFile: writeFile(t, "cache", cache),
		ConfFile: writeFile(t, "krb5.conf", []byte("[libdefaults]\n default_realm = "+testRealm+"\n[realms]\n "+testRealm+" = {\n  kdc = 127.0.0.1:1\n }\n")),
	}
	c, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := names(t, c); got != "one two" || seen.Load() != 2 {
		t.Errorf("got %s by %d messages", got, seen.Load())
	}

	opts.Kerberos.CacheFile = writeFile(t, "cache", cache[:len(cache)/2])
	damaged, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	defer damaged.Close()
	if _, err := damaged.All(t.Context(), processes); err == nil || !strings.Contains(err.Error(), "cache of tickets") {
		t.Errorf("half a cache: %v", err)
	}
}

// TestKDCThatHangs asks one that takes connections and says nothing.
func TestKDCThatHangs(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conf := "[libdefaults]\n default_realm = " + testRealm + "\n udp_preference_limit = 1\n[realms]\n " + testRealm + " = {\n  kdc = " + l.Addr().String() + "\n }\n"
	c, err := New(Options{
		URL: "https://" + l.Addr().String(), Auth: Kerberos, Username: "watcher@" + testRealm, Password: func() (string, error) { return testPassword, nil },
		Kerberos: KerberosOptions{ConfFile: writeFile(t, "krb5.conf", []byte(conf))},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	header, err := c.tickets.proof(ctx, c)
	if !errors.Is(err, context.DeadlineExceeded) || header != "" {
		t.Errorf("got %q, %v", header, err)
	}
}
