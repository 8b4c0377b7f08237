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
const waitEvery = time.Millisecond

// manyWaited reports whether many have in the time since it was last called.
func manyWaited(over time.Duration) bool {
	return waits.Swap(0) > int64(over/waitEvery)
}
