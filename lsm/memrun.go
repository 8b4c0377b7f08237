package lsm

import (
	"bytes"
	"slices"
	"sync/atomic"
	"unsafe"

	"kvd/lsm/procs"
	"kvd/sstable"
	"kvd/sstable/offheap"
)

// memRun is an immutable sorted list of nodes of a memtable: what was in it when somebody asked for
// its order.
type memRun struct {
	arena  *arena
	prefix []byte // common to all keys; lives in the arena
	items  []runItem
	last   sstable.Seq    // it has every entry of the memtable up to here
	final  bool           // later ones are in the list
	memory offheap.Memory // of items; empty if they are in the Go heap
}

// covers reports whether no entry up to seq is missing from run and list.
func (r *memRun) covers(seq sstable.Seq) bool { return r != nil && (r.final || r.last >= seq) }

// runItem is a node with the first eight bytes of its key after the prefix: most comparisons do
// not touch the node.
type runItem struct {
	head uint64
	node uint32
}

// newMemRun sorts the nodes in the words [from, to) of an arena, all of which must be complete.
// n is how many there should be; damage to the memory can make it more or fewer.
//
// If the run is to live as long as its memtable, a large one is off the Go heap, until free. It is
// 8 MB for a memtable of 64 MiB, and as much to sort with: a third of the garbage of writing 100
// bytes at a time.
//
// A flush yields between steps: while it did not, timers of its processor were late by 12 ms, and
// overwrites longer than 20 ms were 103 of 9 million, not 76.
func newMemRun(a *arena, from, to uint32, n int, lasts bool, step *sortStep) *memRun {
	r := &memRun{arena: a}
	spare := r.alloc(n, lasts)
	sorted := true
	var last sstable.Key
	for node := from; node < to; node = a.after(node) {
		key := a.key(node)
		if len(r.items) == 0 {
			r.prefix = key.User
		} else {
			r.prefix = r.prefix[:sstable.CommonPrefix(r.prefix, key.User)]
			sorted = sorted && sstable.Compare(last, key) < 0
		}
		last = key
		r.items = append(r.items, runItem{node: node})
		step.looked(1)
	}
	for i := range r.items {
		r.items[i].head = sstable.Head(a.key(r.items[i].node).User[len(r.prefix):])
		step.looked(1)
	}
	if !sorted {
		r.sort(spare, step)
	}
	if half := int64(len(r.memory.Bytes)) / 2; half > 0 {
		r.memory.Release(half, 2*half)
	}
	return r
}

// A step of a sort takes some 200 us: to look at so many nodes, which are seldom cached, or to move
// so many items. Counted item by item, moving took 15 % longer. A merge yields four times as often;
// on a busy machine each yield may be a wait, and a sort is what its whole flush waits for.
const (
	nodesAStep = 4 << 10
	itemsAStep = 64 << 10
)

// sortStep is the present step of a sort.
type sortStep struct {
	yielder *procs.Yielder
	awaited *atomic.Int32
	nodes   int // looked at
	yields  int // so far; for tests
}

func (s *sortStep) looked(nodes int) {
	if s.nodes += nodes; s.nodes >= nodesAStep {
		s.end()
	}
}

// end yields, unless somebody who reads waits for the sort.
func (s *sortStep) end() {
	s.nodes = 0
	if s.yielder != nil && s.awaited.Load() == 0 {
		s.yielder.Yield()
		s.yields++
	}
}

// alloc makes room for n items. If it is off the heap, there is as much to sort with.
func (r *memRun) alloc(n int, lasts bool) (spare []runItem) {
	const mapped = 1 << 20 // less is not worth a mapping of its own
	if bytes := 2 * int64(n) * int64(unsafe.Sizeof(runItem{})); lasts && bytes >= mapped {
		if m, err := offheap.Alloc(bytes, mapped); err == nil {
			r.memory = m
			both := unsafe.Slice((*runItem)(unsafe.Pointer(unsafe.SliceData(m.Words))), 2*n)
			r.items, spare = both[:0:n], both[n:]
			return spare
		}
	}
	r.items = make([]runItem, 0, n)
	return nil
}

// free lets go of the memory. Nobody may read the run any more.
func (r *memRun) free() {
	r.items = nil
	r.memory.Free()
}

// sort orders the items: by head with a radix sort, which passes over bytes that are the same in
// all, then those of equal heads by their keys. It works in spare if that is large enough.
func (r *memRun) sort(spare []runItem, step *sortStep) {
	items := r.items
	if len(spare) < len(items) {
		spare = make([]runItem, len(items))
	}
	spare = spare[:len(items)]
	var differ uint64
	for i := range items {
		differ |= items[i].head ^ items[0].head
	}
	for shift := 0; shift < 64; shift += 8 {
		if differ>>shift&0xff == 0 {
			continue
		}
		var starts [256]int
		for some := range slices.Chunk(items, itemsAStep) {
			for i := range some {
				starts[some[i].head>>shift&0xff]++
			}
			step.end()
		}
		at := 0
		for b, n := range starts {
			starts[b] = at
			at += n
		}
		for some := range slices.Chunk(items, itemsAStep) {
			for i := range some {
				b := some[i].head >> shift & 0xff
				spare[starts[b]] = some[i]
				starts[b]++
			}
			step.end()
		}
		items, spare = spare, items
	}
	copy(r.items, items) // onto itself after an even number of passes
	items = r.items
	for from := 0; from < len(items); {
		to := from + 1
		for to < len(items) && items[to].head == items[from].head {
			to++
		}
		if to-from > 1 {
			slices.SortFunc(items[from:to], func(a, b runItem) int {
				step.looked(2)
				return sstable.Compare(r.arena.key(a.node), r.arena.key(b.node))
			})
		}
		from = to
	}
}

// seek returns the index of the first item whose user key is at or after user.
func (r *memRun) seek(user []byte) int {
	if len(r.items) == 0 {
		return 0
	}
	rest, ok := bytes.CutPrefix(user, r.prefix)
	if !ok {
		if bytes.Compare(user, r.prefix) < 0 {
			return 0
		}
		return len(r.items)
	}
	head := sstable.Head(rest)
	lo, hi := 0, len(r.items)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		it := &r.items[mid]
		if it.head < head ||
			it.head == head && bytes.Compare(r.arena.key(it.node).User, user) < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// runIter walks a memRun. It needs no Close; whoever uses it keeps the memtable referenced. Keys
// and values live in the arena and stay valid as long as that reference.
type runIter struct {
	run *memRun
	at  int // out of bounds when exhausted
}

var _ sstable.Iterator = (*runIter)(nil)

func (it *runIter) move(to int) bool {
	it.at = to
	return uint(to) < uint(len(it.run.items))
}

func (it *runIter) node() uint32 { return it.run.items[it.at].node }

func (it *runIter) First() bool             { return it.move(0) }
func (it *runIter) Last() bool              { return it.move(len(it.run.items) - 1) }
func (it *runIter) SeekGE(user []byte) bool { return it.move(it.run.seek(user)) }
func (it *runIter) SeekLT(user []byte) bool { return it.move(it.run.seek(user) - 1) }
func (it *runIter) Next() bool              { return it.at < len(it.run.items) && it.move(it.at+1) }
func (it *runIter) Prev() bool              { return it.at >= 0 && it.move(it.at-1) }
func (it *runIter) Key() sstable.Key        { return it.run.arena.key(it.node()) }
func (it *runIter) Value() []byte           { return it.run.arena.value(it.node()) }
func (it *runIter) Err() error              { return nil }
func (it *runIter) Close() error            { return nil }
