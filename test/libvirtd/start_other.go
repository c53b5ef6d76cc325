//go:build !linux

package libvirtd

import "syscall"

// credential is for Linux only, as the daemon is.
func credential() *syscall.SysProcAttr { return nil }
