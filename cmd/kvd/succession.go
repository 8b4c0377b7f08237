package main

import (
	"context"
	"errors"
	"syscall"
	"time"

	"kvd/lsm"
)

// succession takes over what a node needs from the one that had it before. A process that was
// killed keeps its lock and its ports for some milliseconds, until the kernel has cleaned up behind
// it, and whoever types "kill -9 PID; kvd" wants a node and no error. So what is in use is tried
// again for a second, and then it is somebody else's. There is nothing to wait on: a blocking flock
// cannot be given up, and a port tells nobody that it is free.
type succession struct{ until time.Time }

const (
	successionWait  = time.Second
	successionPause = 5 * time.Millisecond
)

func newSuccession() *succession { return &succession{until: time.Now().Add(successionWait)} }

// take calls get until what it wants is not in use.
func take[T any](ctx context.Context, s *succession, get func() (T, error)) (T, error) {
	for {
		it, err := get()
		inUse := errors.Is(err, lsm.ErrLocked) || errors.Is(err, syscall.EADDRINUSE)
		if !inUse || time.Now().After(s.until) {
			return it, err
		}
		select {
		case <-ctx.Done():
			return it, err
		case <-time.After(successionPause):
		}
	}
}
