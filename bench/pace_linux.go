package bench

import (
	"syscall"
	"time"
)

// sleep sleeps for a short time. The kernel's own timer is about 60 µs late on an idle machine;
// time.Sleep was up to 1 ms late there, which would count as latency of the store.
func sleep(d time.Duration) {
	t := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&t, nil) // cut short by a signal: the caller is early by a little
}
