package report

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// shown formats a cell for people. What is not known is a dash.
func shown(v any, u Unit) string {
	switch x := v.(type) {
	case nil:
		return "-"
	case string:
		if x == "" {
			return "-"
		}
		return clean(x)
	case float64:
		return quantity(x, u)
	}
	return fmt.Sprint(v)
}

func quantity(v float64, u Unit) string {
	switch u {
	case Percent:
		if math.Abs(v) < 0.0995 {
			return strconv.FormatFloat(100*v, 'f', 1, 64) + "%"
		}
		return strconv.FormatFloat(100*v, 'f', 0, 64) + "%"
	case Hertz:
		return scaled(v, 1000, "Hz", "kHz", "MHz", "GHz", "THz")
	case Bytes:
		return scaled(v, 1024, "B", "KiB", "MiB", "GiB", "TiB", "PiB")
	case Ratio:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}

// scaled shows a quantity in the largest unit of which there is at least one.
func scaled(v, step float64, units ...string) string {
	i := 0
	for math.Abs(v) >= step && i < len(units)-1 {
		v, i = v/step, i+1
	}
	return strconv.FormatFloat(v, 'g', 4, 64) + " " + units[i]
}

// clean is s on one line and without what could steer a terminal: names come from platforms, and platforms are hostile.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '\ufffd'
		}
		return r
	}, s)
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04Z") }

// head is what every form begins with.
func (r Report) head() string {
	return fmt.Sprintf("%s of %s, %s to %s, means of %s", r.Title, r.Scope, day(r.Start), day(r.End), spell(r.Step))
}

func spell(d time.Duration) string {
	return strings.TrimSuffix(strings.TrimSuffix(d.String(), "0s"), "0m")
}

// Text writes the tables as text.
func (r Report) Text(out io.Writer) error {
	var b strings.Builder
	fmt.Fprintln(&b, clean(r.head()))
	for _, t := range r.Tables {
		fmt.Fprintf(&b, "\n%s\n", t.Title)
		if len(t.Rows) == 0 {
			fmt.Fprintln(&b, "none")
			continue
		}
		w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
		for i, c := range t.seenBy(Programs) {
			fmt.Fprint(w, gap(i), t.Columns[c].Title)
		}
		fmt.Fprintln(w)
		for _, row := range t.Rows {
			for i, c := range t.seenBy(Programs) {
				fmt.Fprint(w, gap(i), shown(row[c], t.Columns[c].Unit))
			}
			fmt.Fprintln(w)
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	b.WriteString("\n")
	for _, note := range r.Notes {
		fmt.Fprintln(&b, clean(note))
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func gap(i int) string {
	if i > 0 {
		return "\t"
	}
	return ""
}

// seenBy are the columns that are not only for others.
func (t Table) seenBy(others Audience) []int {
	var out []int
	for i, c := range t.Columns {
		if c.For != others {
			out = append(out, i)
		}
	}
	return out
}

// JSON writes the tables with their values in base units; what is not known is null.
func (r Report) JSON(out io.Writer) error {
	type object = map[string]any
	tables := object{}
	for _, t := range r.Tables {
		rows := make([]object, 0, len(t.Rows))
		for _, row := range t.Rows {
			o := object{}
			for _, c := range t.seenBy(People) {
				o[t.Columns[c].Name] = exact(row[c])
			}
			rows = append(rows, o)
		}
		tables[t.Name] = rows
	}
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(object{
		"report": r.Name, "start": r.Start.UTC(), "end": r.End.UTC(), "step_seconds": r.Step.Seconds(), "scope": r.Scope, "notes": r.Notes, "tables": tables,
	})
}

// exact is a value as programs get it: nine digits, since the rest is how sums were made.
func exact(v any) any {
	if x, ok := v.(float64); ok {
		rounded, err := strconv.ParseFloat(strconv.FormatFloat(x, 'g', 9, 64), 64)
		if err != nil || math.IsNaN(rounded) || math.IsInf(rounded, 0) {
			return nil
		}
		return rounded
	}
	return v
}

// CSV writes the tables one after the other, each with its header and, if there are several, its name as the first column.
func (r Report) CSV(out io.Writer) error {
	w := csv.NewWriter(out)
	for _, t := range r.Tables {
		line := []string{"table"}
		for _, c := range t.seenBy(People) {
			line = append(line, t.Columns[c].Name)
		}
		if err := w.Write(line); err != nil {
			return err
		}
		for _, row := range t.Rows {
			line := []string{t.Name}
			for _, c := range t.seenBy(People) {
				line = append(line, field(exact(row[c])))
			}
			if err := w.Write(line); err != nil {
				return err
			}
		}
	}
	w.Flush()
	return w.Error()
}

// field is a value of CSV. A name that a spreadsheet would take for a formula gets an apostrophe before it.
func field(v any) string {
	switch x := v.(type) {
	case float64:
		return strconv.FormatFloat(x, 'f', -1, 64)
	case string:
		if x != "" && strings.ContainsRune("=+-@\t\r\n", rune(x[0])) {
			return "'" + x
		}
		return x
	}
	return ""
}
