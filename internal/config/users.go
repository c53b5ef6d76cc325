package config

import (
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// Roles of people and programs.
const (
	RoleNone     = "none"
	RoleViewer   = "viewer"   // reads
	RoleOperator = "operator" // also acts
)

// Costs of bcrypt that are taken: below it guessing is cheap, above it a login takes seconds of a CPU.
const (
	MinBcryptCost = 10
	MaxBcryptCost = 14
)

// OperatorTokenName is what who shows the token of web.operator_token_file is called.
const OperatorTokenName = "operator token"

// userName is what is taken for a name: it is printed in tables and stored with what its owner does.
var userName = regexp.MustCompile(`^[\p{L}\p{N}][\p{L}\p{N}@._ -]{0,63}$`)

// Users is the file of web.users_file: who may come in. It holds hashes only.
type Users struct {
	Users  []User     `yaml:"users,omitempty"`
	Tokens []APIToken `yaml:"tokens,omitempty"`
}

// User is a person, who logs in with a password or a client certificate.
type User struct {
	Name   string `yaml:"name"`
	Role   string `yaml:"role"`             // viewer | operator
	Bcrypt string `yaml:"bcrypt,omitempty"` // of the password
	// Subject is the subject of the client certificate, as RFC 2253 writes it: CN=anna,OU=ops. It counts only where --web.config.file
	// has client certificates verified.
	Subject string `yaml:"subject,omitempty"`
}

// APIToken is a program, which sends its token with each request. A token is long and random, so that a plain hash is enough.
type APIToken struct {
	Name   string `yaml:"name"`
	Role   string `yaml:"role"`
	SHA256 string `yaml:"sha256"` // of the token, in hexadecimal digits
}

// usersCures say what to write instead of a secret.
var usersCures = map[string]string{
	"password": "write what protip users hash prints, as bcrypt",
	"token":    "write what protip users token prints, as sha256",
}

// LoadUsers reads a file of users. What is wrong with it comes as one *Error that lists every problem found and quotes no hash.
func LoadUsers(path string) (*Users, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read users: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read users: %w", err)
	}
	return parseUsers(b, path)
}

// CheckUsers is what LoadUsers would say of a file's content.
func CheckUsers(b []byte, name string) error {
	_, err := parseUsers(b, name)
	return err
}

func parseUsers(b []byte, name string) (*Users, error) {
	p := &problems{file: name}
	if len(b) > maxSize {
		p.add(start, fmt.Sprintf("the file is larger than %d bytes", maxSize), "give groups one token, or put a proxy that knows everybody in front")
		return nil, p.err()
	}
	root := p.document(b, "list at least one user under users:, as protip users hash prints it")
	if root == nil {
		return nil, p.err()
	}
	u, at := &Users{}, map[string]position{}
	(&decoder{problems: p, at: at, budget: maxNodes, cures: usersCures}).value(root, reflect.ValueOf(u).Elem(), "")
	(&userValidator{validator: validator{problems: p, cfg: &Config{file: name, at: at}}, first: map[string]string{}}).run(u)
	if err := p.err(); err != nil {
		return nil, err
	}
	return u, nil
}

// userValidator refuses users that can be read but not meant.
type userValidator struct {
	validator
	first map[string]string // of each name and each proof, where it stands
}

func (v *userValidator) run(u *Users) {
	if len(u.Users)+len(u.Tokens) == 0 && len(v.all) == 0 {
		v.bad("", "nobody is listed", "list at least one user under users:, as protip users hash prints it")
	}
	for i, user := range u.Users {
		at := func(field string) string { return key("users", i, field) }
		v.entry(at, user.Name, user.Role)
		switch {
		case user.Bcrypt == "" && user.Subject == "" && !v.reported(at("bcrypt")) && !v.reported(at("subject")):
			v.bad(at("name"), fmt.Sprintf("users[%d] has no way to log in", i), "add bcrypt:, which protip users hash makes of a password, or the subject: of a client certificate")
		case user.Bcrypt != "":
			v.bcrypt(at("bcrypt"), user.Bcrypt)
		}
		v.once(at("subject"), user.Subject, "a client certificate is one person's")
	}
	for i, token := range u.Tokens {
		at := func(field string) string { return key("tokens", i, field) }
		v.entry(at, token.Name, token.Role)
		cure := "write the 64 hexadecimal digits that protip users token prints"
		if !v.required(at("sha256"), token.SHA256, cure) {
			continue
		}
		if sum, err := hex.DecodeString(token.SHA256); err != nil || len(sum) != 32 {
			v.bad(at("sha256"), at("sha256")+" is not a SHA-256", cure)
			continue
		}
		v.once(at("sha256"), strings.ToLower(token.SHA256), "give each program a token of its own")
	}
}

func (v *userValidator) entry(at func(string) string, name, role string) {
	v.oneOf(at("role"), role, []string{RoleViewer, RoleOperator})
	switch {
	case !v.required(at("name"), name, "give it a name: what it does is written down under it"):
	case !userName.MatchString(name):
		v.bad(at("name"), at("name")+" holds more than letters, digits, blanks and @ . _ -", "write up to 64 of these, the first a letter or a digit")
	case name == OperatorTokenName:
		v.bad(at("name"), at("name")+" is what the token of web.operator_token_file is called", "choose another name")
	default:
		v.once(at("name"), name, "give each a name of its own: what it does is written down under it")
	}
}

// once refuses a value that stands in the file a second time, without quoting it.
func (v *userValidator) once(at, value, cure string) {
	if value == "" {
		return
	}
	if where, twice := v.first[value]; twice {
		v.bad(at, fmt.Sprintf("%s stands here twice, first at %s", at, where), cure)
		return
	}
	v.first[value] = v.cfg.At(at)
}

func (v *userValidator) bcrypt(at, hash string) {
	cost, err := bcrypt.Cost([]byte(hash))
	switch cure := "write what protip users hash prints"; {
	case err != nil || len(hash) != 60:
		v.bad(at, at+" is not a bcrypt hash", cure)
	case cost < MinBcryptCost || cost > MaxBcryptCost:
		v.bad(at, fmt.Sprintf("%s has cost %d, not %d to %d", at, cost, MinBcryptCost, MaxBcryptCost), cure)
	}
}
