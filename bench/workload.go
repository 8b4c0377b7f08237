package bench

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Kind is what one operation does.
type Kind uint8

// The kinds of operation. A read-modify-write is one operation: a Get, then a Put of a new value.
const (
	Read Kind = iota
	Update
	Insert
	Scan
	ReadModifyWrite
	Ping
	kindCount
)

var kindNames = [kindCount]string{"read", "update", "insert", "scan", "rmw", "ping"}

func (k Kind) String() string { return kindNames[k] }

// Order says how an operation finds its key.
type Order uint8

// The orders. Zipfian is scrambled: the hot keys lie scattered over the whole space.
const (
	Uniform    Order = iota // any loaded key, all alike
	Zipfian                 // few loaded keys get most requests
	Latest                  // the keys inserted last get most requests
	Absent                  // keys that do not exist, between those that do
	Sequential              // every loaded key once, in key order
	Shuffled                // every loaded key once, in random order
)

// Workload is a named mix of operations. The shares of kinds sum to 1.
type Workload struct {
	Name, About string
	Order       Order
	Share       [kindCount]float64
	ScanMin     int  // pairs per scan, drawn evenly from [ScanMin, ScanMax]; -1 = to the end
	ScanMax     int  // 0 = Spec.ScanKeys
	Fill        bool // writes each loaded key once, then ends
	Writer      bool // one more worker updates random keys all the while
	NeedsData   bool // expects the loaded keys to be there
}

// Workloads are all there are, in the order in which they are usually run. The six of YCSB are the
// core workloads of Cooper et al., "Benchmarking cloud serving systems with YCSB" (SoCC 2010).
func Workloads() []Workload {
	only := func(k Kind) (s [kindCount]float64) { s[k] = 1; return s }
	both := func(a Kind, share float64, b Kind) (s [kindCount]float64) {
		s[a], s[b] = share, 1-share
		return s
	}
	return []Workload{
		{Name: "fillseq", About: "write every key once, in order",
			Order: Sequential, Share: only(Insert), Fill: true},
		{Name: "fillrandom", About: "write every key once, in random order",
			Order: Shuffled, Share: only(Insert), Fill: true},
		{Name: "overwrite", About: "write keys that exist, at random",
			Share: only(Update), NeedsData: true},
		{Name: "readrandom", About: "read keys that exist, at random",
			Share: only(Read), NeedsData: true},
		{Name: "readmissing", About: "read keys that do not exist",
			Order: Absent, Share: only(Read), NeedsData: true},
		{Name: "readzipfian", About: "read keys that exist, few of them most of the time",
			Order: Zipfian, Share: only(Read), NeedsData: true},
		{Name: "scan", About: "seek a random key and read the pairs that follow",
			Share: only(Scan), NeedsData: true},
		{Name: "fullscan", About: "read every pair in order; one operation is one pass",
			Order: Sequential, Share: only(Scan), ScanMin: -1, ScanMax: -1, NeedsData: true},
		{Name: "mixed", About: "read and update, zipfian, by the read ratio",
			Order: Zipfian, Share: only(Read), NeedsData: true},
		{Name: "readwhilewriting", About: "read at random while one more worker overwrites",
			Share: only(Read), Writer: true, NeedsData: true},
		{Name: "ycsb-a", About: "50 % read, 50 % update, zipfian",
			Order: Zipfian, Share: both(Read, 0.5, Update), NeedsData: true},
		{Name: "ycsb-b", About: "95 % read, 5 % update, zipfian",
			Order: Zipfian, Share: both(Read, 0.95, Update), NeedsData: true},
		{Name: "ycsb-c", About: "read only, zipfian",
			Order: Zipfian, Share: only(Read), NeedsData: true},
		{Name: "ycsb-d", About: "95 % read of the latest, 5 % insert",
			Order: Latest, Share: both(Read, 0.95, Insert), NeedsData: true},
		{Name: "ycsb-e", About: "95 % scan of 1 to 100 pairs, 5 % insert, zipfian",
			Order: Zipfian, Share: both(Scan, 0.95, Insert),
			ScanMin: 1, ScanMax: 100, NeedsData: true},
		{Name: "ycsb-f", About: "50 % read, 50 % read-modify-write, zipfian",
			Order: Zipfian, Share: both(Read, 0.5, ReadModifyWrite), NeedsData: true},
		{Name: "ping", About: "ask for nothing: the floor under every latency",
			Share: only(Ping)},
	}
}

// WorkloadByName finds a workload.
func WorkloadByName(name string) (Workload, bool) {
	for _, w := range Workloads() {
		if w.Name == name {
			return w, true
		}
	}
	return Workload{}, false
}

// WorkloadNames are the names of all workloads, separated by spaces.
func WorkloadNames() string {
	var names []string
	for _, w := range Workloads() {
		names = append(names, w.Name)
	}
	return strings.Join(names, " ")
}

// operation is one thing to do, chosen before the clock starts.
type operation struct {
	kind   Kind
	number Number
	place  uint64 // of an insert beyond the loaded keys: its place in the frontier
	count  int    // pairs of a scan
}

// chooser chooses the operations of one worker. It allocates nothing after newChooser.
type chooser struct {
	load     *Workload
	space    *Keyspace
	front    *frontier      // shared by the workers
	sequence *atomic.Uint64 // shared by the workers: next place of a fill
	limit    uint64         // end of sequence
	random   *rand.Rand
	zipf     Zipf
	own, of  uint64 // update only keys with index % of == own; of == 0: any
}

// next chooses an operation. It reports false when a fill is complete.
func (c *chooser) next(op *operation) bool {
	op.kind = c.kind()
	switch op.kind {
	case Insert:
		return c.insert(op)
	case Scan:
		op.count = c.load.ScanMin
		if spread := c.load.ScanMax - c.load.ScanMin; spread > 0 {
			op.count += c.random.IntN(spread + 1)
		}
	}
	switch c.load.Order {
	case Sequential: // of scans: from the first key
		op.number = 0
	case Absent:
		op.number = c.space.Missing(c.random.Uint64N(c.space.keys))
	case Latest:
		known := c.front.known.Load()
		op.number = c.place(known - 1 - min(known-1, c.zipf.Next(c.random)))
	case Zipfian:
		op.number = c.space.Shuffled(c.zipf.Next(c.random))
	default:
		op.number = c.space.Loaded(c.random.Uint64N(c.space.keys))
	}
	if c.of != 0 && (op.kind == Update || op.kind == ReadModifyWrite) {
		op.number = c.mine(op.number)
	}
	return true
}

func (c *chooser) kind() Kind {
	u := -1.0
	for k, share := range c.load.Share {
		if share == 1 {
			return Kind(k)
		}
		if share == 0 {
			continue
		}
		if u < 0 {
			u = c.random.Float64()
		}
		if u -= share; u < 0 {
			return Kind(k)
		}
	}
	// Rounding left a sliver above the last share.
	for k := kindCount - 1; ; k-- {
		if c.load.Share[k] > 0 {
			return k
		}
	}
}

func (c *chooser) insert(op *operation) bool {
	if !c.load.Fill {
		op.place = c.front.take()
		op.number = c.place(op.place)
		return true
	}
	i := c.sequence.Add(1) - 1
	if i >= c.limit {
		return false
	}
	op.number = c.space.Loaded(i)
	if c.load.Order == Shuffled {
		op.number = c.space.Shuffled(i)
	}
	return true
}

// place is the key at place i of the order in which all keys came to be: the loaded ones, shuffled,
// then the inserted ones.
func (c *chooser) place(i uint64) Number {
	if i < c.space.keys {
		return c.space.Shuffled(i)
	}
	return c.space.Inserted(i - c.space.keys)
}

// mine is the key nearest to n that this worker alone updates.
func (c *chooser) mine(n Number) Number {
	i := n.Slot()
	i = i - i%c.of + c.own
	if i >= c.space.keys {
		i -= c.of
	}
	return c.space.Loaded(i)
}

// frontier counts the keys that exist: those below known were all acknowledged, as the
// acknowledged counter of YCSB does it, so that a reader of the latest key finds it. It remembers
// the inserts under way, never more than there are workers, so a stuck one costs no memory.
type frontier struct {
	known  atomic.Uint64
	failed atomic.Uint64 // inserts that failed: the keys may be missing

	mu    sync.Mutex
	taken uint64   // guarded by mu: the next place
	under []uint64 // guarded by mu: places of the inserts under way
}

func (f *frontier) start(keys uint64) {
	f.taken = keys
	f.known.Store(keys)
}

func (f *frontier) take() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	place := f.taken
	f.taken++
	f.under = append(f.under, place)
	return place
}

// finish notes the outcome of the insert at a place. A failed one is passed over.
func (f *frontier) finish(place uint64, ok bool) {
	if !ok {
		f.failed.Add(1)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	last := len(f.under) - 1
	f.under[slices.Index(f.under, place)] = f.under[last]
	f.under = f.under[:last]
	if place == f.known.Load() { // it was the oldest
		oldest := f.taken
		for _, p := range f.under {
			oldest = min(oldest, p)
		}
		f.known.Store(oldest)
	}
}
