package packs_test

import (
	"slices"
	"testing"
	"time"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/history/promql"
	"github.com/protip/protip/rules"
	"github.com/protip/protip/rules/packs"
)

func TestShippedPacks(t *testing.T) {
	names := packs.Names()
	if !slices.Contains(names, "host-pressure") {
		t.Fatalf("shipped packs are %v", names)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			file, err := packs.File(name)
			if err != nil {
				t.Fatal(err)
			}
			set, err := rules.Load([]rules.File{file}, rules.Options{})
			if err != nil {
				t.Fatal(err)
			}
			pack, ok := set.Pack(name)
			if !ok {
				t.Fatalf("the pack calls itself %s", set.Packs()[0].Name)
			}
			if pack.Tests() == 0 {
				t.Error("a shipped pack needs tests")
			}
			if err := pack.Test(func(m history.Matrix) history.Querier { return promql.Memory(m...) }); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestUnknownPack(t *testing.T) {
	if _, err := packs.File("nonesuch"); err == nil {
		t.Fatal("no error")
	}
}

// TestNoSpikeIsATip holds that what a shipped rule reports has lasted: without a gap over several looks, or over weeks.
func TestNoSpikeIsATip(t *testing.T) {
	for _, name := range packs.Names() {
		file, err := packs.File(name)
		if err != nil {
			t.Fatal(err)
		}
		set, err := rules.Load([]rules.File{file}, rules.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range set.Rules() {
			weeks := r.SettleRange() >= 13*24*time.Hour && r.For == 0
			if r.For < 2*time.Minute && !weeks {
				t.Errorf("%s of %s is reported after %s, over %s", r.Name, name, r.For, r.SettleRange())
			}
		}
	}
}
