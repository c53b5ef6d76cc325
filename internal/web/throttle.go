package web

import (
	"fmt"
	"hash/maphash"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// throttle slows guessing down. Each key has a number of tries, which come back with time. Keys share a fixed number of buckets by a hash
// that nobody outside can foresee: memory is bounded, and there is nothing to push out. Its methods may be called from any goroutine.
type throttle struct {
	tries float64
	every time.Duration // in which a try comes back
	seed  maphash.Seed

	mu      sync.Mutex
	buckets [4096]bucket
}

type bucket struct {
	spent float64
	at    time.Time
}

func newThrottle(tries int, every time.Duration) *throttle {
	return &throttle{tries: float64(tries), every: every, seed: maphash.MakeSeed()}
}

// take spends one try of the key, or says how long until there is one.
func (t *throttle) take(key string) (wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b, now := t.of(key), time.Now()
	b.spent = max(0, b.spent-float64(now.Sub(b.at))/float64(t.every))
	b.at = now
	if over := b.spent + 1 - t.tries; over > 0 {
		return time.Duration(over * float64(t.every))
	}
	b.spent++
	return 0
}

// giveBack returns a try that was no guess.
func (t *throttle) giveBack(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.of(key)
	b.spent = max(0, b.spent-1)
}

func (t *throttle) of(key string) *bucket {
	return &t.buckets[maphash.String(t.seed, key)%uint64(len(t.buckets))]
}

// guesses are the throttles of failed logins. A name has more tries than an address, so that one address cannot keep its owner out.
type guesses struct{ byRemote, byName *throttle }

func newGuesses() guesses {
	return guesses{byRemote: newThrottle(10, 30*time.Second), byName: newThrottle(30, 10*time.Second)}
}

// remoteKey is the address that a request comes from, of IPv6 the network: who has one address there has all of them.
func remoteKey(r *http.Request) string {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	ip := at.Addr().Unmap()
	if ip.Is6() {
		if network, err := ip.WithZone("").Prefix(64); err == nil {
			return network.String()
		}
	}
	return ip.String()
}

// tooMany refuses a try and says when the next one may be made.
func tooMany(w http.ResponseWriter, wait time.Duration) *apiError {
	seconds := int(math.Ceil(wait.Seconds()))
	w.Header().Set("Retry-After", strconv.Itoa(seconds))
	return &apiError{http.StatusTooManyRequests, "too_many_requests", fmt.Sprintf("too many failed logins: try again in %d s", seconds), nil}
}
