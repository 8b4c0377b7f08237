package simnet

import (
	"container/heap"
	"hash"
	"hash/fnv"
	"math/rand/v2"
	"time"
)

// Faults are what a network does to messages.
type Faults struct {
	Delay  time.Duration // of every message, at least
	Jitter time.Duration // and up to so much more, each for itself: messages overtake each other
	Loss   float64       // probability that a message is lost
	Double float64       // probability that it arrives twice
}

// Net is a simulated network with its clock. Not for concurrent use.
type Net struct {
	Rand   *rand.Rand // the one source of everything drawn
	Faults Faults

	now    time.Duration
	queue  events
	number uint64 // of events: order among those of one moment
	cut    map[[2]string]bool
	trace  hash.Hash64

	Delivered, Lost uint64
}

// New returns a network that decides by seed.
func New(seed uint64) *Net {
	return &Net{
		Rand:  rand.New(rand.NewPCG(seed, 0x6b7664)),
		cut:   make(map[[2]string]bool),
		trace: fnv.New64a(),
	}
}

// Now is the virtual time since New.
func (n *Net) Now() time.Duration { return n.now }

// After calls fn when d has passed.
func (n *Net) After(d time.Duration, fn func()) {
	n.number++
	heap.Push(&n.queue, event{n.now + max(d, 0), n.number, fn})
}

// Run lets time pass until the moment, or until nothing is left to happen.
func (n *Net) Run(until time.Duration) {
	for len(n.queue) > 0 && n.queue[0].at <= until {
		e := heap.Pop(&n.queue).(event)
		n.now = e.at
		e.fn()
	}
	n.now = max(n.now, until)
}

// Cut stops what from sends to to. The other direction is not affected.
func (n *Net) Cut(from, to string) { n.cut[[2]string{from, to}] = true }

// Heal ends all cuts.
func (n *Net) Heal() { clear(n.cut) }

// IsCut reports whether what from sends to to is stopped.
func (n *Net) IsCut(from, to string) bool { return n.cut[[2]string{from, to}] }

// Send has msg delivered, or not. A message that is under way when a cut begins is lost when the
// cut is still there at its arrival.
func (n *Net) Send(from, to string, msg []byte, deliver func([]byte)) {
	times := 1
	if n.Rand.Float64() < n.Faults.Loss {
		times = 0
	}
	if times > 0 && n.Rand.Float64() < n.Faults.Double {
		times = 2
	}
	if times == 0 {
		n.Lost++
	}
	for range times {
		d := n.Faults.Delay
		if n.Faults.Jitter > 0 {
			d += time.Duration(n.Rand.Int64N(int64(n.Faults.Jitter)))
		}
		n.After(d, func() {
			if n.IsCut(from, to) {
				n.Lost++
				return
			}
			n.Delivered++
			n.Trace(from, to, string(msg))
			deliver(msg)
		})
	}
}

// Trace adds something that happened to the hash.
func (n *Net) Trace(what ...string) {
	var b [8]byte
	for i := range b {
		b[i] = byte(n.now >> (8 * i))
	}
	n.trace.Write(b[:])
	for _, s := range what {
		n.trace.Write([]byte(s))
		n.trace.Write([]byte{0})
	}
}

// Hash is that of everything that has happened.
func (n *Net) Hash() uint64 { return n.trace.Sum64() }

type event struct {
	at     time.Duration
	number uint64
	fn     func()
}

// events is a heap by time, then by number.
type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].number < q[j].number
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(event)) }
func (q *events) Pop() any {
	old := *q
	x := old[len(old)-1]
	old[len(old)-1] = event{}
	*q = old[:len(old)-1]
	return x
}
