// Package history is what rules, reports and pages ask of the past: PromQL, whoever answers it.
// It promises plain values: no type of a database leaves the packages below it.
// It must not import anything but the standard library; the packages below it hold what answers.
package history

import (
	"context"
	"errors"
	"time"
)

// Errors of a query that decide what the asker does.
var (
	// ErrQuery says that the query itself is wrong: asking again would not mend it.
	ErrQuery = errors.New("query refused")
	// ErrTooMuch says that the answer would have been larger than the limit, or took too long.
	ErrTooMuch = errors.New("query too expensive")
)

// Querier answers PromQL. Its methods may be called from any goroutine.
type Querier interface {
	// Query is the value of an instant vector or scalar at one time. A scalar is one sample without labels.
	Query(ctx context.Context, expr string, at time.Time) (Vector, error)
	// QueryRange is the value of an expression at each step of a range.
	QueryRange(ctx context.Context, expr string, r Range) (Matrix, error)
}

// Range is from Start to End, both included, by Step.
type Range struct {
	Start, End time.Time
	Step       time.Duration
}

// Label is one label of a series.
type Label struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Labels are sorted by name and name each label once. __name__ is among them if the query kept it.
type Labels []Label

// Get is the value of a label, empty if there is none.
func (l Labels) Get(name string) string {
	for _, label := range l {
		if label.Name == name {
			return label.Value
		}
	}
	return ""
}

// Sample is one series' value at the time that was asked for.
type Sample struct {
	Labels Labels
	Value  float64
}

// Vector is an instant vector: one sample a series.
type Vector []Sample

// Point is a value and its time, in Unix milliseconds.
type Point struct {
	T int64
	V float64
}

// Series is one series over a range; its points are in order of time, and those that are absent are not there.
type Series struct {
	Labels Labels
	Points []Point
}

// Matrix is the answer to a range query.
type Matrix []Series
