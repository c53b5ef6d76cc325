// Package console is the agent's pages for people: tips and what to do about them, the fleet, what was moved, and how it all is.
// It promises pages that are whole without scripts, that no name of a platform can steer, and on which an absent number is never 0.
// It must not import app, store, a collector, an executor or a platform.
package console

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/protip/protip/internal/history"
	"github.com/protip/protip/internal/inventory"
	"github.com/protip/protip/internal/web"
	"github.com/protip/protip/remediation"
	"github.com/protip/protip/rules"
	"github.com/protip/protip/rules/report"
)

// Options are what the console is made of.
type Options struct {
	Agent  web.Agent
	Past   history.Querier // nil: there is no history, and so no charts
	Trials rules.Open      // makes series for the tests of packs
	Log    *slog.Logger
}

// Console makes the pages.
type Console struct {
	o       Options
	trials  trials
	reports jobs[report.Report]
	replays jobs[[]rules.Episode]

	work    sync.WaitGroup // what goes on behind the pages
	stopped context.Context
	stop    context.CancelFunc
}

// New makes the console. It starts nothing before a page is asked for; Close ends what goes on then.
func New(o Options) *Console {
	c := &Console{o: o}
	c.stopped, c.stop = context.WithCancel(context.Background())
	turn := make(chan struct{}, 1)
	c.reports = jobs[report.Report]{what: "reports", turn: turn, stopped: c.stopped, run: c.work.Go, log: o.Log}
	c.replays = jobs[[]rules.Episode]{what: "replays", turn: turn, stopped: c.stopped, run: c.work.Go, log: o.Log}
	return c
}

// Close ends reports, replays and tests that are being made, and waits for them. No page may be asked for any more.
func (c *Console) Close() {
	c.stop()
	c.work.Wait()
}

// Routes are its pages, forms and files.
func (c *Console) Routes() []web.Route {
	page := func(path string, make func(*http.Request, *frame) (any, error), name string) web.Route {
		return web.Route{Method: http.MethodGet, Path: path, Needs: web.Viewer, Page: true, Handler: c.page(name, make)}
	}
	return append([]web.Route{
		page("/{$}", c.tips, "tips"),
		page("/tips/{id}", c.tip, "tip"),
		page("/fleet", c.fleet, "fleet"),
		page("/clusters/{id...}", c.cluster, "cluster"),
		page("/hosts/{id...}", c.host, "host"),
		page("/plan", c.hostPlan, "plan"),
		page("/vms", c.vms, "vms"),
		page("/vms/{id...}", c.vm, "vm"),
		page("/search", c.search, "search"),
		page("/actions", c.actions, "actions"),
		page("/sources", c.sources, "sources"),
		page("/reports", c.reportList, "reports"),
		page("/reports/{name}", c.report, "report"),
		page("/packs", c.packs, "packs"),
		page("/packs/{name}/replay", c.replay, "replay"),
		page("/audit", c.audit, "audit"),
		asset("/console.css", "text/css; charset=utf-8", styleCSS),
		asset("/console.js", "text/javascript; charset=utf-8", scriptJS),
		asset("/favicon.svg", "image/svg+xml", faviconSVG),
	}, c.forms()...)
}

var (
	//go:embed style.css
	styleCSS string
	//go:embed script.js
	scriptJS string
	//go:embed favicon.svg
	faviconSVG string
	//go:embed templates/*.html
	templateFiles embed.FS
)

// edition tells one build's files from another's, so that browsers may keep them.
var edition = func() string {
	sum := sha256.Sum256([]byte(styleCSS + scriptJS + faviconSVG))
	return hex.EncodeToString(sum[:6])
}()

func asset(path, contentType, text string) web.Route {
	return web.Route{Method: http.MethodGet, Path: path, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Cache-Control", "no-cache")
		if r.URL.Query().Get("v") == edition {
			w.Header().Set("Cache-Control", "max-age=31536000, immutable")
		}
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(text))
	})}
}

// templates are one set for each page: the layout with the page's own parts.
var templates = func() map[string]*template.Template {
	layout := template.Must(template.New("layout").Funcs(functions).ParseFS(templateFiles, "templates/layout.html", "templates/parts.html"))
	out := map[string]*template.Template{}
	files, err := templateFiles.ReadDir("templates")
	if err != nil {
		panic(err)
	}
	for _, file := range files {
		if name := strings.TrimSuffix(file.Name(), ".html"); name != "layout" && name != "parts" {
			out[name] = template.Must(template.Must(layout.Clone()).ParseFS(templateFiles, "templates/"+file.Name()))
		}
	}
	return out
}()

var functions = template.FuncMap{
	"moment": moment, "exactly": exactly, "clock": clockTime, "name": clean, "words": func(s any) string { return words(fmt.Sprint(s)) },
	"plural": plural, "thousands": thousands, "href": href, "bar": bar, "change": change, "stars": stars, "percent": percent,
	"quantity": quantity, "span": span, "sentence": sentence, "arrows": func(s string) string { return strings.ReplaceAll(s, "->", "→") }, "stages": stagesOf, "groupings": groupings, "silences": silences, "replays": func() []choice { return spansOf("") }, "setting": settingWords,
	"edition": func() string { return edition }, "nav": navItem, "again": again,
	"pair":    func(f *frame, v any) any { return struct{ F, V any }{f, v} },
	"hundred": func(v float64) int { return int(100 * min(max(v, 0), 1)) },
	"add":     func(a, b int) int { return a + b },
	"count":   func(n int) number { return fact(float64(n), "") },
	"oneline": func(s string) string { return strings.Join(strings.Fields(s), " ") },
	"number":  func(now time.Time, n number) template.HTML { return n.shown(now) },
}

// shown is a number in its place on a page: greyed with its time where it is no longer true, and unknown where there is none.
func (n number) shown(now time.Time) template.HTML {
	switch {
	case n.OK:
		return template.HTML(template.HTMLEscapeString(n.String()))
	case n.At.IsZero():
		return `<span class="nk">unknown</span>`
	case n.V != 0:
		return template.HTML(`<span class="old" title="last known ` + exactly(n.At) + `">` + template.HTMLEscapeString(quantity(n.V, n.Unit)) +
			` <small>at ` + clockTime(now, n.At) + `</small></span>`)
	}
	return template.HTML(`<span class="old" title="last seen ` + exactly(n.At) + `">no data since ` + clockTime(now, n.At) + `</span>`)
}

// frame is what every page shows around its own.
type frame struct {
	Title   string
	Section string
	Crumbs  []crumb
	Page    any // the page's own

	Now       time.Time
	Status    web.Status
	User      web.User
	Path      string // with the query, where a form comes back to
	Search    string
	Refresh   int    // seconds until the page loads itself again, 0 if never
	Waiting   string // why the agent is not ready, empty if it is
	Silent    []inventory.Source
	OpenTips  int
	Moving    int // actions under way
	Undecided int // actions that wait for a person's word
	Code      int // of an error page

	snap *inventory.Snapshot
	list []rules.Tip
}

// crumb is a step on the way to a page.
type crumb struct{ Name, Href string }

// HostName is what a host is called.
func (f *frame) HostName(id inventory.ID) string { return hostName(f.snap, id) }

// May reports whether the person may act.
func (f *frame) May() bool { return f.User.Role >= web.Operator }

// navItem is one entry of the navigation.
func navItem(f *frame, section, href, name string, count int) any {
	return struct {
		Href, Name string
		Count      int
		Here       bool
	}{href, name, count, f.Section == section}
}

// again is a page's address with which it loads itself again.
func again(path string) string {
	u, err := url.Parse(path)
	if err != nil {
		return "/"
	}
	return with(u.Path, u.Query(), "refresh", "30")
}

// page serves one kind of page.
func (c *Console) page(name string, build func(*http.Request, *frame) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, err := c.frame(r)
		if err == nil {
			f.Page, err = build(r, f)
		}
		if err != nil {
			code, text := c.explain(r, err)
			c.ShowError(w, r, code, text)
			return
		}
		c.write(w, r, http.StatusOK, name, f)
	})
}

// frame reads what every page shows.
func (c *Console) frame(r *http.Request) (*frame, error) {
	ctx := r.Context()
	st, err := c.o.Agent.Status(ctx)
	if err != nil {
		return nil, err
	}
	f := &frame{Status: st, Now: st.Now, User: web.UserFrom(ctx), Path: r.URL.RequestURI(), snap: c.o.Agent.Snapshot()}
	if f.list, err = c.o.Agent.Tips(ctx); err != nil {
		return nil, err
	}
	for _, t := range f.list {
		if t.State == rules.Active || t.State == rules.InProgress {
			f.OpenTips++
		}
	}
	under, err := c.o.Agent.Actions(ctx, remediation.Filter{States: underWay})
	if err != nil {
		return nil, err
	}
	for _, a := range under {
		if a.State == remediation.Unknown {
			f.Undecided++
		} else {
			f.Moving++
		}
	}
	for _, src := range f.snap.Sources() {
		if !src.Up {
			f.Silent = append(f.Silent, src)
		}
	}
	if err := c.o.Agent.Ready(ctx); err != nil {
		f.Waiting = err.Error()
	}
	switch every := r.URL.Query().Get("refresh"); every {
	case "5", "10", "30", "60":
		f.Refresh, _ = strconv.Atoi(every)
	}
	return f, nil
}

// underWay are the states of actions that are not over for a person: unknown ones wait for a word.
var underWay = []remediation.State{
	remediation.Planned, remediation.Approved, remediation.Claimed, remediation.Starting, remediation.Started, remediation.Verifying,
	remediation.Unknown,
}

// problem is a page that cannot be, in words for its reader.
type problem struct {
	code int
	text string
}

func (p problem) Error() string { return p.text }

func notFound(format string, args ...any) error {
	return problem{http.StatusNotFound, fmt.Sprintf(format, args...)}
}

func (c *Console) explain(r *http.Request, err error) (code int, text string) {
	var p problem
	switch {
	case errors.As(err, &p):
		return p.code, p.text
	case errors.Is(err, web.ErrNotFound):
		return http.StatusNotFound, err.Error()
	case errors.Is(err, web.ErrConflict):
		return http.StatusConflict, err.Error()
	case errors.Is(err, web.ErrUnavailable):
		return http.StatusServiceUnavailable, err.Error()
	}
	c.o.Log.Error("page not made", "path", r.URL.Path, "err", err)
	return http.StatusInternalServerError, "The agent could not make this page. Its log says why."
}

// ShowError writes the page of an error.
func (c *Console) ShowError(w http.ResponseWriter, r *http.Request, code int, text string) {
	f := &frame{Now: time.Now(), Path: r.URL.RequestURI()} // who may not read learns nothing from an error
	if web.UserFrom(r.Context()).Role >= web.Viewer {
		if whole, err := c.frame(r); err == nil {
			f = whole
		}
	}
	if f.Refresh = 0; r.Method == http.MethodPost {
		f.Path = back(r)
	}
	f.Code, f.Title, f.Section = code, headline(code), ""
	f.Page = text
	c.write(w, r, code, "error", f)
}

func headline(code int) string {
	switch code {
	case http.StatusNotFound:
		return "Not found"
	case http.StatusConflict:
		return "Not now"
	case http.StatusForbidden, http.StatusUnauthorized:
		return "Not allowed"
	case http.StatusServiceUnavailable:
		return "Not yet"
	case http.StatusTooManyRequests:
		return "Too many requests"
	}
	if code < 500 {
		return "Not understood"
	}
	return "Something went wrong"
}

// write makes the page before it answers, so that what fails is an error and not half a page.
func (c *Console) write(w http.ResponseWriter, r *http.Request, code int, name string, f *frame) {
	var body bytes.Buffer
	if err := templates[name].ExecuteTemplate(&body, "layout", f); err != nil {
		c.o.Log.Error("page not made", "path", r.URL.Path, "err", err)
		http.Error(w, "the page cannot be made: see the agent's log", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(bytes.ToValidUTF8(body.Bytes(), []byte("\ufffd")))
}

// asked is a page's query, refused if it has a parameter that the page does not know: a misspelt filter that is ignored would show
// everything as its answer.
func asked(r *http.Request, known ...string) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, problem{http.StatusBadRequest, "The address of this page is not well formed: " + err.Error()}
	}
	for name := range q {
		if name != "refresh" && !slices.Contains(known, name) {
			return nil, problem{http.StatusBadRequest, fmt.Sprintf("This page has no filter %q. It has: %s.", clean(name), strings.Join(known, ", "))}
		}
	}
	return q, nil
}

// one is a parameter's value, the first of those it can have if it is not given.
func one(q url.Values, name string, values ...string) (string, error) {
	v := q.Get(name)
	switch {
	case v == "":
		return values[0], nil
	case !slices.Contains(values, v):
		return "", problem{http.StatusBadRequest, fmt.Sprintf("%s cannot be %q. It is one of: %s.", name, clean(v), strings.Join(values, ", "))}
	}
	return v, nil
}

// with is a query with some parameters replaced, as a link; empty values are taken out.
func with(path string, q url.Values, pairs ...string) string {
	next := url.Values{}
	for name, values := range q {
		if len(values) > 0 && values[0] != "" {
			next.Set(name, values[0])
		}
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		if next.Del(pairs[i]); pairs[i+1] != "" {
			next.Set(pairs[i], pairs[i+1])
		}
	}
	if len(next) == 0 {
		return path
	}
	return path + "?" + next.Encode()
}
