//go:build linux

package kvm

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// modules are the guest's drivers, in the order in which they need each other.
var modules = []string{
	"virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_balloon", "failover", "net_failover", "virtio_net",
}

// initramfs is the guests' whole system: the guest program as process 1, and the kernel's modules.
func initramfs(dir string) ([]byte, error) {
	program := filepath.Join(dir, "guest")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "./test/kvm/guest")
	cmd.Dir = checkout()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the guest program: %w\n%s", err, out)
	}
	var b bytes.Buffer
	zipped, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	a := &archive{}
	for _, name := range []string{"dev", "proc", "sys", "modules"} {
		a.add(name, 0o040755, nil)
	}
	a.device("dev/console", 5, 1) // or nobody would see why process 1 ended
	if err := a.addFile("init", program); err != nil {
		return nil, err
	}
	for i, name := range modules {
		found, err := filepath.Glob(filepath.Join(tree(), "lib", "modules", "*", "kernel", "*", "*", name+".ko"))
		if err != nil || len(found) != 1 {
			return nil, fmt.Errorf("kernel module %s: found %v, %w", name, found, err)
		}
		if err := a.addFile(fmt.Sprintf("modules/%02d-%s.ko", i, name), found[0]); err != nil {
			return nil, err
		}
	}
	a.add("TRAILER!!!", 0, nil)
	if _, err := zipped.Write(a.b.Bytes()); err != nil {
		return nil, err
	}
	err = zipped.Close()
	return b.Bytes(), err
}

// archive is a cpio archive in the format that the kernel takes: "newc".
type archive struct {
	b     bytes.Buffer
	inode int
}

func (a *archive) addFile(name, path string) error {
	content, err := os.ReadFile(path)
	if err == nil {
		a.add(name, 0o100755, content)
	}
	return err
}

func (a *archive) add(name string, mode int, content []byte) { a.entry(name, mode, 0, 0, content) }

func (a *archive) device(name string, major, minor int) { a.entry(name, 0o020600, major, minor, nil) }

func (a *archive) entry(name string, mode, major, minor int, content []byte) {
	a.inode++
	a.b.WriteString("070701")
	for _, field := range []int{a.inode, mode, 0, 0, 1, 0, len(content), 0, 0, major, minor, len(name) + 1, 0} {
		fmt.Fprintf(&a.b, "%08x", field)
	}
	a.b.WriteString(name + "\x00")
	a.pad()
	a.b.Write(content)
	a.pad()
}

// pad fills up to four bytes.
func (a *archive) pad() {
	for a.b.Len()%4 != 0 {
		a.b.WriteByte(0)
	}
}
