package web

import (
	"fmt"
	"math"
	"net/url"
	"strconv"
)

const defaultLimit = 1000

// window is which part of a list is asked for.
type window struct{ offset, limit int } // no limit is 0

func windowOf(q url.Values) (window, error) {
	limit, err := parseLimit(q.Get("limit"))
	if err != nil {
		return window{}, err
	}
	offset, err := parseCount("offset", q.Get("offset"))
	return window{offset, limit}, err
}

// paged is what the window shows of a list, with the length of the whole.
func paged[T, V any](w window, list []T, show func(T) V) part {
	total := len(list)
	first := min(w.offset, total)
	last := total
	if w.limit > 0 {
		last = first + min(w.limit, total-first)
	}
	out := make([]V, 0, last-first)
	for _, v := range list[first:last] {
		out = append(out, show(v))
	}
	answer := part{data: out, total: &total}
	if last < total {
		answer.warning = fmt.Sprintf("%d to %d of %d shown: go on with offset=%d, or raise limit", first+1, last, total, last)
	}
	return answer
}

func same[T any](v T) T { return v }

// parseLimit reads how much may be answered; 0 is all.
func parseLimit(s string) (int, error) {
	if s == "" {
		return defaultLimit, nil
	}
	return parseCount("limit", s)
}

func parseCount(name, s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > math.MaxInt32 {
		what := "a number"
		if name == "limit" {
			what = "a number, 0 for no limit"
		}
		return 0, badData("%s %q: want %s", name, s, what)
	}
	return n, nil
}
