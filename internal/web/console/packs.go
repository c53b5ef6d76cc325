package console

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/protip/protip/rules"
)

// packsPage is what is judged, by which rules, and whether the packs' own tests hold.
type packsPage struct{ Packs []packRow }

type packRow struct {
	*rules.Pack
	Settings []setting
	Tests    int
	Trial    trial
	Open     map[string]int // open tips by rule
}

// setting is a key of a pack's config, with the agent's own value in place.
type setting struct {
	Name  string
	Value any
}

// settingWords are a value without the powers of ten that floats are printed with.
func settingWords(v any) string {
	if x, ok := v.(float64); ok {
		return strconv.FormatFloat(x, 'f', -1, 64)
	}
	return fmt.Sprint(v)
}

func (c *Console) packs(r *http.Request, f *frame) (any, error) {
	f.Title, f.Section = "Packs", "packs"
	if _, err := asked(r); err != nil {
		return nil, err
	}
	var p packsPage
	set := c.o.Agent.Packs()
	c.trials.begin(c.stopped, set, c.o.Trials, c.work.Go)
	for _, pack := range set.Packs() {
		row := packRow{Pack: pack, Tests: pack.Tests(), Trial: c.trials.of(pack), Open: map[string]int{}}
		for name, value := range pack.Config {
			row.Settings = append(row.Settings, setting{name, value})
		}
		slices.SortFunc(row.Settings, func(a, b setting) int { return strings.Compare(a.Name, b.Name) })
		for _, t := range f.list {
			if t.Pack == pack.Name && isOpen(t.State) {
				row.Open[t.Rule]++
			}
		}
		p.Packs = append(p.Packs, row)
	}
	return p, nil
}

// trials runs the tests of the packs that are loaded, each pack's once.
type trials struct {
	mu   sync.Mutex
	set  *rules.Set
	done map[*rules.Pack]trial
}

// trial is what a pack's tests came to.
type trial struct {
	Over   bool
	Failed []string
}

// begin starts the tests of a set that is new; it does not wait for them.
func (t *trials) begin(ctx context.Context, set *rules.Set, open rules.Open, run func(func())) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.set == set {
		return
	}
	t.set, t.done = set, map[*rules.Pack]trial{}
	run(func() {
		for _, pack := range set.Packs() {
			if ctx.Err() != nil {
				return
			}
			result := trial{Over: true}
			if err := pack.Test(open); err != nil {
				result.Failed = strings.Split(err.Error(), "\n")
			}
			t.mu.Lock()
			if t.set == set {
				t.done[pack] = result
			}
			t.mu.Unlock()
		}
	})
}

func (t *trials) of(pack *rules.Pack) trial {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.done[pack]
}
