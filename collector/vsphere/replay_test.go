package vsphere

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/protip/protip/internal/sim"
	"github.com/protip/protip/internal/sim/load"
)

// serveVMs is set in the process that serves recorded answers: how many VMs there are.
const serveVMs = "PROTIP_TEST_SERVE_VMS"

// recorder stands before a simulated vCenter. What it was asked once it answers from memory, so that neither its own work nor the
// simulator's is that of the process which is measured. It speaks HTTP without TLS.
type recorder struct {
	vc     *sim.VCenter
	client *http.Client

	mu       sync.Mutex
	answers  map[string][]byte // whole, by the request
	perf     map[string][]byte // the samples of one object, by counters and object, with at for their times
	at       time.Time         // of the newest sample
	last     [][]byte          // the answers that were given since the last step
	sent     int               // bytes of them, and of their requests
	changing bool              // deltas come from the simulator
	live     bool              // the newest sample is the one that a vCenter would have now
}

const atPlaceholder = "@@@"

var (
	perfEntity = regexp.MustCompile(`<entity type="(?:VirtualMachine|HostSystem)">([^<]*)</entity>`)
	perfIDs    = regexp.MustCompile(`<counterId>\d+</counterId>`)
	perfTimes  = regexp.MustCompile(`<sampleInfoCSV>[^<]*</sampleInfoCSV>`)
	perfValue  = regexp.MustCompile(`(</id><value>)(\d*)(</value>)`)
	viewOf     = regexp.MustCompile(`session\[[^<]*`)
	bodyMethod = regexp.MustCompile(`<(?:\w+:)?Body[^>]*><(\w+)`)
)

// BenchmarkServeRecorded is the process that serves other benchmarks; it ends with its standard input, and measures nothing.
func BenchmarkServeRecorded(b *testing.B) {
	vms, err := strconv.Atoi(os.Getenv(serveVMs))
	if err != nil {
		b.Skip("serves other benchmarks")
	}
	vc, err := sim.StartVCenter(sim.Config{
		Clusters: sim.Uniform(vms/10, vms),
		Load:     load.Func(func(vm int, t time.Time) load.Use { return load.Around(vm, 0.05+float64(vm*7919%89)/100) }),
	})
	if err != nil {
		b.Fatal(err)
	}
	defer vc.Close()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(vc.CAPEM())
	r := &recorder{
		vc: vc, client: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}},
		answers: map[string][]byte{}, perf: map[string][]byte{}, at: time.Now().Add(-2 * time.Hour).Truncate(20 * time.Second),
	}
	server := httptest.NewServer(r)
	defer server.Close()
	fmt.Printf("serving %s\n", server.URL)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	switch req.URL.Path {
	case "/step": // to the next sample
		r.mu.Lock()
		r.at, r.last, r.sent = r.at.Add(20*time.Second), nil, 0
		r.mu.Unlock()
	case "/live": // no steps, but time
		r.mu.Lock()
		r.live = true
		r.mu.Unlock()
	case "/change": // the names of one VM in a hundred
		r.changing = true
		for i, vm := range r.vc.VMs() {
			if i%100 == 0 {
				if err := r.vc.Rename(vm, fmt.Sprintf("vm-%05d-%d", i, time.Now().UnixMilli()%1000)); err != nil {
					http.Error(w, err.Error(), http.StatusInternalServerError)
				}
			}
		}
	case "/sent":
		r.mu.Lock()
		defer r.mu.Unlock()
		fmt.Fprintln(w, len(r.last), r.sent)
	case "/last":
		i, _ := strconv.Atoi(req.URL.RawQuery)
		r.mu.Lock()
		answer := r.last[i]
		r.mu.Unlock()
		send(w, answer)
	default:
		r.soap(w, req)
	}
}

func send(w http.ResponseWriter, answer []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	_, _ = w.Write(answer)
}

func (r *recorder) soap(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	method := ""
	if m := bodyMethod.FindSubmatch(body); m != nil {
		method = string(m[1])
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var answer []byte
	switch method {
	case "QueryPerf":
		answer = r.queryPerf(req, body)
	case "RetrievePropertiesEx", "ContinueRetrievePropertiesEx", "WaitForUpdatesEx":
		key := viewOf.ReplaceAllString(string(body), "session")
		if answer = r.answers[key]; answer == nil || r.changing {
			_, answer = r.forward(nil, req, body)
			r.answers[key] = answer
		}
	default:
		var status int
		if status, answer = r.forward(w, req, body); status != http.StatusOK {
			w.WriteHeader(status)
		}
		_, _ = w.Write(answer)
		return
	}
	if !r.live {
		r.last = append(r.last, answer)
	}
	r.sent += len(body) + len(answer)
	send(w, answer)
}

// forward asks the simulator.
func (r *recorder) forward(w http.ResponseWriter, req *http.Request, body []byte) (int, []byte) {
	next, err := http.NewRequest(http.MethodPost, r.vc.URL().String(), bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	next.Header = req.Header.Clone()
	next.Header.Del("Accept-Encoding")
	res, err := r.client.Do(next)
	if err != nil {
		panic(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		panic(err)
	}
	if w != nil {
		for _, cookie := range res.Header.Values("Set-Cookie") {
			w.Header().Add("Set-Cookie", strings.ReplaceAll(cookie, "; Secure", ""))
		}
	}
	return res.StatusCode, answer
}

// queryPerf puts an answer together of what was recorded for each object: two samples, of which the first was in the answer before.
func (r *recorder) queryPerf(req *http.Request, body []byte) []byte {
	if r.live {
		r.at, r.last = time.Now().Truncate(20*time.Second), nil
	}
	first, rest, _ := bytes.Cut(body, []byte("</querySpec>"))
	ids := string(bytes.Join(perfIDs.FindAll(first, -1), nil))
	vms := perfEntity.FindAllSubmatch(body, -1)
	for _, vm := range vms {
		if r.perf[ids+string(vm[1])] == nil {
			r.record(req, append(append(first, "</querySpec>"...), rest...), ids)
			break
		}
	}
	at := []byte(fmt.Sprintf("20,%s,20,%s", r.at.Add(-20*time.Second).UTC().Format(time.RFC3339), r.at.UTC().Format(time.RFC3339)))
	var b bytes.Buffer
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>` + "\n" + `<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body><QueryPerfResponse xmlns="urn:vim25">`)
	for _, vm := range vms {
		b.Write(bytes.Replace(r.perf[ids+string(vm[1])], []byte(atPlaceholder), at, 1))
	}
	b.WriteString(`</QueryPerfResponse></soapenv:Body></soapenv:Envelope>`)
	return b.Bytes()
}

// record asks the simulator for objects and keeps the newest sample of each, twice.
func (r *recorder) record(req *http.Request, body []byte, ids string) {
	body = regexp.MustCompile(`<maxSample>\d+</maxSample>`).ReplaceAll(body, []byte("<maxSample>1</maxSample>"))
	status, answer := r.forward(nil, req, body)
	if status != http.StatusOK {
		panic(fmt.Sprintf("QueryPerf: %d %s", status, answer))
	}
	for i, part := range bytes.SplitAfter(answer, []byte("</returnval>")) {
		vm := perfEntity.FindSubmatch(part)
		if vm == nil {
			continue
		}
		if i == 0 {
			part = part[bytes.Index(part, []byte("<returnval")):]
		}
		part = perfTimes.ReplaceAll(part, []byte("<sampleInfoCSV>"+atPlaceholder+"</sampleInfoCSV>"))
		r.perf[ids+string(vm[1])] = perfValue.ReplaceAll(part, []byte("$1$2,$2$3"))
	}
}

// served is the process that serves.
type served struct {
	b   *testing.B
	url string
	cmd *exec.Cmd
	in  io.Closer
}

// serve starts a process that serves as many VMs until the benchmark ends.
func serve(b *testing.B, vms int) *served {
	cmd := exec.Command(os.Args[0], "-test.run=^$", "-test.bench=^BenchmarkServeRecorded$", "-test.benchtime=1x", "-test.timeout=0")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", serveVMs, vms))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	s := &served{b: b, cmd: cmd, in: in}
	b.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if _, url, ok := strings.Cut(lines.Text(), "serving "); ok {
			s.url = url
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return s
		}
	}
	b.Fatal("the process that serves ended")
	return nil
}

// get tells the serving process something.
func (s *served) get(path string) string {
	res, err := http.Get(s.url + path)
	if err != nil {
		s.b.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		s.b.Fatalf("%s: %s %s %v", path, res.Status, text, err)
	}
	return string(text)
}

// sent is how many answers were given since the last step, and the bytes of them and their requests.
func (s *served) sent() (answers, bytes int) {
	if _, err := fmt.Sscan(s.get("/sent"), &answers, &bytes); err != nil {
		s.b.Fatal(err)
	}
	return answers, bytes
}
