package config

import (
	"strings"
	"testing"
)

const (
	hash10 = "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy"
	sum    = "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"
)

func TestUsers(t *testing.T) {
	good := "users:\n  - {name: Änne O., role: operator, bcrypt: " + hash10 + "}\n  - {name: ivan@ops, role: viewer, subject: 'CN=ivan,OU=ops'}\n" +
		"tokens:\n  - {name: prometheus, role: viewer, sha256: " + sum + "}\n"
	if err := CheckUsers([]byte(good), "users.yml"); err != nil {
		t.Errorf("good users: %v", err)
	}
	for name, tt := range map[string]struct{ text, want string }{
		"empty":             {"", "users.yml:1:1: the file is empty: list at least one user under users:, as protip users hash prints it"},
		"nobody":            {"users: []\n", "users.yml:1:1: nobody is listed: list at least one user under users:, as protip users hash prints it"},
		"a password":        {"users:\n  - {name: ann, role: viewer, password: hunter2}\n", "users.yml:2:12: users[0] has no way to log in: add bcrypt:, which protip users hash makes of a password, or the subject: of a client certificate\nusers.yml:2:31: password is not a key of users[0]: write what protip users hash prints, as bcrypt"},
		"a token":           {"tokens:\n  - {name: ann, role: viewer, token: hunter2}\n", "users.yml:2:5: tokens[0].sha256 is missing: write the 64 hexadecimal digits that protip users token prints\nusers.yml:2:31: token is not a key of tokens[0]: write what protip users token prints, as sha256"},
		"no way in":         {"users:\n  - {name: ann, role: viewer}\n", "users.yml:2:12: users[0] has no way to log in: add bcrypt:, which protip users hash makes of a password, or the subject: of a client certificate"},
		"another role":      {"users:\n  - {name: ann, role: admin, bcrypt: " + hash10 + "}\n", `users.yml:2:23: users[0].role is "admin": write viewer or operator`},
		"no hash":           {"users:\n  - {name: ann, role: viewer, bcrypt: hunter2}\n", "users.yml:2:39: users[0].bcrypt is not a bcrypt hash: write what protip users hash prints"},
		"a cheap hash":      {"users:\n  - {name: ann, role: viewer, bcrypt: " + strings.Replace(hash10, "$10$", "$04$", 1) + "}\n", "users.yml:2:39: users[0].bcrypt has cost 4, not 10 to 14: write what protip users hash prints"},
		"a costly hash":     {"users:\n  - {name: ann, role: viewer, bcrypt: " + strings.Replace(hash10, "$10$", "$31$", 1) + "}\n", "users.yml:2:39: users[0].bcrypt has cost 31, not 10 to 14: write what protip users hash prints"},
		"half a sum":        {"tokens:\n  - {name: ann, role: viewer, sha256: " + sum[:32] + "}\n", "users.yml:2:39: tokens[0].sha256 is not a SHA-256: write the 64 hexadecimal digits that protip users token prints"},
		"one name twice":    {good + "  - {name: ivan@ops, role: viewer, sha256: " + strings.Replace(sum, "5", "6", 1) + "}\n", "users.yml:6:12: tokens[1].name stands here twice, first at users.yml:3:12: give each a name of its own: what it does is written down under it"},
		"one token twice":   {good + "  - {name: other, role: viewer, sha256: " + strings.ToUpper(sum) + "}\n", "users.yml:6:41: tokens[1].sha256 stands here twice, first at users.yml:5:46: give each program a token of its own"},
		"a strange name":    {"users:\n  - {name: \"ann\\n\", role: viewer, bcrypt: " + hash10 + "}\n", "users.yml:2:12: users[0].name holds more than letters, digits, blanks and @ . _ -: write up to 64 of these, the first a letter or a digit"},
		"a misspelt key":    {"usres: []\n", `users.yml:1:1: unknown key "usres" in the file: known keys are tokens, users`},
		"two documents":     {good + "---\nusers: []\n", "users.yml:6:1: a second YAML document: remove it: the file is one document"},
		"the token's name":  {"users:\n  - {name: operator token, role: viewer, bcrypt: " + hash10 + "}\n", "users.yml:2:12: users[0].name is what the token of web.operator_token_file is called: choose another name"},
		"no role, no token": {"tokens:\n  - name: ann\n", "users.yml:2:5: tokens[0].role is missing: write viewer or operator\nusers.yml:2:5: tokens[0].sha256 is missing: write the 64 hexadecimal digits that protip users token prints"},
	} {
		err := CheckUsers([]byte(tt.text), "users.yml")
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s: %v\nwant: %s", name, err, tt.want)
		}
		if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), hash10) || strings.Contains(err.Error(), sum)) {
			t.Errorf("%s: the error shows a secret: %v", name, err)
		}
	}
}

func FuzzUsers(f *testing.F) {
	f.Add([]byte("users:\n  - {name: ann, role: viewer, bcrypt: " + hash10 + "}\ntokens: [{name: x, role: operator, sha256: " + sum + "}]"))
	f.Add([]byte("users: &a [*a]"))
	f.Fuzz(func(_ *testing.T, text []byte) { _ = CheckUsers(text, "users.yml") })
}
