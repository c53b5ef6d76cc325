package libvirtd

import (
	"os"
	"syscall"
)

// credential makes the daemon an ordinary user's, and the kernel end it when the test's process is gone, however that ended.
func credential() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Getuid() == 0 {
		attr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	return attr
}
