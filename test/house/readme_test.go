package house

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/protip/protip/internal/config"
)

var (
	fence = regexp.MustCompile("(?ms)^```(\\w+)\\n(.*?)^```$")
	link  = regexp.MustCompile(`\]\(([^)#:]+)\)`)
)

// blocks are the fenced blocks of a document in a language.
func blocks(t *testing.T, file, language string) []string {
	t.Helper()
	var out []string
	for _, m := range fence.FindAllStringSubmatch(read(t, file), -1) {
		if m[1] == language {
			out = append(out, m[2])
		}
	}
	return out
}

// TestCommandsOfDocumentsExist runs every command of the README, of CONTRIBUTING and of the page on vSphere as far as it goes without a vCenter: make
// targets by make -n, ours with --help behind them, which refuses unknown verbs and flags.
func TestCommandsOfDocumentsExist(t *testing.T) {
	bin := t.TempDir()
	built := map[string]bool{}
	for _, file := range []string{"README.md", "CONTRIBUTING.md", "docs/vsphere.md"} {
		for _, block := range blocks(t, file, "sh") {
			for line := range strings.Lines(block) {
				line, _, _ = strings.Cut(strings.TrimSpace(line), " #")
				words := strings.Fields(line)
				t.Run(line, func(t *testing.T) {
					switch {
					case len(words) == 2 && words[0] == "make":
						command(t, "make", "-n", words[1])
					case len(words) > 3 && words[0] == "go" && words[1] == "run":
						if !built[words[2]] {
							command(t, "go", "build", "-o", bin, words[2])
							built[words[2]] = true
						}
						command(t, filepath.Join(bin, filepath.Base(words[2])), append(words[3:], "--help")...)
					default:
						t.Errorf("no check for %q", line)
					}
				})
			}
		}
	}
	if len(built) != 2 {
		t.Errorf("the README shows %d of our two programs", len(built))
	}
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
}

// TestConfigurationsOfDocumentsLoad reads every YAML of the README and of the page on vSphere as a configuration.
func TestConfigurationsOfDocumentsLoad(t *testing.T) {
	readme, vsphere := blocks(t, "README.md", "yaml"), blocks(t, "docs/vsphere.md", "yaml")
	if len(readme) == 0 || len(vsphere) == 0 {
		t.Fatal("the README or the page on vSphere shows no configuration")
	}
	all := slices.Concat(readme, vsphere)
	variable := regexp.MustCompile(`\w+_env: (\S+)`)
	secret := regexp.MustCompile(`\w+_file: (\S+)`)
	for i, text := range all {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			dir := t.TempDir()
			for _, m := range secret.FindAllStringSubmatch(text, -1) {
				if err := os.WriteFile(filepath.Join(dir, m[1]), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for _, m := range variable.FindAllStringSubmatch(text, -1) {
				t.Setenv(m[1], "set")
			}
			if _, err := config.Parse([]byte(text), filepath.Join(dir, "protip.yml")); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLinksOfDocumentsLead holds that every relative link leads to a file.
func TestLinksOfDocumentsLead(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range slices.Concat(files, []string{root + "/README.md", root + "/CONTRIBUTING.md", root + "/CHANGELOG.md"}) {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(b), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s: %v", filepath.Base(file), err)
			}
		}
	}
}
