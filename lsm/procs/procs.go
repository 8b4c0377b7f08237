package procs

import (
	"context"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// few is set before there are fewer processors than all, jobs counts what was announced and goes
// on. Whoever changes one looks at the other afterwards, so that no job begins with few.
var (
	few  atomic.Bool
	jobs atomic.Int64
	now  atomic.Int32 // processors
	all  atomic.Int32 // while Follow runs, else 0

	// Held over GOMAXPROCS, which waits until a garbage collection has ended. So Now and All do
	// without. Only who holds it changes few.
	mu sync.Mutex
)

func init() { now.Store(int32(runtime.GOMAXPROCS(0))) }

// Now is how many processors goroutines run on. It is for use where it is called often: what the
// program sets by itself, without Follow, is seen when All is called.
func Now() int { return int(now.Load()) }

// All is how many processors goroutines run on while there is work for them.
func All() int {
	before := now.Load()
	if n := all.Load(); n > 0 {
		return int(n)
	}
	n := runtime.GOMAXPROCS(0)
	now.CompareAndSwap(before, int32(n)) // unless a Follow has begun meanwhile
	return n
}

// polled is for how long processors were busy with waiting.
var polled atomic.Int64

// Idle reports whether waiting may keep a processor busy: goroutines run on one and could have
// more.
func Idle() bool { return few.Load() && now.Load() == 1 }

// Polled tells Follow of processor time that was spent in waiting: more processors would not help.
func Polled(d time.Duration) { polled.Add(int64(d)) }

// PolledSoFar is the sum of all that Polled was told.
func PolledSoFar() time.Duration { return time.Duration(polled.Load()) }

// Begin announces work that computes for more than a few milliseconds. It returns when that has all
// processors to run on, until as many calls of End. A garbage collection that runs on fewer ends
// before.
func Begin() {
	jobs.Add(1)
	if few.Load() {
		mu.Lock()
		defer mu.Unlock()
		if few.Load() {
			setLocked(int(all.Load()))
		}
	}
}

// End is the end of what Begin has announced.
func End() { jobs.Add(-1) }

// Follow changes GOMAXPROCS to what the process needs, until ctx ends. It returns at once where
// there is one processor, on systems where package vfs cannot give processors up, where GOMAXPROCS
// is in the environment, which is the user's word, and when another Follow runs. All are as many as
// there were at the beginning, also when a container is given more or fewer later, and stay after
// the end.
func Follow(ctx context.Context) { follow(ctx, cpuTime) }

func follow(ctx context.Context, cpuTime func() (time.Duration, bool)) {
	if n, err := strconv.Atoi(os.Getenv("GOMAXPROCS")); err == nil && n > 0 {
		return
	}
	used, ok := cpuTime()
	n := All()
	if n == 1 || !ok || !all.CompareAndSwap(0, int32(n)) {
		return
	}
	runtime.GOMAXPROCS(n) // from here on the runtime leaves it as it is
	now.Store(int32(n))
	defer stop()
	f := fit{all: n, now: n}
	timer := time.NewTimer(0)
	defer timer.Stop()
	at := time.Now()
	for {
		f.now = Now()
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
		waited := manyWaited(over)
		n := f.look(float64(usedNow-used)/float64(over), over, waited || jobs.Load() > 0)
		at, used = at.Add(over), usedNow
		if n != f.now {
			set(n)
			at = time.Now() // set may have waited
			used, _ = cpuTime()
		}
	}
}

func stop() {
	mu.Lock()
	defer mu.Unlock()
	setLocked(int(all.Load()))
	all.Store(0)
}

// set is for the goroutine of Follow.
func set(n int) {
	mu.Lock()
	defer mu.Unlock()
	all := int(all.Load())
	if n < all {
		few.Store(true)
	}
	if jobs.Load() > 0 {
		n = all
	}
	setLocked(n)
}

func setLocked(n int) {
	if n != Now() {
		runtime.GOMAXPROCS(n)
		now.Store(int32(n))
	}
	few.Store(n < int(all.Load())) // not before there are all
}
