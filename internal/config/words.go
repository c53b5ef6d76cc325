package config

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// maxWords bounds the attributes and the categories of one source: each may be a label or a series of every VM.
const maxWords = 64

var labelName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

// words refuses attributes that cannot become labels, and categories without a name.
func (v *validator) words(i int) {
	src := &v.cfg.Sources[i]
	at := key("sources", i, "custom_attributes")
	if len(src.CustomAttributes) > maxWords {
		v.bad(at, fmt.Sprintf("%s names more than %d attributes", at, maxWords), "name those that queries use")
	}
	first := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(src.CustomAttributes)) {
		label, at := src.CustomAttributes[name], join(at, name)
		other, twice := first[label]
		first[label] = name
		switch {
		case v.reported(at):
		case !labelName.MatchString(label) || strings.HasPrefix(label, "__"):
			v.bad(at, fmt.Sprintf("%s: %s cannot be a label", at, quote(label)), "write letters, digits and _, as cost_center; it begins with no digit and not with __")
		case slices.Contains([]string{"source", "vm", "vm_id"}, label):
			v.bad(at, fmt.Sprintf("%s: every VM has a label %s", at, quote(label)), "choose another name for it")
		case twice:
			v.bad(at, fmt.Sprintf("%s and %s become the same label", quote(other), quote(name)), "give each a label of its own")
		}
	}
	at = key("sources", i, "tag_categories")
	if len(src.TagCategories) > maxWords {
		v.bad(at, fmt.Sprintf("%s names more than %d categories", at, maxWords), "name those that queries use")
	}
	for j, name := range src.TagCategories {
		at := fmt.Sprintf("%s[%d]", at, j)
		switch {
		case v.reported(at):
		case name == "":
			v.bad(at, at+" is empty", "name a category of tags as the vCenter does")
		case slices.Index(src.TagCategories, name) < j:
			v.bad(at, fmt.Sprintf("%s: %s is named twice", at, quote(name)), "remove one")
		}
	}
}
