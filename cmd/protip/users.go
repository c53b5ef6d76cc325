package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/alecthomas/kingpin/v2"
	"go.yaml.in/yaml/v3"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/term"

	"github.com/protip/protip/internal/config"
)

// Passwords that are taken: shorter ones are guessed, and bcrypt does not look at what is longer.
const (
	minPassword = 10
	maxPassword = 72 // bytes
)

// bcryptCost takes about a sixth of a second of a CPU.
const bcryptCost = 12

// addUsers adds what makes entries of the agent's web.users_file.
func addUsers(kp *kingpin.Application, verbs map[string]command) {
	users := kp.Command("users", "Make entries of web.users_file.")

	hash := users.Command("hash", "Read a password from the terminal or the standard input, and print its owner's entry.")
	name := hash.Arg("name", "The user's name.").Required().String()
	role := hash.Flag("role", "viewer or operator.").Default(config.RoleViewer).Enum(config.RoleViewer, config.RoleOperator)
	verbs[hash.FullCommand()] = func(_ context.Context, c *console) error {
		password, err := newPassword(os.Stdin, c.err)
		if err != nil {
			return err
		}
		sum, err := bcrypt.GenerateFromPassword([]byte(password), bcryptCost)
		if err != nil {
			return err
		}
		text, err := entry(config.Users{Users: []config.User{{Name: *name, Role: *role, Bcrypt: string(sum)}}})
		if err != nil {
			return err
		}
		_, err = io.WriteString(c.out, text)
		return err
	}

	token := users.Command("token", "Make a random token for a program: write it into a new file, and print its owner's entry.")
	owner := token.Arg("name", "The program's name.").Required().String()
	file := token.Arg("file", "Where the token goes; it must not exist.").Required().String()
	may := token.Flag("role", "viewer or operator.").Default(config.RoleViewer).Enum(config.RoleViewer, config.RoleOperator)
	verbs[token.FullCommand()] = func(_ context.Context, c *console) error {
		secret := rand.Text()
		sum := sha256.Sum256([]byte(secret))
		text, err := entry(config.Users{Tokens: []config.APIToken{{Name: *owner, Role: *may, SHA256: hex.EncodeToString(sum[:])}}})
		if err != nil {
			return err
		}
		f, err := os.OpenFile(*file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = io.WriteString(f, secret+"\n")
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		_, err = io.WriteString(c.out, text)
		return err
	}
}

// entry is what is pasted into the file of users, after that file's own check.
func entry(u config.Users) (string, error) {
	text, err := yaml.Marshal(u)
	if err != nil {
		return "", err
	}
	if err := config.CheckUsers(text, "entry"); err != nil {
		return "", usageError{err}
	}
	return string(text), nil
}

// newPassword asks for a password, at a terminal twice.
func newPassword(in *os.File, out io.Writer) (string, error) {
	ask, terminal := newPrompt(in, out), term.IsTerminal(int(in.Fd()))
	read := ask.line
	if terminal {
		read = func() (string, error) { return ask.password("Password: ") }
	}
	password, err := read()
	if err != nil {
		return "", err
	}
	if len(password) < minPassword || len(password) > maxPassword {
		return "", usageError{fmt.Errorf("a password has %d to %d bytes: nothing was made", minPassword, maxPassword)}
	}
	if !terminal {
		return password, nil
	}
	again, err := ask.password("Again: ")
	if err == nil && again != password {
		err = usageError{errors.New("the two are not the same: nothing was made")}
	}
	return password, err
}
