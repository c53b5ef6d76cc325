package winrm

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"

	krb "github.com/jcmturner/gokrb5/v8/client"
	"github.com/jcmturner/gokrb5/v8/config"
	"github.com/jcmturner/gokrb5/v8/credentials"
	"github.com/jcmturner/gokrb5/v8/keytab"
	"github.com/jcmturner/gokrb5/v8/spnego"
)

// KerberosOptions say where the tickets come from: a cache that another program keeps fresh, a keytab, or the password.
type KerberosOptions struct {
	Realm      string // EXAMPLE.COM; default: what stands after the @ of Username
	ConfFile   string // default /etc/krb5.conf
	KeytabFile string
	CacheFile  string
	Service    string // service principal; default HTTP/ and the URL's host
}

const defaultKrb5Conf = "/etc/krb5.conf"

func (k *KerberosOptions) check(o *Options) error {
	switch {
	case k.CacheFile != "" && k.KeytabFile != "":
		return errors.New("a cache of tickets and a keytab: one of the two is needed")
	case k.CacheFile != "":
		return nil
	case o.Username == "":
		return errors.New("user name is needed")
	case k.KeytabFile == "" && o.Password == nil:
		return errors.New("a password, a keytab or a cache of tickets is needed")
	}
	if _, realm := k.principal(o.Username); realm == "" {
		return errors.New("kerberos needs a realm: write the user as user@REALM")
	}
	return nil
}

// principal is the name and realm of user@realm, of DOMAIN\user with Realm set, or of a bare name with it.
func (k *KerberosOptions) principal(user string) (name, realm string) {
	name, realm, _ = strings.Cut(user, "@")
	if _, bare, ok := strings.Cut(name, `\`); ok {
		name = bare
	}
	if k.Realm != "" {
		realm = k.Realm
	}
	return name, strings.ToUpper(realm)
}

// tickets holds the Kerberos client of one Client. Its calls take no context: one that hangs is left behind, and the next
// begins when it has ended.
type tickets struct {
	turn   chan struct{} // of capacity 1, held while the client is used
	client *krb.Client
}

func newTickets() *tickets { return &tickets{turn: make(chan struct{}, 1)} }

// proof is the header that proves who the client is, made anew for each message. It asks a KDC only when there is no ticket
// or it has expired.
func (t *tickets) proof(ctx context.Context, c *Client) (string, error) {
	select {
	case t.turn <- struct{}{}:
	case <-ctx.Done():
		return "", fmt.Errorf("kerberos: wait for a ticket: %w", ctx.Err())
	}
	type result struct {
		header string
		err    error
	}
	done := make(chan result, 1)
	go func() {
		defer func() { <-t.turn }()
		header, err := t.ask(c)
		done <- result{header, err}
	}()
	select {
	case r := <-done:
		return r.header, r.err
	case <-ctx.Done():
		return "", fmt.Errorf("kerberos: ask for a ticket: %w", ctx.Err())
	}
}

func (t *tickets) ask(c *Client) (string, error) {
	leave := func(error) {}
	if t.client == nil {
		client, password, err := c.opts.Kerberos.login(&c.opts)
		if err != nil {
			return "", fmt.Errorf("kerberos: %w", err)
		}
		if password != "" {
			if leave, err = c.opts.Logins.enter(context.Background(), c.key(password)); err != nil {
				return "", fmt.Errorf("kerberos: %w", err)
			}
		}
		t.client = client
	}
	service := c.opts.Kerberos.Service
	if service == "" {
		service = "HTTP/" + c.url.Hostname()
	}
	token, err := spnego.SPNEGOClient(t.client, service).InitSecContext()
	if err == nil {
		var b []byte
		if b, err = token.Marshal(); err == nil {
			leave(nil)
			return "Negotiate " + base64.StdEncoding.EncodeToString(b), nil
		}
	}
	t.client.Destroy() // the next time reads cache, keytab or password anew
	t.client = nil
	err = refusedByKDC(err, c.opts.Username)
	leave(err)
	return "", fmt.Errorf("kerberos: ticket for %s: %w", service, err)
}

// close forgets the tickets, unless they are being used: a Client that is closed asks for none any more.
func (t *tickets) close() {
	select {
	case t.turn <- struct{}{}:
		if t.client != nil {
			t.client.Destroy()
			t.client = nil
		}
		<-t.turn
	default:
	}
}

// login makes a Kerberos client of what the options name, read anew, and tells the password if it is made of one. It asks
// nobody yet.
func (k *KerberosOptions) login(o *Options) (client *krb.Client, password string, err error) {
	file := k.ConfFile
	setDefault(&file, defaultKrb5Conf)
	conf, err := config.Load(file)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", file, err)
	}
	if k.CacheFile != "" {
		b, err := os.ReadFile(k.CacheFile)
		if err != nil {
			return nil, "", fmt.Errorf("cache of tickets: %w", err)
		}
		cache, err := parseCache(b)
		if err != nil {
			return nil, "", fmt.Errorf("cache of tickets %s: %w", k.CacheFile, err)
		}
		client, err = krb.NewFromCCache(cache, conf, krb.DisablePAFXFAST(true))
		return client, "", err
	}
	name, realm := k.principal(o.Username)
	if k.KeytabFile != "" {
		keys, err := keytab.Load(k.KeytabFile)
		if err != nil {
			return nil, "", fmt.Errorf("keytab %s: %w", k.KeytabFile, err)
		}
		return krb.NewWithKeytab(name, realm, keys, conf, krb.DisablePAFXFAST(true)), "", nil
	}
	if password, err = o.Password(); err != nil {
		return nil, "", err
	}
	return krb.NewWithPassword(name, realm, password, conf, krb.DisablePAFXFAST(true)), password, nil
}

// parseCache reads a cache of tickets. The library panics on one that is cut off.
func parseCache(b []byte) (cache *credentials.CCache, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("it is damaged")
		}
	}()
	cache = new(credentials.CCache)
	return cache, cache.Unmarshal(b)
}

// refusedByKDC makes a refusal of what the library says in words only.
func refusedByKDC(err error, user string) error {
	for _, code := range []string{"KDC_ERR_PREAUTH_FAILED", "KDC_ERR_C_PRINCIPAL_UNKNOWN", "KDC_ERR_CLIENT_REVOKED", "KDC_ERR_KEY_EXPIRED"} {
		if strings.Contains(err.Error(), code) {
			return fmt.Errorf("%s: %w", code, &refusal{user})
		}
	}
	return err
}
