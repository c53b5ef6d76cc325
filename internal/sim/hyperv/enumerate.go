package hyperv

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// enumeration is what is left of an answer that did not fit in one envelope.
type enumeration struct {
	user    *account
	class   *class
	columns []string
	mode    string
	rest    []*instance
}

// contexts are the enumerations that are open, by their context.
type contexts struct {
	mu   sync.Mutex
	open map[string]*enumeration
}

// maxContexts is how many enumerations may be open at all; the oldest clients' may be gone by then.
const maxContexts = 10_000

func (c *contexts) put(en *enumeration) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil || len(c.open) >= maxContexts {
		c.open = map[string]*enumeration{}
	}
	id := "uuid:" + newUUID()
	c.open[id] = en
	return id
}

// take takes an enumeration out: a context is good for one Pull.
func (c *contexts) take(id string, user *account) *enumeration {
	c.mu.Lock()
	defer c.mu.Unlock()
	en := c.open[id]
	if en == nil || en.user != user {
		return nil
	}
	delete(c.open, id)
	return en
}

func (c *contexts) of(user *account) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, en := range c.open {
		if en.user == user {
			n++
		}
	}
	return n
}

func (c *contexts) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = nil
}

// find is the class that a request names, as far as it is there.
func (e *endpoint) find(rq *request, name string) (*class, *fault) {
	if rq.namespace == "" {
		return nil, serviceFault(resourceNotFound)
	}
	if s := rq.selectors["__cimnamespace"]; s != nil && tidyNamespace(s.value()) != rq.namespace && strings.HasPrefix(rq.resource, wmiPrefix) {
		f := serviceFault(namespacesDiffer)
		f.text = "The resource URI and the __cimnamespace selector name different namespaces."
		return nil, f
	}
	if !e.schema.hasNamespace(rq.namespace) || !e.serves(rq.namespace) {
		return nil, wmiFault(wbemInvalidNamespace, rq.namespace)
	}
	cl := e.schema.class(rq.namespace, name)
	if cl == nil || e.shutters()[strings.ToLower(name)] {
		return nil, wmiFault(wbemInvalidClass, name)
	}
	return cl.without(e.shutters()), nil
}

// without is the class as a host shows it that does not have some properties: neither in a query, nor in a whole instance.
func (c *class) without(shut map[string]bool) *class {
	gone := func(property string) bool { return shut[strings.ToLower(c.name+"."+property)] }
	if len(shut) == 0 || !slices.ContainsFunc(c.order, gone) {
		return c
	}
	less := *c
	less.order = slices.DeleteFunc(slices.Clone(c.order), gone)
	return &less
}

func (e *endpoint) serves(namespace string) bool {
	if only, is := e.machine.(interface{ serves(string) bool }); is {
		return only.serves(namespace)
	}
	return true
}

// has is the property's name as the schema spells it, "" if it is absent.
func (e *endpoint) has(cl *class, property string) string {
	if e.shutters()[strings.ToLower(cl.name+"."+property)] {
		return ""
	}
	return cl.property(property)
}

// enumerate answers an Enumerate: instances of a class, or what a query selects.
func (e *endpoint) enumerate(rq *request, w *writer) *fault {
	cl, f := e.find(rq, rq.className())
	if f != nil {
		return f
	}
	en := &enumeration{user: rq.user, class: cl, mode: rq.body.child("EnumerationMode").value()}
	if rq.query != nil {
		if en.columns, f = e.columns(cl, rq); f != nil {
			return f
		}
	}
	all, f := e.machine.instances(cl)
	if f != nil {
		return f
	}
	for _, i := range all {
		if rq.query == nil || rq.query.where == nil || rq.query.where.holds(i.value) {
			en.rest = append(en.rest, i)
		}
	}
	if e.contexts.of(rq.user) >= e.opt.MaxOperations {
		return serviceFault(QuotaOperations)
	}
	w.head(e.opt.Locale, nsEnumeration+"/EnumerateResponse", newUUID(), rq)
	w.raw(`<n:EnumerateResponse>`)
	if !rq.body.has("OptimizeEnumeration") {
		w.raw(`<n:EnumerationContext>`, e.contexts.put(en), `</n:EnumerationContext></n:EnumerateResponse>`)
		w.tail()
		return nil
	}
	if f := e.batch(rq, w, en, "w:Items", EndWSManagement); f != nil {
		return f
	}
	w.raw(`</n:EnumerateResponse>`)
	w.tail()
	return nil
}

// columns checks every property that a query names, and spells them as the schema does.
func (e *endpoint) columns(cl *class, rq *request) ([]string, *fault) {
	text := rq.body.child("Filter").value()
	var columns []string
	for _, c := range rq.query.columns {
		if strings.EqualFold(c, "__PATH") || strings.EqualFold(c, "__CLASS") {
			continue
		}
		name := e.has(cl, c)
		if name == "" {
			return nil, wmiFault(wbemInvalidQuery, text)
		}
		columns = append(columns, name)
	}
	var unknown bool
	if rq.query.where != nil {
		rq.query.where.properties(func(p string) { unknown = unknown || e.has(cl, p) == "" })
	}
	if unknown {
		return nil, wmiFault(wbemInvalidQuery, text)
	}
	return columns, nil
}

// batch writes a context, and as many items as the client and the envelope allow. A context that is empty says that there is no
// more. An item that does not fit by itself is a fault.
func (e *endpoint) batch(rq *request, w *writer, en *enumeration, tag string, end EndOfSequence) *fault {
	const spare = 512 // for the context and what closes the envelope
	var items writer
	n := 0
	for n < len(en.rest) && n < rq.maxElements {
		before := items.Len()
		items.item(en.rest[n], en.columns, en.mode)
		if w.Len()+items.Len()+spare > e.limit(rq) {
			if n == 0 {
				return serviceFault(EnvelopeTooLarge)
			}
			items.Truncate(before)
			break
		}
		n++
	}
	en.rest = en.rest[n:]
	if len(en.rest) > 0 {
		w.raw(`<n:EnumerationContext>`, e.contexts.put(en), `</n:EnumerationContext>`)
	} else if end == EndWSManagement {
		w.raw(`<n:EnumerationContext/>`)
	}
	w.raw("<", tag, ">")
	w.Write(items.Bytes())
	w.raw("</", tag, ">")
	if len(en.rest) == 0 {
		if e.opt.EndOfSequence != EndByPlace {
			end = e.opt.EndOfSequence
		}
		if end == EndWSManagement {
			w.raw(`<w:EndOfSequence/>`)
		} else {
			w.raw(`<n:EndOfSequence/>`)
		}
	}
	return nil
}

func (w *writer) item(i *instance, columns []string, mode string) {
	reference := func() {
		w.raw(`<a:EndpointReference>`)
		w.reference(i.reference())
		w.raw(`</a:EndpointReference>`)
	}
	switch mode {
	case "EnumerateEPR":
		reference()
	case "EnumerateObjectAndEPR":
		w.raw(`<w:Item>`)
		w.object(i, columns)
		reference()
		w.raw(`</w:Item>`)
	default:
		w.object(i, columns)
	}
}

func (e *endpoint) pull(rq *request, w *writer) *fault {
	en := e.contexts.take(rq.body.child("EnumerationContext").value(), rq.user)
	if en == nil {
		return serviceFault(enumerationInvalid)
	}
	w.head(e.opt.Locale, nsEnumeration+"/PullResponse", newUUID(), rq)
	w.raw(`<n:PullResponse>`)
	if f := e.batch(rq, w, en, "n:Items", EndWSEnumeration); f != nil {
		return f
	}
	w.raw(`</n:PullResponse>`)
	w.tail()
	return nil
}

func (e *endpoint) release(rq *request, w *writer) *fault {
	if e.contexts.take(rq.body.child("EnumerationContext").value(), rq.user) == nil {
		return serviceFault(enumerationInvalid)
	}
	w.head(e.opt.Locale, nsEnumeration+"/ReleaseResponse", newUUID(), rq)
	w.tail()
	return nil
}

// get answers a Get: the one instance that the selectors name.
func (e *endpoint) get(rq *request, w *writer) *fault {
	cl, f := e.find(rq, rq.class)
	if f != nil {
		return f
	}
	i, f := e.selected(cl, rq.selectors)
	if f != nil {
		return f
	}
	w.head(e.opt.Locale, nsTransfer+"/GetResponse", newUUID(), rq)
	w.object(i, nil)
	w.tail()
	return nil
}

// selected is the instance whose properties are as the selectors have it. Without selectors it is the only one there is.
func (e *endpoint) selected(cl *class, selectors map[string]*element) (*instance, *fault) {
	all, f := e.machine.instances(cl)
	if f != nil {
		return nil, f
	}
	wanted := 0
	for name := range selectors {
		if name == "__cimnamespace" {
			continue
		}
		wanted++
		if cl.property(name) == "" {
			return nil, serviceFault(invalidSelectors)
		}
	}
	if wanted == 0 && len(all) != 1 {
		f := serviceFault(2150859002)
		f.sender, f.subcode = true, "w:InvalidSelectors"
		f.text = "The resource URI has no keys, and the class is no singleton."
		return nil, f
	}
	for _, i := range all {
		if i.matches(selectors) {
			return i, nil
		}
	}
	return nil, wmiFault(wbemNotFound, cl.name)
}

func (i *instance) matches(selectors map[string]*element) bool {
	for name, s := range selectors {
		if name == "__cimnamespace" {
			continue
		}
		have := i.value(name)
		if have == nil || !strings.EqualFold(keyText(have), strings.TrimSpace(s.text)) {
			return false
		}
	}
	return true
}

// invoke carries out a method of the instance that the selectors name.
func (e *endpoint) invoke(rq *request, w *writer) *fault {
	cl, f := e.find(rq, rq.class)
	if f != nil {
		return f
	}
	m, known := cl.methods[rq.verb]
	if !known {
		return wmiFault(wbemInvalidMethod, rq.verb)
	}
	if rq.body.name.Local != rq.verb+"_INPUT" || rq.body.name.Space != cl.uri() && rq.body.name.Space != rq.resource {
		f := serviceFault(invalidBody)
		f.sender, f.subcode, f.text = true, "w:SchemaValidationError", fmt.Sprintf("The body is no %s_INPUT of %s.", rq.verb, cl.uri())
		return f
	}
	for _, k := range rq.body.kids {
		if _, known := m.In[k.name.Local]; !known {
			return wmiFault(wbemInvalidParameter, rq.verb+": "+k.name.Local)
		}
	}
	if rq.user.readOnly && !reading[rq.verb] {
		return wmiFault(wbemAccessDenied, rq.verb)
	}
	target, f := e.selected(cl, rq.selectors)
	if f != nil {
		return f
	}
	out, f := e.machine.invoke(target, rq.verb, rq.body)
	if f != nil {
		return f
	}
	w.head(e.opt.Locale, rq.action+"Response", newUUID(), rq)
	w.raw(`<p:`, rq.verb, `_OUTPUT xmlns:p="`, cl.uri(), `" xmlns:xsi="`, nsInstance, `" xmlns:cim="`, nsCommon, `">`)
	for name := range m.Out {
		if _, told := out[name]; !told {
			w.property("p:"+name, nil)
		}
	}
	for name, v := range out {
		w.property("p:"+name, v)
	}
	w.raw(`</p:`, rq.verb, `_OUTPUT>`)
	w.tail()
	return nil
}

// reading are the methods that change nothing.
var reading = map[string]bool{
	"GetSummaryInformation": true, "GetError": true, "GetErrorEx": true, "CheckVirtualSystemIsMigratableToHost": true, "CheckVirtualSystemIsMigratable": true,
}
