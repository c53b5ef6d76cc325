//go:build linux

package kvm

import (
	"net"
	"strings"
	"sync"
	"time"
)

// ticks hears the guests' datagrams. Some may be lost on their way; what matters is when nobody came.
type ticks struct {
	conn  net.PacketConn
	mu    sync.Mutex
	heard map[string][]time.Time
}

func listen(addr string) (*ticks, error) {
	conn, err := net.ListenPacket("udp", addr)
	if err != nil {
		return nil, err
	}
	s := &ticks{conn: conn, heard: map[string][]time.Time{}}
	go s.hear()
	return s, nil
}

func (s *ticks) close() { s.conn.Close() }

func (s *ticks) hear() {
	b := make([]byte, 256)
	for {
		n, _, err := s.conn.ReadFrom(b)
		if err != nil {
			return
		}
		name, _, _ := strings.Cut(string(b[:n]), " ")
		s.mu.Lock()
		s.heard[name] = append(s.heard[name], time.Now())
		s.mu.Unlock()
	}
}

// longest is the longest time between two ticks of a guest, of which the later came after from.
func (s *ticks) longest(name string, from time.Time) (longest time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	heard := s.heard[name]
	for i := 1; i < len(heard); i++ {
		if heard[i].After(from) {
			longest = max(longest, heard[i].Sub(heard[i-1]))
		}
	}
	return longest
}
