package house

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/protip/protip/collector"
	"github.com/protip/protip/collector/exposition"
	"github.com/protip/protip/internal/inventory"
)

var metricRow = regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (gauge|counter|histogram) \\| ([^|]+) \\| ([^|]+) \\|$")

// TestEveryMetricIsDocumented holds docs/metrics.md against what is exposed, both ways.
func TestEveryMetricIsDocumented(t *testing.T) {
	exposed := map[string]string{} // name -> type, empty if not known here
	for _, f := range exposition.Families() {
		exposed[f.Name] = string(f.Type)
	}
	for _, name := range namesOf(func(reg prometheus.Registerer) { collector.NewMetrics(reg) }) {
		if _, twice := exposed[name]; twice {
			t.Errorf("%s is among the fleet's metrics and among protip's own", name)
		}
		exposed[name] = ""
	}
	for _, name := range namesInSource(t) {
		if _, known := exposed[name]; !known {
			exposed[name] = ""
		}
	}
	units := map[string]string{}
	for _, kind := range []inventory.Kind{inventory.KindHost, inventory.KindVM, inventory.KindDatastore} {
		for _, m := range inventory.MetricsOf(kind) {
			units[m.String()] = m.Desc().Unit
		}
	}
	documented := map[string]bool{}
	for _, row := range metricRow.FindAllStringSubmatch(read(t, "docs/metrics.md"), -1) {
		name, kind, unit := row[1], row[2], row[3]
		if documented[name] {
			t.Errorf("%s is documented twice", name)
		}
		documented[name] = true
		want, ok := exposed[name]
		if !ok && (strings.HasPrefix(name, "virt_") || strings.HasPrefix(name, "protip_")) {
			t.Errorf("%s is documented and not exposed", name)
		}
		if want != "" && kind != want {
			t.Errorf("%s is documented as a %s and exposed as a %s", name, kind, want)
		}
		if (kind == "counter") != strings.HasSuffix(name, "_total") {
			t.Errorf("%s is documented as a %s", name, kind)
		}
		if want := units[name]; want != "" && unit != want {
			t.Errorf("%s is documented in %s and measured in %s", name, unit, want)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(exposed)) {
		if !documented[name] {
			t.Errorf("%s is not in docs/metrics.md", name)
		}
	}
}

// TestUnitsAreInNames holds that a name ends in its base unit.
func TestUnitsAreInNames(t *testing.T) {
	for _, kind := range []inventory.Kind{inventory.KindHost, inventory.KindVM, inventory.KindDatastore} {
		for _, m := range inventory.MetricsOf(kind) {
			want := "_" + m.Desc().Unit
			if m.Desc().Type == inventory.Counter {
				want += "_total"
			}
			if !strings.HasSuffix(m.String(), want) || !slices.Contains([]string{"hertz", "bytes", "seconds", "ratio", "operations", "packets"}, m.Desc().Unit) {
				t.Errorf("%s is in %s", m, m.Desc().Unit)
			}
		}
	}
}

var nameInSource = regexp.MustCompile(`Name:\s+"(protip_\w+)"`)

// namesInSource are the metrics of our own that the source defines with client_golang.
func namesInSource(t *testing.T) (names []string) {
	t.Helper()
	for _, folder := range []string{"cmd", "collector", "internal", "remediation", "rules"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			b, err := os.ReadFile(path)
			for _, m := range nameInSource.FindAllStringSubmatch(string(b), -1) {
				names = append(names, m[1])
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return names
}

var fqName = regexp.MustCompile(`fqName: "(\w+)"`)

// namesOf are the names of the metrics that register registers.
func namesOf(register func(prometheus.Registerer)) (names []string) {
	register(listing(func(c prometheus.Collector) {
		descs := make(chan *prometheus.Desc)
		go func() { c.Describe(descs); close(descs) }()
		for d := range descs {
			names = append(names, fqName.FindStringSubmatch(d.String())[1])
		}
	}))
	return names
}

// listing is a Registerer that looks at what it is given.
type listing func(prometheus.Collector)

var _ prometheus.Registerer = listing(nil)

func (l listing) Register(c prometheus.Collector) error { l(c); return nil }
func (l listing) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		l(c)
	}
}
func (listing) Unregister(prometheus.Collector) bool { return false }
