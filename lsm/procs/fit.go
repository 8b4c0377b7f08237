package procs

import (
	"math"
	"time"
)

const (
	// fill is how busy fewer processors may become. Threads that look for work in vain are part of
	// what is measured with all; on one there are none.
	fill = 0.75
	// full is how busy processors are that do not suffice. It is above fill, so that what was just
	// enough does not become too little by chance.
	full = 0.9
	// idle is the use at which a process saves nothing by fewer processors: all of them need no
	// frequent looks.
	idle = 0.02

	patience = 150 * time.Millisecond // that fewer must have been enough
	pauseAll = 50 * time.Millisecond  // between looks while there are all processors
	pauseFew = 20 * time.Millisecond  // otherwise

	// late is how long after the last one a look comes, with few processors, if the goroutine that
	// looks has to wait for others, or its thread for those of other processes.
	late = 50 * time.Millisecond
)

// fit decides how many processors are enough.
type fit struct {
	all, now int
	other    time.Duration // for which another number would have been right
	most     int           // the largest of those numbers
}

func (f *fit) pause() time.Duration {
	if f.now < f.all {
		return pauseFew
	}
	return pauseAll
}

// look returns how many processors there should be, given how many were busy on average over the
// time since the last look, and whether work was announced.
func (f *fit) look(used float64, over time.Duration, announced bool) int {
	want := min(f.all, max(1, int(math.Ceil(used/fill))))
	few := f.now < f.all
	switch {
	case announced, used > full*float64(f.now), few && over > late:
		f.other, f.most = 0, 0
		return f.all
	case used < idle:
		want = f.all
	}
	if want == f.now {
		f.other, f.most = 0, 0
		return f.now
	}
	f.other, f.most = f.other+over, max(f.most, want)
	if f.other < patience {
		return f.now
	}
	want = f.most
	f.other, f.most = 0, 0
	return want
}
