package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"unicode"
)

// print writes v as indented JSON if that was asked for, else what text writes.
func (c *console) print(v any, text func(w *tabwriter.Writer)) error {
	if c.json {
		enc := jsonTo(c.out)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	w := tabwriter.NewWriter(c.out, 0, 8, 2, ' ', 0)
	text(w)
	return w.Flush()
}

// jsonTo writes JSON for terminals and programs, not for HTML: > stays >.
func jsonTo(w io.Writer) *json.Encoder {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc
}

// done reports an act that answers nothing.
func (c *console) done(err error, verb, source string) error {
	if err != nil {
		return err
	}
	if source == "" {
		source = "all sources"
	}
	return c.print(map[string]string{verb: source}, func(w *tabwriter.Writer) { fmt.Fprintf(w, "%s: %s\n", verb, source) })
}

// printable is s on one line and without what could steer a terminal: names come from platforms, and platforms are hostile.
func printable(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// plural is a number of things: 1 host, 2 hosts.
func plural(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// stars draws 0..5 in halves.
func stars(n float64) string {
	full := int(n)
	s := strings.Repeat("★", full)
	if n-float64(full) >= 0.5 {
		s += "½"
	}
	if s == "" {
		return "-"
	}
	return s
}

// readSecret reads a one-line secret.
func readSecret(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	secret := strings.TrimSpace(string(b))
	if secret == "" {
		return "", errors.New(path + " is empty")
	}
	return secret, nil
}
