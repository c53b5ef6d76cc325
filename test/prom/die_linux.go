package prom

import (
	"os/exec"
	"syscall"
)

// dieWithParent makes the kernel end the program when the test's process is gone, however that ended.
func dieWithParent(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
