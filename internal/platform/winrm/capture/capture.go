// Package capture records what a Windows host answers, without its names, and plays it back.
// It promises that nothing unmasked is written, and that a replay has the host's classes, properties and kinds of values.
// It must not import other packages of protip but internal/platform/winrm.
package capture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/protip/protip/internal/platform/winrm"
)

// manifestFile lists what a capture holds.
const manifestFile = "capture.json"

const (
	maxBytes    = 256 << 20 // of all answers together
	pageSize    = 100       // instances an answer, so that a capture shows how this host pages
	maxPages    = 50        // of one class
	permissions = 0o600
)

// Manifest says what was asked, and where the answers are.
type Manifest struct {
	Version int     `json:"version"` // of this form: 1
	Entries []Entry `json:"entries"`
}

// Entry is one class that was asked for.
type Entry struct {
	Namespace string   `json:"namespace"`
	Class     string   `json:"class"`
	Pages     []string `json:"pages"`           // files, in their order
	Instances int      `json:"instances"`       // of all pages
	Error     string   `json:"error,omitempty"` // why there are not more; a fault's code and no words
	Seconds   float64  `json:"seconds"`
}

// recorded is an entry before it is masked. It is never written.
type recorded struct {
	entry Entry
	pages []string
}

// Record asks a host for classes and writes what it answers, masked, into a new directory. A class that fails is an entry
// with an error. It fails itself if the host cannot be logged in at, or if what it is about to write still holds the host's
// or the user's name.
func Record(ctx context.Context, opts winrm.Options, classes []Class, dir string, progress func(Entry)) (*Manifest, error) {
	var pages []string
	fault, total := "", 0
	opts.Record = func(x winrm.Exchange) {
		total += len(x.Answer)
		switch {
		case x.Operation == "Release" || total > maxBytes:
		case x.Fault:
			fault = x.Answer
		default:
			pages = append(pages, x.Answer)
		}
	}
	client, err := winrm.New(opts)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	var all []recorded
	for _, class := range classes {
		pages, fault = nil, ""
		began := time.Now()
		n, err := ask(ctx, client, class)
		if errors.Is(err, winrm.ErrCredentials) || errors.Is(err, winrm.ErrNotSent) || ctx.Err() != nil {
			return nil, err
		}
		e := Entry{Namespace: class.Namespace, Class: class.Name, Instances: n, Seconds: time.Since(began).Seconds(), Error: brief(err)}
		progress(e)
		if err != nil && fault != "" { // one after which it went on asked for less
			pages = append(pages, fault)
		}
		all = append(all, recorded{e, pages})
		if total > maxBytes {
			return nil, fmt.Errorf("the host answers more than %d bytes", maxBytes)
		}
	}
	return write(all, dir, secrets(&opts))
}

var errEnough = errors.New("enough pages")

// ask enumerates one class, and counts its instances.
func ask(ctx context.Context, client *winrm.Client, class Class) (n int, err error) {
	q := winrm.Query{Namespace: class.Namespace, WQL: "SELECT * FROM " + class.Name, MaxElements: pageSize}
	err = client.Enumerate(ctx, q, func(winrm.Instance) error {
		if n++; n > maxPages*pageSize {
			return errEnough
		}
		return nil
	})
	if err == errEnough {
		return n, nil
	}
	return n, err
}

// brief is an error without the host's words and names.
func brief(err error) string {
	var f *winrm.Fault
	switch {
	case err == nil:
		return ""
	case errors.As(err, &f):
		return (&winrm.Fault{Code: f.Code, Provider: f.Provider, Subcode: f.Subcode, Detail: f.Detail}).Error()
	case winrm.IsTimeout(err):
		return winrm.ErrTimedOut.Error()
	}
	return "the answer could not be read"
}

// secrets are names that must be in nothing that is written.
func secrets(opts *winrm.Options) []string {
	names := strings.FieldsFunc(opts.Username, func(r rune) bool { return r == '\\' || r == '@' || r == '.' })
	if u, err := url.Parse(opts.URL); err == nil {
		names = append(names, strings.Split(u.Hostname(), ".")...)
	}
	var out []string
	for _, name := range names {
		if len(name) >= 4 && !vocabulary[strings.ToLower(name)] {
			out = append(out, strings.ToLower(name))
		}
	}
	return out
}

// write masks everything, looks at it once more, and only then makes the directory.
func write(all []recorded, dir string, secrets []string) (*Manifest, error) {
	mask := newMask()
	for _, r := range all {
		for _, page := range r.pages {
			mask.learn(page)
		}
	}
	files := map[string]string{}
	manifest := &Manifest{Version: 1}
	for i, r := range all {
		for n, page := range r.pages {
			masked, err := mask.XML(page)
			if err != nil {
				r.entry.Error = "an answer is no XML, and is left out"
				continue
			}
			if slices.ContainsFunc(word.FindAllString(strings.ToLower(masked), -1), func(w string) bool { return slices.Contains(secrets, w) }) {
				return nil, fmt.Errorf("%s: the host's or the user's name is still in the masked answer: nothing was written", r.entry.Class)
			}
			name := fmt.Sprintf("%03d-%s-%d.xml", i+1, r.entry.Class, n+1)
			files[name] = masked
			r.entry.Pages = append(r.entry.Pages, name)
		}
		manifest.Entries = append(manifest.Entries, r.entry)
	}
	b, err := json.MarshalIndent(manifest, "", "  ")
	if err != nil {
		return nil, err
	}
	files[manifestFile] = string(b) + "\n"
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), permissions); err != nil {
			return nil, err
		}
	}
	return manifest, nil
}
