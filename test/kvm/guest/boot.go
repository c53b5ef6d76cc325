//go:build linux

package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// boot makes a machine of a kernel that has just started: file systems, drivers, the network. It returns the words of the
// kernel's command line.
func boot() (map[string]string, error) {
	for _, m := range [][2]string{{"/proc", "proc"}, {"/sys", "sysfs"}, {"/dev", "devtmpfs"}} {
		if err := unix.Mount(m[1], m[0], m[1], 0, ""); err != nil {
			return nil, fmt.Errorf("mount %s: %w", m[0], err)
		}
	}
	modules, err := filepath.Glob("/modules/*")
	if err != nil {
		return nil, err
	}
	slices.Sort(modules) // they are numbered
	for _, path := range modules {
		if err := load(path); err != nil {
			return nil, fmt.Errorf("load %s: %w", path, err)
		}
	}
	text, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return nil, err
	}
	words := map[string]string{}
	for _, word := range strings.Fields(string(text)) {
		key, value, _ := strings.Cut(word, "=")
		words[key] = value
	}
	if err := link("lo", netip.Prefix{}); err != nil {
		return nil, err
	}
	addr, err := netip.ParsePrefix(words["lab.ip"])
	if err != nil {
		return nil, err
	}
	return words, link("eth0", addr)
}

func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}

// link gives an interface its address, if any, and switches it on.
func link(name string, addr netip.Prefix) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat("/sys/class/net/" + name); err == nil {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no interface %s", name)
		}
	}
	set := func(request uint, value func(*unix.Ifreq) error) error {
		r, err := unix.NewIfreq(name)
		if err == nil {
			err = value(r)
		}
		if err != nil {
			return err
		}
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s), uintptr(request), uintptr(unsafe.Pointer(r))); errno != 0 {
			return fmt.Errorf("%s: %w", name, errno)
		}
		return nil
	}
	if addr.IsValid() {
		mask := [4]byte{}
		for i := range addr.Bits() {
			mask[i/8] |= 0x80 >> (i % 8)
		}
		ip := addr.Addr().As4()
		if err := set(unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(ip[:]) }); err != nil {
			return err
		}
		if err := set(unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error { return r.SetInet4Addr(mask[:]) }); err != nil {
			return err
		}
	}
	return set(unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING); return nil })
}
