//go:build amd64 || arm64

package procs

import (
	"syscall"
	"time"
)

// cpuTime is the processor time of the process so far, without what it has polled for. It is there
// where package vfs gives processors up: elsewhere each sync would have the only one.
func cpuTime() (time.Duration, bool) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, false
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano() - polled.Load()), true
}
