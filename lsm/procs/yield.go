package procs

import (
	"runtime"
	"sync/atomic"
	"time"
)

// Yielder is how one goroutine of background work offers its processor to others, between steps of
// some 50 us, and gets its share all the same. The zero Yielder is ready.
//
// Goroutines that compute without a pause, readers of what is cached say, have a processor for 10
// ms each when it is their turn. With two of them on two processors, a flush that yielded after
// each step got on by one step in 10 ms: writers stood still for seconds. So a yield that took
// long, one in which somebody had a turn, is followed by a turn without. Turns of other Yielders do
// not count: one disturbance would have all of them take turns for ever.
//
// In such a turn others wait, a writer whose pause is over or who was preempted, and timers. So
// there is none while long yields take less than a quarter of the time: when each earned one, of 9
// million overwrites beside two merges and a flush 144 took longer than 20 ms, and 103 with such a
// rule.
type Yielder struct {
	turn    time.Duration // of work, till the next yield
	looked  time.Time
	starved time.Duration // what long yields took, less a third of the work since
}

const (
	// longYield is what a yield takes when somebody had a turn. Others who yield are faster.
	longYield = 2 * time.Millisecond
	// turnMax is what the Go scheduler leaves a goroutine that does not yield.
	turnMax = 10 * time.Millisecond
	// stepMax is what counts of a step at most: one that took longer waited for a processor or for
	// the disk.
	stepMax = time.Millisecond
	// starvedLeast is where turns begin: at the third of three yields of 10 ms or more, not with
	// one pause of the machine. starvedMost bounds how long a Yielder remembers.
	starvedLeast = 25 * time.Millisecond
	starvedMost  = 40 * time.Millisecond
)

// turns is the work of all Yielders in their turns, in nanoseconds.
var turns atomic.Int64

// Yield lets others run, unless it is this goroutine's turn.
func (y *Yielder) Yield() {
	if now := time.Now(); y.due(now) {
		before := turns.Load()
		runtime.Gosched()
		theirs := time.Duration(turns.Load()-before) / time.Duration(Now()) // on one of them
		y.resume(now, time.Now(), theirs)
	}
}

// due counts the work since the last look, and reports whether the turn is over.
func (y *Yielder) due(now time.Time) bool {
	step := min(now.Sub(y.looked), stepMax)
	y.looked = now
	y.starved = max(0, y.starved-step/3)
	if y.turn <= 0 {
		return true
	}
	turns.Add(int64(step))
	y.turn -= step
	return false
}

// resume notes how long others ran, and how much of that were turns of Yielders.
func (y *Yielder) resume(began, ended time.Time, theirs time.Duration) {
	y.looked = ended
	took := min(ended.Sub(began)-theirs, turnMax)
	if took < longYield {
		return
	}
	if y.starved = min(y.starved+took, starvedMost); y.starved >= starvedLeast {
		y.turn = took
	}
}
