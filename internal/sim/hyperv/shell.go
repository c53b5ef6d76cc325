package hyperv

import (
	"context"
	"encoding/base64"
	"strconv"
	"strings"
	"sync"
	"time"
)

// shells are the command shells that are open. Commands are few: echo, hostname, timeout /t N; all others are not recognized.
type shells struct {
	mu   sync.Mutex
	open map[string]*shell
}

type shell struct {
	user     *account
	commands map[string]*command
}

// command is a command that ends at a time, of which the output comes then.
type command struct {
	ends           time.Time // real time
	stdout, stderr string
	code           int
}

func (s *shells) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = nil
}

// Shells is how many command shells are open at a node.
func (c *Cluster) Shells(node string) int {
	s := &c.endpoint(node).shells
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

func (e *endpoint) shell(ctx context.Context, rq *request, w *writer) *fault {
	if rq.verb == "Receive" {
		return e.receive(ctx, rq, w)
	}
	s := &e.shells
	s.mu.Lock()
	defer s.mu.Unlock()
	if rq.verb == "Create" {
		return e.createShell(rq, w)
	}
	id, sh := s.find(rq)
	if sh == nil {
		return serviceFault(invalidSelectors)
	}
	switch rq.verb {
	case "Delete":
		delete(s.open, id)
		w.head(e.opt.Locale, nsTransfer+"/DeleteResponse", newUUID(), rq)
	case "Command":
		words := []string{rq.body.child("Command").value()}
		for _, k := range rq.body.kids {
			if k.name.Local == "Arguments" {
				words = append(words, k.value())
			}
		}
		command := newUUID()
		sh.commands[command] = e.run(strings.Join(words, " "))
		w.head(e.opt.Locale, nsShell+"/CommandResponse", newUUID(), rq)
		w.raw(`<rsp:CommandResponse><rsp:CommandId>`, command, `</rsp:CommandId></rsp:CommandResponse>`)
	case "Signal":
		delete(sh.commands, rq.body.attribute("CommandId"))
		w.head(e.opt.Locale, nsShell+"/SignalResponse", newUUID(), rq)
		w.raw(`<rsp:SignalResponse/>`)
	default:
		return serviceFault(resourceNotFound)
	}
	w.tail()
	return nil
}

func (s *shells) find(rq *request) (string, *shell) {
	selector := rq.selectors["shellid"]
	if selector == nil {
		return "", nil
	}
	id := selector.value()
	if sh := s.open[id]; sh != nil && sh.user == rq.user {
		return id, sh
	}
	return "", nil
}

func (e *endpoint) createShell(rq *request, w *writer) *fault {
	mine := 0
	for _, sh := range e.shells.open {
		if sh.user == rq.user {
			mine++
		}
	}
	if mine >= e.opt.MaxShells {
		return serviceFault(QuotaShells)
	}
	if e.shells.open == nil {
		e.shells.open = map[string]*shell{}
	}
	id := newUUID()
	e.shells.open[id] = &shell{user: rq.user, commands: map[string]*command{}}
	w.head(e.opt.Locale, nsTransfer+"/CreateResponse", newUUID(), rq)
	w.raw(`<x:ResourceCreated><a:Address>`, anonymous, `</a:Address><a:ReferenceParameters><w:ResourceURI>`, shellURI,
		`</w:ResourceURI><w:SelectorSet><w:Selector Name="ShellId">`, id, `</w:Selector></w:SelectorSet></a:ReferenceParameters></x:ResourceCreated>`,
		`<rsp:Shell><rsp:ShellId>`, id, `</rsp:ShellId><rsp:ResourceUri>`, shellURI,
		`</rsp:ResourceUri><rsp:InputStreams>stdin</rsp:InputStreams><rsp:OutputStreams>stdout stderr</rsp:OutputStreams></rsp:Shell>`)
	w.tail()
	return nil
}

func (e *endpoint) run(line string) *command {
	name, rest, _ := strings.Cut(line, " ")
	switch strings.ToLower(name) {
	case "echo":
		return &command{stdout: rest + "\r\n"}
	case "hostname":
		return &command{stdout: e.machine.name() + "\r\n"}
	case "timeout":
		n, err := strconv.Atoi(strings.TrimPrefix(strings.ToLower(rest), "/t "))
		if err != nil || n < 0 || n > 3600 {
			return &command{stderr: "ERROR: Invalid syntax.\r\n", code: 1}
		}
		return &command{ends: time.Now().Add(time.Duration(n) * time.Second)}
	}
	return &command{stderr: "'" + name + "' is not recognized as an internal or external command,\r\noperable program or batch file.\r\n", code: 1}
}

// receive is a command's output once it has ended, or w:TimedOut if that takes longer than the client allows for one answer.
func (e *endpoint) receive(ctx context.Context, rq *request, w *writer) *fault {
	id := rq.body.child("DesiredStream").attribute("CommandId")
	e.shells.mu.Lock()
	_, sh := e.shells.find(rq)
	var c *command
	if sh != nil {
		c = sh.commands[id]
	}
	e.shells.mu.Unlock()
	if c == nil {
		return serviceFault(invalidSelectors)
	}
	allowed := rq.timeout
	if allowed == 0 {
		allowed = time.Minute
	}
	if left := time.Until(c.ends); left > 0 {
		if !e.pause(ctx, min(left, allowed)) {
			return serviceFault(invalidSelectors)
		}
		if left > allowed {
			return serviceFault(OperationTimedOut)
		}
	}
	w.head(e.opt.Locale, nsShell+"/ReceiveResponse", newUUID(), rq)
	w.raw(`<rsp:ReceiveResponse>`)
	for _, stream := range []struct{ name, text string }{{"stdout", c.stdout}, {"stderr", c.stderr}} {
		open := `<rsp:Stream Name="` + stream.name + `" CommandId="` + id + `"`
		for text := stream.text; text != ""; { // in two pieces if it is long, as a real one comes
			n := min(len(text), 4096)
			w.raw(open, `>`, base64.StdEncoding.EncodeToString([]byte(text[:n])), `</rsp:Stream>`)
			text = text[n:]
		}
		w.raw(open, ` End="true"/>`)
	}
	w.raw(`<rsp:CommandState CommandId="`, id, `" State="`, nsShell, `/CommandState/Done"><rsp:ExitCode>`, strconv.Itoa(c.code),
		`</rsp:ExitCode></rsp:CommandState></rsp:ReceiveResponse>`)
	w.tail()
	return nil
}
