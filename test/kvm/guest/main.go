//go:build linux

// Guest is process 1 of the labs' virtual machines: a counter that lives in memory, a switchable load and a small service.
// It promises that whatever a live migration breaks shows: a tick that is missing, memory that changed, a service that stalled.
// It must not import anything of ours: it is all that runs in the guest.
package main

import (
	"crypto/sha256"
	"fmt"
	"log"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// tick is the counter's step; every tick goes out as a datagram, every tenth to the console.
const tick = 10 * time.Millisecond

func main() {
	words, err := boot()
	if err != nil {
		log.Fatalf("boot: %v", err)
	}
	console, err := os.OpenFile("/dev/ttyS0", os.O_RDWR, 0)
	if err != nil {
		log.Fatal(err)
	}
	g := newGuest(words["lab.name"])
	go g.burn()
	go g.work()
	http.HandleFunc("POST /burn", g.setShare)
	http.HandleFunc("GET /state", g.state)
	http.HandleFunc("GET /metrics", g.metrics)
	http.HandleFunc("POST /panic", func(http.ResponseWriter, *http.Request) { os.Exit(1) }) // the end of process 1 is a kernel panic
	go func() { log.Fatal(http.ListenAndServe(":9100", nil)) }()
	var udp net.Conn
	if addr := words["lab.ticks"]; addr != "" {
		if udp, err = net.Dial("udp", addr); err != nil {
			log.Fatal(err)
		}
	}
	for range time.Tick(tick) {
		n := g.ticks.Add(1)
		if n%10 == 0 {
			fmt.Fprintf(console, "tick %s %d\n", g.name, n)
		}
		if udp != nil {
			fmt.Fprintf(udp, "%s %d", g.name, n) // what is lost here, the console has
		}
	}
}

// guest is what a migration has to carry over.
type guest struct {
	name   string
	uuid   string
	ticks  atomic.Int64
	share  atomic.Uint64 // of the CPU that burn takes, as the bits of a float64
	canary []byte        // written once; a page that is lost or stale changes its sum
	sum    [sha256.Size]byte

	served  atomic.Int64
	latency atomic.Uint64 // seconds, of the last request served, as bits
	total   atomic.Uint64 // seconds, of all
}

func newGuest(name string) *guest {
	uuid, _ := os.ReadFile("/sys/class/dmi/id/product_uuid")
	g := &guest{name: name, uuid: strings.TrimSpace(string(uuid)), canary: make([]byte, 8<<20)}
	block := sha256.Sum256([]byte(name))
	for i := 0; i < len(g.canary); i += 4096 {
		block = sha256.Sum256(block[:])
		copy(g.canary[i:], block[:])
	}
	g.sum = sha256.Sum256(g.canary)
	return g
}

// burn wants a core for a share of the time, in turns of random lengths, so that two guests on one core get in each other's way as
// often as chance has it. A turn ends by the clock: what a guest got and what it waited for make the share together.
func (g *guest) burn() {
	block := []byte(g.name)
	for {
		share := math.Float64frombits(g.share.Load())
		turn := time.Duration(20+rand.IntN(160)) * time.Millisecond
		for busy := time.Now().Add(time.Duration(share * float64(turn))); time.Now().Before(busy); {
			sum := sha256.Sum256(block)
			block = sum[:]
		}
		time.Sleep(time.Duration((1 - share) * float64(turn)))
	}
}

// work is a service with one client: it serves a request of some milliseconds of CPU, five times a second. A request has waited since it
// was due: whoever has to wait for a core, or stands still, is slow.
func (g *guest) work() {
	block := make([]byte, 4096)
	for due := time.Now(); ; due = due.Add(200 * time.Millisecond) {
		time.Sleep(time.Until(due))
		for range 40 {
			sum := sha256.Sum256(block)
			copy(block, sum[:])
		}
		took := time.Since(due).Seconds()
		g.latency.Store(math.Float64bits(took))
		g.total.Store(math.Float64bits(math.Float64frombits(g.total.Load()) + took))
		g.served.Add(1)
	}
}

func (g *guest) setShare(w http.ResponseWriter, r *http.Request) {
	share, err := strconv.ParseFloat(r.FormValue("share"), 64)
	if err != nil || !(share >= 0 && share <= 1) {
		http.Error(w, "share is a number from 0 to 1", http.StatusBadRequest)
		return
	}
	g.share.Store(math.Float64bits(share))
}

// state is the counter, and whether memory is what it was.
func (g *guest) state(w http.ResponseWriter, _ *http.Request) {
	memory := "whole"
	if sha256.Sum256(g.canary) != g.sum {
		memory = "changed"
	}
	fmt.Fprintf(w, "%d %s\n", g.ticks.Load(), memory)
}

func (g *guest) metrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	fmt.Fprintf(w, `# HELP node_dmi_info The machine's identity.
# TYPE node_dmi_info gauge
node_dmi_info{product_uuid=%q} 1
# HELP lab_ticks_total Ticks of 10 ms since the guest was started.
# TYPE lab_ticks_total counter
lab_ticks_total %d
# HELP lab_burn_ratio Share of a core that the burner takes.
# TYPE lab_burn_ratio gauge
lab_burn_ratio %v
# HELP lab_request_latency_seconds How long the last request took.
# TYPE lab_request_latency_seconds gauge
lab_request_latency_seconds %v
# HELP lab_request_duration_seconds How long requests took.
# TYPE lab_request_duration_seconds summary
lab_request_duration_seconds_sum %v
lab_request_duration_seconds_count %d
`, g.uuid, g.ticks.Load(), math.Float64frombits(g.share.Load()), math.Float64frombits(g.latency.Load()),
		math.Float64frombits(g.total.Load()), g.served.Load())
}
