package procs

import (
	"sync/atomic"
	"time"
)

// waits is how often goroutines have waited for a disk since Follow looked last.
var waits atomic.Int64

// Waited notes that a goroutine has waited for a disk while others did too.
func Waited() { waits.Add(1) }

// waitEvery is how often that happens where all processors are needed. Goroutines that wait hold
// processors for a while and use little of them, so what they use does not tell: 64 callers over a
// network who read from a disk got 8 thousand pairs a second with one processor, which was said to
// be enough, and 13 with two.
//
// Tried and lost: four times as many processors as there are, so that who waits keeps his, with
// more than 2000 waits a second and processor. 64 readers in one process got 75 thousand instead
// of 47, but callers over a network, who wait for much else, no more by 64 and a third less by 16.
const waitEvery = time.Millisecond

// manyWaited reports whether many have in the time since it was last called.
func manyWaited(over time.Duration) bool {
	return waits.Swap(0) > int64(over/waitEvery)
}
