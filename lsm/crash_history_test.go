package lsm

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"kvd/sstable"
)

// crashKeys is every key of the crash tests, sorted: short and long, with long common prefixes, with
// zero and 0xff bytes.
var crashKeys = func() []string {
	var keys []string
	for i := range 40 {
		switch i % 4 {
		case 0:
			keys = append(keys, fmt.Sprintf("k%03d", i))
		case 1:
			keys = append(keys, strings.Repeat("long prefix ", 3)+fmt.Sprint(i))
		case 2:
			keys = append(keys, string([]byte{0, byte(i)}))
		default:
			keys = append(keys, strings.Repeat("\xff", 1+i%7)+string(rune('a'+i/4)))
		}
	}
	slices.Sort(keys)
	return keys
}()

// absent stands for the value of a key that has none.
const absent = "\x00absent"

// crashOp is one write of a commit; Value is absent for a delete.
type crashOp struct {
	Key   int // of crashKeys
	Value string
}

// crashCommit is one commit and the place that it got in their order.
type crashCommit struct {
	Ops         []crashOp
	First, Last sstable.Seq
	Ticket      uint64 // given out before it began

	state  []string // by key: the contents after it
	newest uint64   // the highest ticket of it and all before it
}

// crashHistory is what a database was told to do. Writers add commits while images of its disk are
// taken; once they are done, settle brings the commits into order, and images are compared.
type crashHistory struct {
	commits []*crashCommit // in the order of their sequence numbers, settled
	copies  map[string]sstable.Seq

	tickets atomic.Uint64 // commits that have begun
	durable atomic.Uint64 // the last sequence number that was acknowledged to survive a power loss
	written atomic.Uint64 // and the death of the process
	copy    atomic.Pointer[crashCopy]

	mu    sync.Mutex
	fresh []*crashCommit // not settled
}

// crashCopy is a checkpoint that is there, or being made.
type crashCopy struct {
	Dir  string
	Seq  sstable.Seq
	done atomic.Bool
}

// commit applies ops and keeps account of it. It may be called concurrently.
func (h *crashHistory) commit(db *DB, ops []crashOp, d Durability) error {
	c := &crashCommit{Ops: ops, Ticket: h.tickets.Add(1)}
	var b Batch
	for _, op := range ops {
		if op.Value == absent {
			b.Delete([]byte(crashKeys[op.Key]))
		} else {
			b.Put([]byte(crashKeys[op.Key]), []byte(op.Value))
		}
	}
	if err := db.Apply(&b, d); err != nil {
		return err
	}
	_, first, _, err := openBatch(b.data)
	if err != nil {
		return err
	}
	c.First, c.Last = first, first+sstable.Seq(len(ops))-1
	h.mu.Lock()
	h.fresh = append(h.fresh, c)
	h.mu.Unlock()
	if d != NoSync {
		raise(&h.written, c.Last)
	}
	if d == Sync {
		raise(&h.durable, c.Last)
	}
	return nil
}

func raise(n *atomic.Uint64, to sstable.Seq) {
	for old := n.Load(); old < uint64(to) && !n.CompareAndSwap(old, uint64(to)); {
		old = n.Load()
	}
}

// settle orders the commits. No writer is under way.
func (h *crashHistory) settle() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	slices.SortFunc(h.fresh, func(a, b *crashCommit) int { return cmp.Compare(a.First, b.First) })
	for _, c := range h.fresh {
		if c.First != h.last()+1 {
			return fmt.Errorf("a commit got sequence number %d after %d", c.First, h.last())
		}
		c.state = slices.Clone(h.state(len(h.commits)))
		for _, op := range c.Ops {
			c.state[op.Key] = op.Value
		}
		c.newest = c.Ticket
		if n := len(h.commits); n > 0 {
			c.newest = max(c.newest, h.commits[n-1].newest)
		}
		h.commits = append(h.commits, c)
	}
	h.fresh = h.fresh[:0]
	return nil
}

// last is the sequence number of the last commit that is settled.
func (h *crashHistory) last() sstable.Seq {
	if len(h.commits) == 0 {
		return 0
	}
	return h.commits[len(h.commits)-1].Last
}

// allDurable notes that everything so far was promised to survive. The writers are done.
func (h *crashHistory) allDurable() error {
	err := h.settle()
	raise(&h.written, h.last())
	raise(&h.durable, h.last())
	return err
}

var crashEmpty = slices.Repeat([]string{absent}, len(crashKeys))

// state is the contents after the first n commits.
func (h *crashHistory) state(n int) []string {
	if n == 0 {
		return crashEmpty
	}
	return h.commits[n-1].state
}

// prefix returns how many commits end at a sequence number, or that none does.
func (h *crashHistory) prefix(seq sstable.Seq) (n int, ok bool) {
	if seq == 0 {
		return 0, true
	}
	n = sort.Search(len(h.commits), func(i int) bool { return h.commits[i].Last >= seq })
	return n + 1, n < len(h.commits) && h.commits[n].Last == seq
}

// begin makes the first n commits of another history the beginning of h: a database was recovered
// with them.
func (h *crashHistory) begin(before *crashHistory, n int) {
	h.commits, h.copies = before.commits[:n:n], before.copies
	h.tickets.Store(before.tickets.Load())
	raise(&h.written, h.last())
	raise(&h.durable, h.last())
}

// contents compares everything that a DB holds with a state.
func contents(db *DB, state []string) error {
	it := db.NewIter(IterOptions{})
	at := 0
	var wrong error
	for ok := it.First(); ok && wrong == nil; ok = it.Next() {
		for at < len(state) && state[at] == absent {
			at++
		}
		if at == len(state) {
			wrong = fmt.Errorf("holds %q, which is not to be there", it.Key())
			break
		}
		if string(it.Key()) != crashKeys[at] {
			wrong = fmt.Errorf("holds %q where %q should be", it.Key(), crashKeys[at])
		} else if string(it.Value()) != state[at] {
			wrong = fmt.Errorf("%q is %.30q, it should be %.30q", it.Key(), it.Value(), state[at])
		}
		at++
	}
	if err := it.Close(); err != nil {
		return err
	}
	for ; at < len(state) && wrong == nil; at++ {
		if state[at] != absent {
			wrong = fmt.Errorf("%q is missing", crashKeys[at])
		}
	}
	return wrong
}
