package house

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/protip/protip/internal/config"
)

// TestEveryKeyIsDocumented holds docs/configuration.md against the configuration's own keys, both ways.
func TestEveryKeyIsDocumented(t *testing.T) {
	documented := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z0-9_.\\[\\]]+)` \\|([^|]*)\\|").FindAllStringSubmatch(read(t, "docs/configuration.md"), -1) {
		documented[m[1]] = strings.Trim(strings.TrimSpace(m[2]), "`")
	}
	known := map[string]bool{}
	keys(reflect.TypeFor[config.Config](), "", known)
	for key := range known {
		if _, ok := documented[key]; !ok {
			t.Errorf("%s is not documented", key)
		}
	}
	for key := range documented {
		if !known[key] {
			t.Errorf("%s is documented and no key", key)
		}
	}
	for key, want := range map[string]any{
		"remediation.limits.per_source":  config.DefaultPerSource,
		"remediation.limits.per_cluster": config.DefaultPerCluster,
		"remediation.limits.per_host":    config.DefaultPerHost,
		"remediation.limits.per_hour":    config.DefaultPerHour,
		"remediation.limits.failures":    config.DefaultFailures,
		"remediation.ceiling":            config.DefaultCeiling,
		"remediation.mode":               config.ModeOff,
		"sources[].interval":             config.DefaultInterval,
		"evaluation_interval":            config.DefaultEvaluationInterval,
	} {
		if got := documented[key]; got != fmt.Sprint(want) {
			t.Errorf("the default of %s is documented as %q and is %v", key, got, want)
		}
	}
}

// keys gathers the keys that have a value of their own; sections that only hold keys are left out unless their being there
// says something.
func keys(typ reflect.Type, prefix string, out map[string]bool) {
	for i := range typ.NumField() {
		field := typ.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		if name == "" {
			if field.Anonymous {
				keys(field.Type, prefix, out)
			}
			continue
		}
		key, of := prefix+name, field.Type
		switch {
		case of.Kind() == reflect.Pointer:
			out[key] = true
			keys(of.Elem(), key+".", out)
		case of.Kind() == reflect.Slice && of.Elem().Kind() == reflect.Struct:
			out[key] = true
			keys(of.Elem(), key+"[].", out)
		case of.Kind() == reflect.Struct && strings.HasPrefix(of.PkgPath(), strings.TrimSuffix(module, "/")):
			keys(of, key+".", out)
		default:
			out[key] = true
		}
	}
}
