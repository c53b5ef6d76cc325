package console

import (
	"cmp"
	"context"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
)

// How much the inbox shows.
const (
	shownTips   = 100
	shownSparks = 12
)

// tipsPage is the inbox.
type tipsPage struct {
	Tabs    []tab
	Filter  tipFilter
	Groups  []tipGroup
	Total   int // that the filter takes
	Hidden  int // of those, beyond what is shown
	Any     bool
	Watched watched
	Calm    bool // nothing is open, and everything is known
	Links   struct{ Clear string }
}

// tab is a choice that is a link.
type tab struct {
	Name, Href string
	Count      int
	Here       bool
}

// tipFilter is what of all tips is shown, as the address says it.
type tipFilter struct {
	State, Severity, Source, Cluster, Rule, Group string

	Severities, Sources, Clusters, Rules []choice
}

// choice is one value of a filter.
type choice struct {
	Value, Name string
	Here        bool
}

// tipGroup is tips under one heading.
type tipGroup struct {
	Key, Name, Note, Href string // the key is unique in its page
	Count                 int
	Rows                  []tipRow
	Folds                 []fold
}

// fold is tips of one rule that are many: the first are shown, the others on asking.
type fold struct {
	Rule string
	Rows []tipRow
}

// unfolded is how many tips of one rule a group shows at once.
const unfolded = 3

// tipRow is a tip on one line.
type tipRow struct {
	rules.Tip
	Where     string // cluster, or source
	WhereHref string
	Spark     template.HTML
	Moves     []remediation.Action // under way
}

// watched is what there is to be calm about.
type watched struct{ Sources, Clusters, Hosts, VMs, Services, Rules, Packs int }

var states = []rules.State{rules.Active, rules.InProgress, rules.Unknown, rules.Pending, rules.Dismissed, rules.Resolved}

var severities = []rules.Severity{rules.Critical, rules.Warning, rules.Info}

// kinds are objects in the order in which their tips are read: what is wrong with a host explains what is wrong with its VMs.
var kinds = []inventory.Kind{inventory.KindHost, inventory.KindDatastore, inventory.KindCluster, inventory.KindService, inventory.KindVM}

// isOpen reports whether a tip is a matter of now.
func isOpen(s rules.State) bool { return s != rules.Dismissed && s != rules.Resolved }

func (c *Console) tips(r *http.Request, f *frame) (any, error) {
	f.Title, f.Section = "Tips", "tips"
	q, err := asked(r, "state", "severity", "source", "cluster", "rule", "group")
	if err != nil {
		return nil, err
	}
	p := tipsPage{Any: len(f.list) > 0}
	if p.Filter, err = readTipFilter(q, f); err != nil {
		return nil, err
	}
	p.Links.Clear = with("/", nil, "group", q.Get("group"))
	p.Tabs = tipTabs(q, f.list, p.Filter)
	var picked []rules.Tip
	for _, t := range f.list {
		if p.Filter.takes(t) {
			picked = append(picked, t)
		}
	}
	sortTips(picked)
	p.Total = len(picked)
	p.Hidden = max(0, p.Total-shownTips)
	rows, err := c.tipRows(r.Context(), f, picked[:p.Total-p.Hidden])
	if err != nil {
		return nil, err
	}
	p.Groups = grouped(rows, p.Filter.Group, f)
	if p.Filter.Rule == "" && p.Filter.Group != "rule" {
		for i := range p.Groups {
			p.Groups[i].foldUp()
		}
	}
	p.Watched = c.watched(f)
	p.Calm = f.OpenTips == 0 && len(f.Silent) == 0 && f.Waiting == "" && !slices.ContainsFunc(f.list, func(t rules.Tip) bool { return t.State == rules.Unknown })
	return p, nil
}

func readTipFilter(q url.Values, f *frame) (tf tipFilter, err error) {
	if tf.State, err = one(q, "state", "open", "active", "in_progress", "unknown", "pending", "dismissed", "resolved", "all"); err != nil {
		return tf, err
	}
	if tf.Severity, err = one(q, "severity", "", "critical", "warning", "info"); err != nil {
		return tf, err
	}
	if tf.Group, err = one(q, "group", "cluster", "severity", "age", "rule"); err != nil {
		return tf, err
	}
	tf.Source, tf.Cluster, tf.Rule = q.Get("source"), q.Get("cluster"), q.Get("rule")
	for _, s := range severities {
		tf.Severities = append(tf.Severities, choice{string(s), string(s), tf.Severity == string(s)})
	}
	names := map[string]bool{}
	for _, t := range f.list {
		names[t.Rule] = true
	}
	tf.Sources, tf.Clusters = places(f.snap, tf.Source, tf.Cluster)
	for name := range names {
		tf.Rules = append(tf.Rules, choice{name, name, name == tf.Rule})
	}
	slices.SortFunc(tf.Rules, func(a, b choice) int { return strings.Compare(a.Name, b.Name) })
	return tf, nil
}

// places are the sources and clusters that a filter can name.
func places(snap *inventory.Snapshot, source, cluster string) (sources, clusters []choice) {
	for _, src := range snap.Sources() {
		sources = append(sources, choice{src.Name, src.Name, src.Name == source})
	}
	for cl := range snap.Clusters() {
		if source == "" || source == cl.ID.Source {
			clusters = append(clusters, choice{cl.ID.String(), clean(cl.Name), cl.ID.String() == cluster})
		}
	}
	slices.SortStableFunc(clusters, func(a, b choice) int { return strings.Compare(a.Name, b.Name) })
	return sources, clusters
}

func (tf tipFilter) takes(t rules.Tip) bool {
	state := tf.State == "all" || tf.State == string(t.State) || tf.State == "open" && isOpen(t.State)
	return state && (tf.Severity == "" || tf.Severity == string(t.Severity)) && (tf.Source == "" || tf.Source == t.Object.Source) &&
		(tf.Cluster == "" || tf.Cluster == t.Cluster.String()) && (tf.Rule == "" || tf.Rule == t.Rule)
}

// tipTabs are the states to choose from, with how many tips each would show.
func tipTabs(q url.Values, list []rules.Tip, now tipFilter) []tab {
	count := func(state string) (n int) {
		filter := now
		filter.State = state
		for _, t := range list {
			if filter.takes(t) {
				n++
			}
		}
		return n
	}
	out := []tab{{Name: "Open", Href: with("/", q, "state", ""), Count: count("open"), Here: now.State == "open"}}
	for _, s := range states {
		n := count(string(s))
		if here := now.State == string(s); n > 0 || here || s == rules.Dismissed || s == rules.Resolved {
			out = append(out, tab{strings.ToUpper(words(s)[:1]) + words(s)[1:], with("/", q, "state", string(s)), n, here})
		}
	}
	return append(out, tab{"All", with("/", q, "state", "all"), count("all"), now.State == "all"})
}

// sortTips puts first what needs a person first.
func sortTips(tips []rules.Tip) {
	slices.SortFunc(tips, func(a, b rules.Tip) int {
		return cmp.Or(cmp.Compare(slices.Index(states, a.State), slices.Index(states, b.State)),
			cmp.Compare(slices.Index(severities, a.Severity), slices.Index(severities, b.Severity)),
			cmp.Compare(slices.Index(kinds, a.Object.Kind), slices.Index(kinds, b.Object.Kind)),
			b.Since.Compare(a.Since), strings.Compare(a.ID, b.ID))
	})
}

func (c *Console) tipRows(ctx context.Context, f *frame, tips []rules.Tip) ([]tipRow, error) {
	under, err := c.o.Agent.Actions(ctx, remediation.Filter{States: underWay})
	if err != nil {
		return nil, err
	}
	rows := make([]tipRow, 0, len(tips))
	sparks, repeats := 0, map[string]int{}
	for _, t := range tips {
		row := tipRow{Tip: t}
		row.Where, row.WhereHref = whereOf(f.snap, t)
		for _, a := range under {
			if a.TipID == t.ID {
				row.Moves = append(row.Moves, a)
			}
		}
		if repeats[t.Rule+t.Cluster.String()]++; sparks < shownSparks && repeats[t.Rule+t.Cluster.String()] <= unfolded && (t.State == rules.Active || t.State == rules.InProgress || t.State == rules.Pending) {
			row.Spark = c.sparkOf(ctx, f, t)
			sparks++
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// sparkOf is the last hour of the first number that a tip is about.
func (c *Console) sparkOf(ctx context.Context, f *frame, t rules.Tip) template.HTML {
	if len(t.Evidence) == 0 || c.o.Past == nil {
		return ""
	}
	s, ok := sightOf(f.snap, t, t.Evidence[0])
	if !ok {
		return ""
	}
	r := history.Range{Start: f.Now.Add(-time.Hour), End: f.Now, Step: time.Minute}
	top := 0.0
	if s.unit == "ratio" {
		top = 1
	}
	return spark(c.ask(ctx, s.expr, r), r, top, s.name+" in the last hour")
}

// whereOf is a tip's cluster, or its source where it has none.
func whereOf(snap *inventory.Snapshot, t rules.Tip) (name, link string) {
	if cl, ok := snap.Cluster(t.Cluster); ok {
		return clean(cl.Name), href(cl.ID)
	}
	return clean(t.Object.Source), ""
}

// grouped lays rows under headings; both keep their order.
func grouped(rows []tipRow, by string, f *frame) []tipGroup {
	var out []tipGroup
	at := map[string]int{}
	for _, row := range rows {
		g := tipGroup{}
		switch by {
		case "severity":
			g.Name = string(row.Severity)
		case "age":
			g.Name = age(f.Now.Sub(row.Since))
		case "rule":
			g.Name, g.Note = row.Rule, row.Pack
		default:
			g.Name, g.Href, g.Note = row.Where, row.WhereHref, clean(row.Object.Source)
			if g.Name == g.Note {
				g.Note = ""
			}
		}
		key := g.Name + "\x00" + g.Note + "\x00" + g.Href
		i, ok := at[key]
		if !ok {
			i = len(out)
			at[key] = i
			g.Key = strconv.Itoa(i)
			if row.WhereHref != "" && by == "cluster" {
				g.Key = row.Cluster.String()
			}
			out = append(out, g)
		}
		out[i].Rows = append(out[i].Rows, row)
		out[i].Count++
	}
	if by == "age" {
		slices.SortStableFunc(out, func(a, b tipGroup) int { return b.Rows[0].Since.Compare(a.Rows[0].Since) })
	}
	return out
}

// foldUp puts away what repeats itself.
func (g *tipGroup) foldUp() {
	seen := map[string]int{}
	at := map[string]int{}
	var shown []tipRow
	for _, row := range g.Rows {
		if seen[row.Rule]++; seen[row.Rule] <= unfolded {
			shown = append(shown, row)
			continue
		}
		i, ok := at[row.Rule]
		if !ok {
			i = len(g.Folds)
			at[row.Rule] = i
			g.Folds = append(g.Folds, fold{Rule: row.Rule})
		}
		g.Folds[i].Rows = append(g.Folds[i].Rows, row)
	}
	g.Rows = shown
}

func age(d time.Duration) string {
	switch {
	case d < time.Hour:
		return "in the last hour"
	case d < 24*time.Hour:
		return "in the last day"
	case d < 7*24*time.Hour:
		return "in the last week"
	}
	return "older than a week"
}

func (c *Console) watched(f *frame) (w watched) {
	for _, src := range f.snap.Sources() {
		w.Sources++
		w.Clusters += filled(f.snap.ClusterTable(src.Name).Facts)
		w.Hosts += filled(f.snap.HostTable(src.Name).Facts)
		w.VMs += filled(f.snap.VMTable(src.Name).Facts)
		w.Services += filled(f.snap.ServiceTable(src.Name).Facts)
	}
	set := c.o.Agent.Packs()
	w.Rules, w.Packs = len(set.Rules()), len(set.Packs())
	return w
}

func filled[T any](facts []*T) (n int) {
	for _, f := range facts {
		if f != nil {
			n++
		}
	}
	return n
}

// groupings are what the inbox can be grouped by.
func groupings(now string) []choice {
	var out []choice
	for _, by := range []string{"cluster", "severity", "age", "rule"} {
		out = append(out, choice{by, by, by == now})
	}
	return out
}
