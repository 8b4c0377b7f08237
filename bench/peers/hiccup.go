package main

import (
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// hiccups measures how long the machine keeps somebody waiting who wants next to nothing: on each
// processor a thread of the otherwise idle parent process sleeps for a millisecond, again and
// again. What it oversleeps, because a virtual processor was taken away or the kernel was busy,
// somebody who was running there stood still as well, and no engine can be blamed for. (The idea is
// that of jHiccup.)
type hiccups struct {
	// Of whoever hears the child.
	done chan struct{} // nil while there is no watch
	all  sync.WaitGroup
	slow []span // writes that the child found slow

	mu     sync.Mutex
	pauses []span // of all processors, since the watch began
}

// span is a time, in seconds of Unix time.
type span struct{ from, to float64 }

func (s span) seconds() float64 { return s.to - s.from }

const (
	nap   = time.Millisecond
	pause = 5 * time.Millisecond // overslept by less is nothing
)

// start begins to note what is overslept by more than least.
func (h *hiccups) start(least time.Duration) {
	h.stop()
	done := make(chan struct{})
	h.done, h.slow, h.pauses = done, nil, nil
	for cpu := range runtime.NumCPU() {
		h.all.Go(func() { h.run(cpu, least, done) })
	}
}

// stop ends the watch, if there is one.
func (h *hiccups) stop() {
	if h.done != nil {
		close(h.done)
		h.all.Wait()
		h.done = nil
	}
}

func (h *hiccups) run(cpu int, least time.Duration, done chan struct{}) {
	runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
	var only unix.CPUSet
	only.Set(cpu)
	_ = unix.SchedSetaffinity(0, &only) // refused, it watches whatever processor there is
	sleep := unix.NsecToTimespec(int64(nap))
	for {
		select {
		case <-done:
			return
		default:
		}
		began := time.Now()
		_ = unix.Nanosleep(&sleep, nil)
		if late := time.Since(began) - nap; late > least {
			from := seconds(began.Add(nap))
			h.mu.Lock()
			h.pauses = append(h.pauses, span{from, from + late.Seconds()})
			h.mu.Unlock()
		}
	}
}

func seconds(t time.Time) float64 { return float64(t.UnixNano()) / 1e9 }

// A child says when it is to be watched, and what it found slow.
const (
	watchBegins = "watch begins"
	watchEnds   = "watch ends"
	watchSlow   = "slow write"
)

// watch has the parent process look out for hiccups until the function that it returns is called.
func (s *session) watch() (end func()) {
	s.emit(record{Name: watchBegins})
	return func() { s.emit(record{Name: watchEnds}) }
}

// hear takes a record of the child; ok says that it was for the watch.
func (h *hiccups) hear(r record, cells map[string]float64) (ok bool) {
	switch r.Name {
	case watchBegins:
		h.start(pause)
	case watchSlow:
		h.slow = append(h.slow, span{r.Value, r.Value + r.Took})
	case watchEnds:
		h.stop()
		cells[factPause] = 1e3 * longest(h.pauses)
		cells[factBlamed] = float64(blamed(h.slow, h.pauses, slowWrite.Seconds()))
	default:
		return false
	}
	return true
}

func longest(spans []span) (most float64) {
	for _, s := range spans {
		most = max(most, s.seconds())
	}
	return most
}

// blamed counts the writes that would have been slow without the pauses that they met.
func blamed(writes, pauses []span, slow float64) (n int) {
	slices.SortFunc(pauses, func(a, b span) int { return int(1e6 * (a.from - b.from)) })
	for _, w := range writes {
		left, seen := w.seconds(), w.from // seen: up to here pauses are counted
		for _, p := range pauses {
			if over := min(p.to, w.to) - max(p.from, seen); over > 0 {
				left -= over
				seen = min(p.to, w.to)
			}
		}
		if left > slow {
			n++
		}
	}
	return n
}
