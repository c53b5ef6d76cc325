package rules

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/parser/posrange"
	"go.yaml.in/yaml/v3"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/inventory"
)

// lookback is how far an instant selector looks for its last sample: Prometheus' own default.
const lookback = 5 * time.Minute

// Query is one PromQL expression and the kind of object its samples are of. It asks for the whole fleet at once; rules that bind
// the same expression share the answer.
type Query struct {
	Expr string
	On   inventory.Kind
}

// Answer is what history said to a query, joined to the objects. An object that is not there has no data.
type Answer struct {
	Values map[inventory.ID]float64
	// Err is why there is no answer. Every rule that asked is then undecided, and counts as failed.
	Err error
}

// Errors of an answer.
var (
	ErrDuplicate = errors.New("more than one sample of an object")
	ErrNoHistory = errors.New("no history is kept: set history in the configuration")
)

// Queries are what the set's rules ask of history, each once, in the order of the rules.
func (s *Set) Queries() []Query {
	var out []Query
	seen := map[Query]bool{}
	for _, r := range s.rules {
		for _, f := range r.with {
			if q := (Query{f.query, r.On}); !seen[q] {
				seen[q] = true
				out = append(out, q)
			}
		}
	}
	return out
}

// Every is how old the answer to a query may be: the shortest every of the rules that ask it; 0 is as new as the evaluation.
func (s *Set) Every(q Query) time.Duration {
	every := time.Duration(-1)
	for _, r := range s.rules {
		for _, f := range r.with {
			if (Query{f.query, r.On}) == q && (every < 0 || r.Every < every) {
				every = r.Every
			}
		}
	}
	return max(every, 0)
}

// readWith binds names to PromQL.
func (p *packParser) readWith(r *Rule, n *yaml.Node) {
	p.pairs(n, "with", func(k, v *yaml.Node) {
		name := k.Value
		switch {
		case !configName.MatchString(name):
			p.failNode(k, "use lower case letters, digits and _", "name %s is not well formed", quoted(name))
			return
		case taken(name):
			p.failNode(k, "choose another name", "name %s has a meaning already", quoted(name))
			return
		case len(r.with) >= maxWith:
			p.failNode(k, "split the rule", "with binds more than %d names", maxWith)
			return
		}
		source := p.text(v, "with."+name, maxExprBytes)
		if source == "" {
			return
		}
		back, f := reach(source)
		if f != nil {
			p.failFaults(v, "with."+name, []fault{*f}) // and bind it all the same: what reads it is not wrong
		}
		r.with = append(r.with, &field{object: r.On, name: name, path: name, typ: number, query: source, slot: len(r.with)})
		r.reach = max(r.reach, back)
	})
}

// taken reports whether a bare name stands for something else in an expression.
func taken(name string) bool {
	if slices.Contains(kindsOfRules(), name) || name == "config" {
		return true
	}
	for _, names := range [][]string{builtins, formatterNames(), operators, {"true", "false", "nil", "in", "let", "if", "else"}} {
		for _, n := range names {
			if n == name {
				return true
			}
		}
	}
	return false
}

// reach checks a PromQL expression and tells how far into the past it reads.
func reach(source string) (time.Duration, *fault) {
	// rune positions are what the pack's problems count in; the parser counts bytes.
	at := func(pos posrange.Pos) int {
		return utf8.RuneCountInString(source[:min(max(int(pos), 0), len(source))])
	}
	tree, err := parser.NewParser(parser.Options{EnableExperimentalFunctions: true}).ParseExpr(source)
	if err != nil {
		var all parser.ParseErrors
		if errors.As(err, &all) && len(all) > 0 {
			return 0, &fault{at: at(all[0].PositionRange.Start), message: oneLine(all[0].Err.Error())}
		}
		return 0, &fault{message: oneLine(err.Error())}
	}
	if tree.Type() != parser.ValueTypeVector {
		return 0, &fault{message: fmt.Sprintf("must be an instant vector, one sample an object, and is a %s", tree.Type()), hint: hintOf(tree)}
	}
	var longest time.Duration
	var bad *fault
	parser.Inspect(tree, func(n parser.Node, path []parser.Node) error {
		v, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		if v.Timestamp != nil || v.StartOrEnd != 0 {
			bad = &fault{at: at(v.PosRange.Start), message: "@ is not allowed", hint: "a rule judges the time it is evaluated at"}
		}
		if v.OriginalOffset < 0 {
			bad = &fault{at: at(v.PosRange.Start), message: "a negative offset reads the future"}
		}
		back := lookback
		for _, above := range path {
			switch above := above.(type) {
			case *parser.MatrixSelector:
				back = above.Range // instead of the lookback
			}
		}
		back += v.OriginalOffset
		for _, above := range path {
			if sub, ok := above.(*parser.SubqueryExpr); ok {
				back += sub.Range + sub.OriginalOffset
			}
		}
		longest = max(longest, back)
		return nil
	})
	switch {
	case bad != nil:
		return 0, bad
	case longest > maxReach:
		return 0, &fault{message: fmt.Sprintf("reads %s back, and history is kept for %s", model.Duration(longest), model.Duration(maxReach))}
	}
	return longest, nil
}

func hintOf(tree parser.Expr) string {
	if tree.Type() == parser.ValueTypeMatrix {
		return "put it into a function, as in avg_over_time(...)"
	}
	return ""
}

// idLabels are the labels by which protip's own series name an object.
var idLabels = map[inventory.Kind]string{
	inventory.KindCluster: "cluster_id", inventory.KindHost: "host_id", inventory.KindVM: "vm_id",
	inventory.KindDatastore: "datastore_id", inventory.KindService: "service_id",
}

// Join lays the samples of a query's answer to the objects of the snapshot: by source and id where they carry these labels, and
// else by what the packs declare under join. Samples of no known object are left out. Two of one object are an error: nobody
// could say which of them is true.
func (s *Set) Join(snap *inventory.Snapshot, q Query, answer history.Vector) Answer {
	out := Answer{Values: make(map[inventory.ID]float64, len(answer))}
	var outside *joiner
	for _, sample := range answer {
		source, ref := sample.Labels.Get("source"), sample.Labels.Get(idLabels[q.On])
		id, ok := inventory.ID{Source: source, Kind: q.On, Ref: ref}, source != "" && ref != ""
		if !ok {
			if outside == nil {
				outside = s.joiner(snap, q.On)
			}
			if id, ok = outside.object(sample.Labels); !ok {
				continue
			}
		}
		if _, twice := out.Values[id]; twice {
			return Answer{Err: fmt.Errorf("%w: %s has several series (%s): if two Prometheus replicas or jobs scrape protip, "+
				"add a matcher to history.matchers, or set honor_labels: true in the scrape configuration", ErrDuplicate, id, words(sample.Labels))}
		}
		out.Values[id] = sample.Value
	}
	return out
}

// words are labels as PromQL writes them, and no more of them than a log line bears.
func words(labels history.Labels) string {
	parts := make([]string, 0, len(labels))
	for _, l := range labels {
		parts = append(parts, fmt.Sprintf("%s=%q", l.Name, l.Value))
	}
	return shorten(strings.Join(parts, ", "), 200)
}

// Ask puts the set's queries to history and joins the answers. A query that fails, or no history at all, fails the rules that
// ask it and no others.
func (s *Set) Ask(ctx context.Context, past history.Querier, snap *inventory.Snapshot, now time.Time) map[Query]Answer {
	out := map[Query]Answer{}
	for _, q := range s.Queries() {
		out[q] = s.AskOne(ctx, past, snap, q, now)
	}
	return out
}

// AskOne is Ask of one query.
func (s *Set) AskOne(ctx context.Context, past history.Querier, snap *inventory.Snapshot, q Query, now time.Time) Answer {
	if past == nil {
		return Answer{Err: ErrNoHistory}
	}
	vector, err := past.Query(ctx, q.Expr, now)
	if err != nil {
		return Answer{Err: err}
	}
	return s.Join(snap, q, vector)
}
