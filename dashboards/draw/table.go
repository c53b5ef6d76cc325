package draw

import (
	"cmp"
	"context"
	"fmt"
	"html"
	"maps"
	"slices"
	"strings"

	"github.com/protip/protip/dashboards/check"
)

// table draws the answers of a panel's queries as one table, as Grafana's transformations merge and organize make one: rows whose labels are
// the same are one row.
func (p *panel) table(ctx context.Context, b *strings.Builder, c check.Checker, values map[string]string) error {
	hidden, rename, first := map[string]bool{}, map[string]string{}, map[string]int{}
	for _, t := range p.Transformations {
		maps.Copy(hidden, t.Options.ExcludeByName)
		maps.Copy(rename, t.Options.RenameByName)
		maps.Copy(first, t.Options.IndexByName)
	}
	var labels, columns []string
	rows := map[string]map[string]string{} // by labels: a cell by column
	numbers := map[string]map[string]float64{}
	for _, t := range p.Targets {
		column := "Value #" + t.RefID
		if len(p.Targets) == 1 {
			column = "Value"
		}
		if !hidden[column] {
			columns = append(columns, rename[column])
		}
		answer, err := c.Ask.Query(ctx, c.Resolve(t.Expr, values), c.To)
		if err != nil {
			return err
		}
		for _, s := range answer {
			key := fmt.Sprint(s.Labels)
			if rows[key] == nil {
				rows[key], numbers[key] = map[string]string{}, map[string]float64{}
			}
			for _, l := range s.Labels {
				if !hidden[l.Name] {
					rows[key][l.Name] = l.Value
					if !slices.Contains(labels, l.Name) {
						labels = append(labels, l.Name)
					}
				}
			}
			numbers[key][rename[column]] = s.Value
		}
	}
	unit, bar, link := p.overrides()
	slices.SortStableFunc(labels, func(a, b string) int { return cmp.Compare(order(first, a), order(first, b)) })
	b.WriteString("<table><tr>")
	for _, l := range labels {
		fmt.Fprintf(b, "<th>%s", html.EscapeString(l))
	}
	for _, l := range columns {
		fmt.Fprintf(b, `<th class="n">%s`, html.EscapeString(l))
	}
	for _, key := range slices.Sorted(maps.Keys(rows)) {
		b.WriteString("<tr>")
		for _, l := range labels {
			class := ""
			if link == l {
				class = ` class="a"`
			}
			fmt.Fprintf(b, "<td%s>%s", class, html.EscapeString(rows[key][l]))
		}
		for _, l := range columns {
			v, ok := numbers[key][l]
			b.WriteString(`<td class="n">`)
			if ok && bar[l] {
				fmt.Fprintf(b, `<span class="bar"><b style="width:%.0f%%"></b></span>`, 100*min(max(v, 0), 1))
			}
			if ok {
				fmt.Fprintf(b, "<span>%s</span>", html.EscapeString(value(unit[l], v)))
			}
		}
	}
	b.WriteString("</table>")
	return nil
}

// overrides are the units of columns, which of them are bars, and the label that leads further.
func (p *panel) overrides() (unit map[string]string, bar map[string]bool, link string) {
	unit, bar = map[string]string{}, map[string]bool{}
	for _, o := range p.FieldConfig.Overrides {
		for _, property := range o.Properties {
			switch property.ID {
			case "unit":
				unit[o.Matcher.Options], _ = property.Value.(string)
			case "custom.cellOptions":
				bar[o.Matcher.Options] = true
			case "links":
				link = o.Matcher.Options
			}
		}
	}
	return unit, bar, link
}

// order is where a column comes; those that are not named come as they are, after the others.
func order(first map[string]int, label string) int {
	if i, ok := first[label]; ok {
		return i
	}
	return len(first)
}
