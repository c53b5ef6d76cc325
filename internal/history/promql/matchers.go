package promql

import (
	"fmt"
	"maps"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/protip/protip/internal/history"
)

// WithMatchers is an expression whose every selector asks for these labels as well.
func WithMatchers(expr string, want map[string]string) (string, error) {
	if len(want) == 0 {
		return expr, nil
	}
	parsed, err := newParser().ParseExpr(expr)
	if err != nil {
		return "", fmt.Errorf("%w: %w", history.ErrQuery, err)
	}
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		if v, ok := node.(*parser.VectorSelector); ok {
			for _, name := range slices.Sorted(maps.Keys(want)) {
				v.LabelMatchers = append(v.LabelMatchers, labels.MustNewMatcher(labels.MatchEqual, name, want[name]))
			}
		}
		return nil
	})
	return parsed.String(), nil
}
