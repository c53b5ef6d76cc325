package capture

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"regexp"
	"strings"
	"sync"
)

// maxRequest bounds a request that is answered.
const maxRequest = 1 << 20

// Replay answers Enumerate and Pull as a captured host did: a class's pages in their order, whole, whatever a query selects
// of them, and its fault if it had one. It knows no passwords: whoever asks is let in. It is for tests.
type Replay struct {
	pages map[string][]string // by namespace and class, in lower case

	mu   sync.Mutex
	next map[string]place // where an enumeration goes on, by its context
}

type place struct {
	key  string
	page int
}

// NewReplay reads a capture.
func NewReplay(dir fs.FS) (*Replay, *Manifest, error) {
	b, err := fs.ReadFile(dir, manifestFile)
	if err != nil {
		return nil, nil, err
	}
	manifest := &Manifest{}
	if err := json.Unmarshal(b, manifest); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", manifestFile, err)
	}
	if manifest.Version != 1 {
		return nil, nil, fmt.Errorf("%s: version %d is not known", manifestFile, manifest.Version)
	}
	r := &Replay{pages: map[string][]string{}, next: map[string]place{}}
	for _, e := range manifest.Entries {
		key := keyOf(e.Namespace, e.Class)
		for _, name := range e.Pages {
			page, err := fs.ReadFile(dir, name)
			if err != nil {
				return nil, nil, err
			}
			r.pages[key] = append(r.pages[key], string(page))
		}
	}
	return r, manifest, nil
}

func keyOf(namespace, class string) string {
	return strings.ToLower(strings.ReplaceAll(namespace, `\`, "/") + ":" + class)
}

// request is what of a message decides its answer.
type request struct {
	Resource string `xml:"Header>ResourceURI"`
	Filter   string `xml:"Body>Enumerate>Filter"`
	Context  string `xml:"Body>Pull>EnumerationContext"`
	Release  *struct {
		Context string `xml:"EnumerationContext"`
	} `xml:"Body>Release"`
}

var from = regexp.MustCompile(`(?i)\bFROM\s+(\w+)`)

func (r *Replay) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	b, err := io.ReadAll(io.LimitReader(req.Body, maxRequest))
	var m request
	if err == nil {
		err = xml.Unmarshal(b, &m)
	}
	if err != nil {
		http.Error(w, "no envelope", http.StatusBadRequest)
		return
	}
	status, answer := r.answer(&m)
	w.Header().Set("Content-Type", "application/soap+xml;charset=UTF-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, answer)
}

const (
	envelopeOpen  = `<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Header/><s:Body>`
	envelopeClose = `</s:Body></s:Envelope>`
	notFound      = envelopeOpen + `<s:Fault><s:Detail><f:WSManFault xmlns:f="http://schemas.microsoft.com/wbem/wsman/1/wsmanfault" Code="2150858752"/></s:Detail></s:Fault>` + envelopeClose
)

func (r *Replay) answer(m *request) (status int, answer string) {
	if m.Release != nil {
		return http.StatusOK, envelopeOpen + envelopeClose
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	at, ok := r.next[m.Context]
	if m.Context == "" {
		at, ok = place{key: m.key()}, true
	}
	if !ok || at.page >= len(r.pages[at.key]) {
		return http.StatusInternalServerError, notFound
	}
	answer = r.pages[at.key][at.page]
	if context := contextOf(answer); context != "" {
		r.next[context] = place{at.key, at.page + 1}
	}
	if strings.Contains(answer, ":Fault>") {
		return http.StatusInternalServerError, answer
	}
	return http.StatusOK, answer
}

// key is the class that a message asks for.
func (m *request) key() string {
	_, path, _ := strings.Cut(m.Resource, "/wmi/")
	i := max(strings.LastIndexByte(path, '/'), 0)
	class := strings.TrimPrefix(path[i:], "/")
	if f := from.FindStringSubmatch(m.Filter); f != nil {
		class = f[1]
	}
	return keyOf(path[:i], class)
}

// contextOf is the context that an answer says to go on with.
func contextOf(answer string) string {
	_, rest, ok := strings.Cut(answer, "EnumerationContext>")
	context, _, _ := strings.Cut(rest, "<")
	if !ok {
		return ""
	}
	return strings.TrimSpace(context)
}
