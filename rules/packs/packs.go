// Package packs holds the rule packs that protip ships.
// It promises that each of them loads and passes its own tests.
// It must not import anything but rules.
package packs

import (
	"embed"
	"fmt"
	"io/fs"
	"strings"

	"github.com/protip/protip/rules"
)

//go:embed *.yml
var shipped embed.FS

// Names are the shipped packs, in alphabetical order.
func Names() []string {
	paths, err := fs.Glob(shipped, "*.yml")
	if err != nil {
		panic(err) // the pattern is a constant
	}
	names := make([]string, len(paths))
	for i, p := range paths {
		names[i] = strings.TrimSuffix(p, ".yml")
	}
	return names
}

// File is the shipped pack of that name.
func File(name string) (rules.File, error) {
	f, err := rules.ReadFS(shipped, name+".yml")
	if err != nil {
		return rules.File{}, fmt.Errorf("no shipped pack %q: there is %s", name, strings.Join(Names(), ", "))
	}
	return f, nil
}
