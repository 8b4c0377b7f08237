package main

import (
	"sync/atomic"
	"time"
)

// hiccups measures how long the machine keeps somebody waiting who wants next to nothing: a
// goroutine of the otherwise idle parent process sleeps for a millisecond, again and again. What
// it oversleeps, a virtual processor that was taken away or a kernel that was busy, no engine can
// be blamed for. (The idea is that of jHiccup.)
type hiccups struct {
	on      atomic.Bool
	longest atomic.Int64 // nanoseconds overslept, while on
	done    chan struct{}
}

func watchHiccups() *hiccups {
	h := &hiccups{done: make(chan struct{})}
	go h.run()
	return h
}

func (h *hiccups) run() {
	const nap = time.Millisecond
	for {
		select {
		case <-h.done:
			return
		default:
		}
		began := time.Now()
		time.Sleep(nap)
		if late := int64(time.Since(began) - nap); h.on.Load() && late > h.longest.Load() {
			h.longest.Store(late)
		}
	}
}

func (h *hiccups) stop() { close(h.done) }

// A child says when it is to be watched.
const (
	watchBegins = "watch begins"
	watchEnds   = "watch ends"
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
		h.longest.Store(0)
		h.on.Store(true)
	case watchEnds:
		h.on.Store(false)
		cells[factHiccup] = float64(h.longest.Load()) / 1e6
	default:
		return false
	}
	return true
}
