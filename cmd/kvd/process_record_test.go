package main

import (
	"bytes"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"kvd/lsm"
)

// record is what the clients of a node know of its contents, kept outside of it: what was
// acknowledged, and what nobody knows the end of. It judges every read, and what a node that was
// started again has. Each key belongs to one writer, and a writer makes one operation at a time.
type record struct {
	writers []*writerRecord

	tick atomic.Int64 // a clock that orders what happens here
}

type writerRecord struct {
	// Fixed.
	tick  *atomic.Int64
	id    int
	names []string
	keys  map[string]*keyRecord

	mu    sync.Mutex // guards all below, and the keys
	n     int        // number of the last operation, rising for ever
	acked []*operation
}

// operation is one put, delete or batch.
type operation struct {
	n       int
	class   lsm.Durability
	changes []change

	issued, acked int64 // ticks
	// Of an acknowledged one its place among them since the start of the node, from 1. Of another
	// one how many were acknowledged before it began.
	position int
	doubt    bool
}

// change is what an operation does to one key. A size below zero deletes it.
type change struct {
	key  string
	size int
}

// keyVersion is the state of a key after an operation. op is nil for the one a node started with.
type keyVersion struct {
	n, size int
	op      *operation
}

// keyRecord is the history of a key since the node was started. A key in doubt is left alone until
// the node is started again: a request that nobody waits for any more may still be executed.
type keyRecord struct {
	versions []keyVersion
}

func (k *keyRecord) last() keyVersion { return k.versions[len(k.versions)-1] }

func (k *keyRecord) inDoubt() bool {
	op := k.last().op
	return op != nil && op.doubt
}

// newRecord returns the record of an empty node.
func newRecord(writers, keys int) *record {
	rec := new(record)
	for id := range writers {
		w := &writerRecord{tick: &rec.tick, id: id, keys: make(map[string]*keyRecord)}
		for i := range keys {
			name := fmt.Sprintf("w%02d/%04d", id, i)
			w.names = append(w.names, name)
			w.keys[name] = &keyRecord{versions: []keyVersion{{size: -1}}}
		}
		rec.writers = append(rec.writers, w)
	}
	return rec
}

// writerOf returns the writer of a key, nil if there is none.
func (rec *record) writerOf(key string) *writerRecord {
	var id int
	if _, err := fmt.Sscanf(key, "w%02d/", &id); err != nil || id >= len(rec.writers) {
		return nil
	}
	if w := rec.writers[id]; w.keys[key] != nil {
		return w
	}
	return nil
}

// appendValue appends the value that operation n gives a key: its name and n as far as they fit,
// then bytes of which half can be compressed.
func appendValue(dst []byte, key string, n, size int) []byte {
	start := len(dst)
	dst = fmt.Appendf(dst, "%s#%d#", key, n)
	x := uint64(n)*0x9e3779b97f4a7c15 + 1
	for len(dst) < start+size {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		dst = append(dst, byte(x), byte(x>>8), byte(x>>16), byte(x>>24), "abcd"[0], "abcd"[1],
			"abcd"[2], "abcd"[3])
	}
	return dst[:start+max(size, 0)]
}

// is tells whether the version looks like what was read.
func (v keyVersion) is(key string, value []byte, there bool) bool {
	if !there || v.size < 0 {
		return !there && v.size < 0
	}
	if len(value) != v.size {
		return false
	}
	head := fmt.Appendf(nil, "%s#%d#", key, v.n)
	if n := min(len(head), len(value)); !bytes.Equal(head[:n], value[:n]) {
		return false // most often, and cheap
	}
	return bytes.Equal(value, appendValue(nil, key, v.n, v.size))
}

// begin notes an operation that is about to be sent.
func (w *writerRecord) begin(class lsm.Durability, changes []change) *operation {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n++
	op := &operation{n: w.n, class: class, changes: changes, position: len(w.acked)}
	for _, c := range changes {
		k := w.keys[c.key]
		k.versions = append(k.versions, keyVersion{n: op.n, size: c.size, op: op})
	}
	op.issued = w.tick.Add(1)
	return op
}

type outcome int

const (
	outcomeAcked outcome = iota
	outcomeRefused
	outcomeDoubt
)

// finish notes how an operation ended.
func (w *writerRecord) finish(op *operation, how outcome) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch how {
	case outcomeAcked:
		op.acked = w.tick.Add(1)
		w.acked = append(w.acked, op)
		op.position = len(w.acked)
	case outcomeDoubt:
		op.doubt = true
	case outcomeRefused: // from here on, whoever sees it has seen something that never was
		for _, c := range op.changes {
			k := w.keys[c.key]
			k.versions = slices.DeleteFunc(k.versions, func(v keyVersion) bool { return v.op == op })
		}
	}
}

// floor returns the number of the newest operation on key that is known to have happened: a read
// that begins now sees that one or a later one.
func (w *writerRecord) floor(key string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	versions := w.keys[key].versions
	for i := len(versions) - 1; i > 0; i-- {
		if versions[i].op.acked > 0 {
			return versions[i].n
		}
	}
	return versions[0].n
}

// seen judges what a read of key found, which must be of operation low or a later one. It returns
// the number of the operation: the next read by the same reader must not find an earlier one.
func (w *writerRecord) seen(key string, value []byte, there bool, low int) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, v := range w.keys[key].versions {
		if v.n >= low && v.is(key, value, there) {
			return v.n, nil
		}
	}
	return low, fmt.Errorf("%s is %s; operation %d or later was to be seen of %s", key,
		shortValue(value, there), low, w.historyLocked(key))
}

func shortValue(value []byte, there bool) string {
	if !there {
		return "absent"
	}
	return fmt.Sprintf("%.40q (%d bytes)", value, len(value))
}

// historyLocked describes what is known of a key.
func (w *writerRecord) historyLocked(key string) string {
	var b strings.Builder
	versions := w.keys[key].versions
	if n := len(versions); n > 8 {
		fmt.Fprintf(&b, "%d, the last of them", n)
		versions = versions[n-8:]
	}
	for _, v := range versions {
		state := "at the start"
		if v.op != nil {
			state = [...]string{"sync", "async", "nosync"}[v.op.class]
			switch {
			case v.op.doubt:
				state += ", in doubt"
			case v.op.acked == 0:
				state += ", under way"
			}
		}
		fmt.Fprintf(&b, " [%d: %d bytes, %s]", v.n, v.size, state)
	}
	return b.String()
}

// settle judges what a node has that was killed and started again, and makes it the state from
// which the record goes on. All that was acknowledged is there if the node was stopped in order,
// else all that was acknowledged as Sync or Async, and all that was acknowledged before any
// operation began that is there: what is lost is the end of the history, never its middle. It
// returns how many acknowledged operations are lost, which only NoSync ones may be.
func (rec *record) settle(there map[string][]byte, orderly bool) (lost int, err error) {
	for key, value := range there {
		if rec.writerOf(key) == nil {
			return 0, fmt.Errorf("%q, which nobody wrote, is %s", key, shortValue(value, true))
		}
	}
	fits := make([][]bool, len(rec.writers))
	at := make([]int, len(rec.writers)) // how many of the writer's operations there must be
	since := int64(0)                   // what was acknowledged before must be there
	for i, w := range rec.writers {
		var began int64
		if fits[i], began, err = w.fits(there); err != nil {
			return 0, err
		}
		since = max(since, began)
		for _, op := range w.acked {
			if orderly || op.class != lsm.NoSync {
				at[i] = op.position
				since = max(since, op.issued)
			}
		}
	}
	for again := true; again; {
		again = false
		for i, w := range rec.writers {
			need := max(at[i], sort.Search(len(w.acked), func(j int) bool {
				return w.acked[j].acked >= since
			}))
			p := need
			for p <= len(w.acked) && !fits[i][p] {
				p++
			}
			if p > len(w.acked) {
				return 0, w.lostError(there, need, slices.Index(fits[i], true))
			}
			if p > at[i] {
				at[i], again = p, true
			}
			if p > 0 {
				since = max(since, w.acked[p-1].issued)
			}
		}
	}
	for i, w := range rec.writers {
		lost += len(w.acked) - at[i]
		w.restart(there)
	}
	return lost, nil
}

// fits finds the moments in the history of a writer whose state is the one that is there: [p] is
// the one after p acknowledged operations. began is when the last operation in doubt began that is
// there.
func (w *writerRecord) fits(there map[string][]byte) (at []bool, began int64, err error) {
	happened, gone := map[*operation]string{}, map[*operation]string{}
	for _, key := range w.names {
		k := w.keys[key]
		if !k.inDoubt() {
			continue
		}
		value, ok := there[key]
		before := slices.ContainsFunc(k.versions[:len(k.versions)-1], func(v keyVersion) bool {
			return v.is(key, value, ok)
		})
		switch is := k.last().is(key, value, ok); {
		case is && !before:
			happened[k.last().op] = key
			began = max(began, k.last().op.issued)
		case !is:
			gone[k.last().op] = key
		}
	}
	for op, key := range happened {
		if gone[op] != "" {
			return nil, 0, fmt.Errorf("operation %d is there in part: %s has it, %s has not", op.n,
				key, gone[op])
		}
	}
	votes := make([]int, len(w.acked)+1)
	for _, key := range w.names {
		k, value, ok := w.keys[key], there[key], false
		if _, ok = there[key]; len(k.versions) == 1 && !k.last().is(key, value, ok) {
			return nil, 0, fmt.Errorf("%s, which was not written, is %s instead of%s", key,
				shortValue(value, ok), w.historyLocked(key))
		}
		for p, ok := range k.fits(key, there, len(w.acked), happened, gone) {
			if ok {
				votes[p]++
			}
		}
	}
	at = make([]bool, len(votes))
	for p, n := range votes {
		at[p] = n == len(w.names)
	}
	if !slices.Contains(at, true) {
		return nil, 0, w.mixedError(there, slices.Index(votes, slices.Max(votes)), happened, gone)
	}
	return at, began, nil
}

// fits is writerRecord.fits for one key and a history of n acknowledged operations.
func (k *keyRecord) fits(key string, there map[string][]byte, n int,
	happened, gone map[*operation]string) []bool {
	at := make([]bool, n+1)
	value, ok := there[key]
	for i, v := range k.versions {
		from, to := 0, n
		if v.op != nil {
			from = v.op.position
		}
		if i+1 < len(k.versions) {
			next := k.versions[i+1].op
			switch {
			case !next.doubt:
				to = next.position - 1
			case happened[next] != "":
				continue
			}
		}
		if v.op != nil && v.op.doubt && gone[v.op] != "" || !v.is(key, value, ok) {
			continue
		}
		for p := from; p <= to; p++ {
			at[p] = true
		}
	}
	return at
}

// lostError describes the loss of an acknowledged operation.
func (w *writerRecord) lostError(there map[string][]byte, need, have int) error {
	detail := ""
	for _, op := range w.acked[min(have, need):need] {
		for _, c := range op.changes {
			value, ok := there[c.key]
			if detail == "" && !w.keys[c.key].last().is(c.key, value, ok) {
				detail = fmt.Sprintf("; %s is %s, known of it:%s", c.key, shortValue(value, ok),
					w.historyLocked(c.key))
			}
		}
	}
	return fmt.Errorf("writer %d: of %d acknowledged operations %d had to survive, what is there "+
		"is the state after %d%s", w.id, len(w.acked), need, have, detail)
}

// mixedError describes a state that is none of the history, best like the one at p.
func (w *writerRecord) mixedError(there map[string][]byte, p int,
	happened, gone map[*operation]string) error {
	text := ""
	for _, key := range w.names {
		if !w.keys[key].fits(key, there, len(w.acked), happened, gone)[p] {
			value, ok := there[key]
			text += fmt.Sprintf("; %s is %s, known of it:%s", key, shortValue(value, ok),
				w.historyLocked(key))
			if len(text) > 1000 {
				break
			}
		}
	}
	return fmt.Errorf("writer %d: what is there was never the state; after operation %d of %d it "+
		"was, but for this%s", w.id, p, len(w.acked), text)
}

// restart makes what is there the state at the start.
func (w *writerRecord) restart(there map[string][]byte) {
	for _, key := range w.names {
		k := w.keys[key]
		value, ok := there[key]
		for i := len(k.versions) - 1; i >= 0; i-- {
			if v := k.versions[i]; v.is(key, value, ok) {
				k.versions = append(k.versions[:0], keyVersion{n: v.n, size: v.size})
				break
			}
		}
	}
	w.acked = nil
}

// TestRecord shows that the record rejects what must not happen and takes what may.
func TestRecord(t *testing.T) {
	const s, a, n = lsm.Sync, lsm.Async, lsm.NoSync
	type step struct {
		writer int
		class  lsm.Durability
		keys   []int // of the writer; below zero: deleted, counted from -1
		how    outcome
	}
	type has map[string]int // key -> operation of its writer, 0 for a value that nobody wrote
	acked, refused, doubt := outcomeAcked, outcomeRefused, outcomeDoubt
	for _, c := range []struct {
		name    string
		steps   []step
		there   has
		orderly bool
		lost    int
		wrong   string // what the error says, empty if all is well
	}{
		{"all there", []step{{0, s, []int{0}, acked}}, has{"0/0": 1}, false, 0, ""},
		{"synced and lost", []step{{0, s, []int{0}, acked}}, has{}, false, 0, "had to survive"},
		{"written and lost", []step{{0, a, []int{0}, acked}}, has{}, false, 0, "had to survive"},
		{"unsynced and lost", []step{{0, n, []int{0}, acked}}, has{}, false, 1, ""},
		{"unsynced, lost in order", []step{{0, n, []int{0}, acked}}, has{}, true, 0, "had to survive"},
		{"older than acknowledged", []step{{0, s, []int{0}, acked}, {0, s, []int{0}, acked}},
			has{"0/0": 1}, false, 0, "had to survive"},
		{"deleted and back", []step{{0, s, []int{0}, acked}, {0, s, []int{-1}, acked}},
			has{"0/0": 1}, false, 0, "had to survive"},
		{"the middle lost", []step{{0, n, []int{0}, acked}, {0, n, []int{1}, acked}},
			has{"0/1": 2}, false, 0, "never the state"},
		{"the end lost", []step{{0, n, []int{0}, acked}, {0, n, []int{1}, acked}},
			has{"0/0": 1}, false, 1, ""},
		{"another's middle lost", []step{{0, n, []int{0}, acked}, {1, n, []int{0}, acked}},
			has{"1/0": 1}, false, 0, "had to survive"},
		{"unsynced before another's synced lost",
			[]step{{0, n, []int{0}, acked}, {1, s, []int{0}, acked}}, has{"1/0": 1}, false, 0,
			"had to survive"},
		{"unsynced before what is in doubt lost",
			[]step{{0, n, []int{0}, acked}, {1, s, []int{0}, doubt}}, has{"1/0": 1}, false, 0,
			"had to survive"},
		{"half a batch", []step{{0, n, []int{0, 1}, acked}}, has{"0/0": 1}, false, 0,
			"never the state"},
		{"half a batch in doubt", []step{{0, s, []int{0, 1}, doubt}}, has{"0/1": 1}, false, 0,
			"in part"},
		{"in doubt, there", []step{{0, s, []int{0, 1}, doubt}}, has{"0/0": 1, "0/1": 1}, false, 0,
			""},
		{"in doubt, not there", []step{{0, s, []int{0, 1}, doubt}}, has{}, true, 0, ""},
		{"in doubt, nothing before", []step{{0, n, []int{0}, acked}, {0, s, []int{1}, doubt}},
			has{"0/1": 2}, false, 0, "never the state"},
		{"refused, there", []step{{0, s, []int{0}, refused}}, has{"0/0": 1}, false, 0,
			"which was not written"},
		{"unknown value", nil, has{"0/0": 0}, false, 0, "which was not written"},
		{"unknown value of a written key", []step{{0, s, []int{0}, acked}}, has{"0/0": 0}, false, 0,
			"never the state"},
		{"unknown key", nil, has{"7/0": 1}, false, 0, "nobody wrote"},
	} {
		rec := newRecord(2, 3)
		for _, st := range c.steps {
			var changes []change
			for _, k := range st.keys {
				ch := change{fmt.Sprintf("w%02d/%04d", st.writer, k), 100}
				if k < 0 {
					ch = change{fmt.Sprintf("w%02d/%04d", st.writer, -k-1), -1}
				}
				changes = append(changes, ch)
			}
			w := rec.writers[st.writer]
			w.finish(w.begin(st.class, changes), st.how)
		}
		there := map[string][]byte{}
		for name, n := range c.there {
			var w, k int
			_, _ = fmt.Sscanf(name, "%d/%d", &w, &k)
			key := fmt.Sprintf("w%02d/%04d", w, k)
			there[key] = appendValue(nil, key, n, 100)
		}
		lost, err := rec.settle(there, c.orderly)
		switch {
		case (err == nil) != (c.wrong == ""), err != nil && !strings.Contains(err.Error(), c.wrong):
			t.Errorf("%s: error %v, want one that says %q", c.name, err, c.wrong)
		case lost != c.lost:
			t.Errorf("%s: %d lost, want %d", c.name, lost, c.lost)
		}
	}
}

// TestRecordReads is TestRecord for what readers see.
func TestRecordReads(t *testing.T) {
	w := newRecord(1, 1).writers[0]
	key := w.names[0]
	put := func(size int, how outcome) {
		w.finish(w.begin(lsm.Sync, []change{{key, size}}), how)
	}
	put(10, outcomeAcked)   // 1
	put(200, outcomeAcked)  // 2
	put(-1, outcomeAcked)   // 3
	put(300, outcomeAcked)  // 4
	put(40, outcomeRefused) // 5
	put(50, outcomeDoubt)   // 6
	for _, c := range []struct {
		n, size, low, want int // want 0: an error
	}{
		{1, 10, 0, 1}, {2, 200, 1, 2}, {1, 10, 2, 0}, {3, -1, 0, 0 + 3}, {4, 300, 4, 4},
		{4, 299, 4, 0}, {5, 40, 4, 0}, {6, 50, 4, 6}, {4, 300, 6, 0}, {7, 60, 0, 0},
	} {
		low := c.low
		if c.size < 0 {
			low = 1 // absent is what it was at first, too
		}
		value := appendValue(nil, key, c.n, c.size)
		got, err := w.seen(key, value, c.size >= 0, low)
		if (err != nil) != (c.want == 0) || err == nil && got != c.want {
			t.Errorf("read of %d (%d bytes) from %d: %d, %v", c.n, c.size, low, got, err)
		}
	}
	if got := w.floor(key); got != 4 {
		t.Errorf("floor %d, want 4", got)
	}
}
