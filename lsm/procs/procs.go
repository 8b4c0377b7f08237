package procs

import (
	"context"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// few is set before there are fewer processors than all, jobs counts what was announced and goes
// on. Whoever changes one looks at the other afterwards, so that no job begins with few.
var (
	few    atomic.Bool
	jobs   atomic.Int64
	now    atomic.Int32 // processors
	others atomic.Bool  // there was something else to do

	mu        sync.Mutex // for GOMAXPROCS and all
	all       int
	following bool
)

func init() { now.Store(int32(runtime.GOMAXPROCS(0))) }

// Now is how many processors goroutines run on. It is for use where it is called often: what the
// program sets by itself is seen when All is called.
func Now() int { return int(now.Load()) }

// All is how many processors goroutines run on while there is work for them.
func All() int {
	mu.Lock()
	defer mu.Unlock()
	if !following {
		n := runtime.GOMAXPROCS(0)
		now.Store(int32(n))
		return n
	}
	return all
}

// Begin announces work that computes for more than a few milliseconds. It returns when that has all
// processors to run on, until as many calls of End.
func Begin() {
	jobs.Add(1)
	if few.Load() {
		mu.Lock()
		setLocked(all)
		mu.Unlock()
	}
}

// End is the end of what Begin has announced.
func End() { jobs.Add(-1) }

// Other notes that the process does something else than to wait for syncs.
func Other() {
	if !others.Load() {
		others.Store(true)
	}
}

// Alone reports whether that has not been noted since the last call.
func Alone() bool { return !others.Swap(false) }

// Follow changes GOMAXPROCS to what the process needs, until ctx ends. It returns at once where
// there is one processor, where processor time cannot be measured, where GOMAXPROCS is in the
// environment, which is the user's word, and when another Follow runs. There are never more than
// at the beginning: when a container is given more later, the runtime does not take them up.
func Follow(ctx context.Context) {
	if _, set := os.LookupEnv("GOMAXPROCS"); set {
		return
	}
	used, ok := cpuTime()
	if n := All(); n == 1 || !ok || !start(n) {
		return
	}
	defer stop()
	f := fit{all: All(), now: All()}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for at := time.Now(); ; {
		timer.Reset(f.pause())
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		usedNow, ok := cpuTime()
		if !ok {
			return
		}
		over := time.Since(at)
		f.now = Now() // Begin may have changed it
		if n := f.look(float64(usedNow-used)/float64(over), over, jobs.Load() > 0); n != f.now {
			set(n)
		}
		at, used = at.Add(over), usedNow
	}
}

func start(n int) bool {
	mu.Lock()
	defer mu.Unlock()
	if following {
		return false
	}
	all, following = n, true
	return true
}

func stop() {
	mu.Lock()
	defer mu.Unlock()
	setLocked(all)
	following = false
}

// set is for the goroutine of Follow.
func set(n int) {
	mu.Lock()
	defer mu.Unlock()
	few.Store(n < all)
	if jobs.Load() > 0 {
		n = all
	}
	setLocked(n)
}

func setLocked(n int) {
	if n != int(now.Load()) {
		runtime.GOMAXPROCS(n)
		now.Store(int32(n))
	}
	few.Store(n < all) // not before there are all
}
