package replication

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"sort"

	"kvd/lsm"
)

// simDisk is a Store in memory that loses what was not synced when it crashes.
type simDisk struct {
	live    sorted
	durable sorted
	log     [][]simWrite // applied, not durable, oldest first
	base    int          // batches that are durable
	full    bool
	tries   int // what is tried must wait now and then
	refuse  bool
}

type simWrite struct {
	key, value []byte
	deleted    bool
}

// sorted is a map in the order of its keys.
type sorted []simWrite

func (s sorted) find(key []byte) (int, bool) {
	i := sort.Search(len(s), func(i int) bool { return bytes.Compare(s[i].key, key) >= 0 })
	return i, i < len(s) && bytes.Equal(s[i].key, key)
}

func (s *sorted) apply(w simWrite) {
	i, there := s.find(w.key)
	switch {
	case w.deleted && there:
		*s = slices.Delete(*s, i, i+1)
	case w.deleted:
	case there:
		(*s)[i] = w
	default:
		*s = slices.Insert(*s, i, w)
	}
}

func (d *simDisk) Get(dst, key []byte) ([]byte, error) {
	if i, there := d.live.find(key); there {
		return append(dst, d.live[i].value...), nil
	}
	return dst, lsm.ErrNotFound
}

func (d *simDisk) TryGet(dst, key []byte) (value []byte, done bool, err error) {
	if d.mustWait() {
		return dst, false, nil
	}
	value, err = d.Get(dst, key)
	return value, true, err
}

func (d *simDisk) TryApply(b *lsm.Batch) (done bool, err error) {
	if d.mustWait() {
		return false, nil
	}
	return true, d.Apply(b)
}

func (d *simDisk) mustWait() bool {
	d.tries++
	return d.refuse || d.tries%7 == 0
}

func (d *simDisk) Apply(b *lsm.Batch) error {
	if err := b.Err(); err != nil {
		return err
	}
	if d.full {
		return lsm.ErrDiskFull
	}
	var all []simWrite
	b.Each(func(kind lsm.Kind, key, value []byte) bool {
		all = append(all, simWrite{bytes.Clone(key), bytes.Clone(value), kind == lsm.KindDelete})
		return true
	})
	for _, w := range all {
		d.live.apply(w)
	}
	d.log = append(d.log, all)
	return nil
}

// mark is the end of what is applied; durableTo makes what lies before a mark durable.
func (d *simDisk) mark() int { return d.base + len(d.log) }

func (d *simDisk) durableTo(mark int) {
	for d.base < mark && len(d.log) > 0 {
		for _, w := range d.log[0] {
			d.durable.apply(w)
		}
		d.log = d.log[1:]
		d.base++
	}
}

// Sync is for what waits for it within a piece of work, as raising the incarnation does. Else the
// simulation makes things durable when their time has come.
func (d *simDisk) Sync(lsm.Durability) error {
	d.durableTo(d.mark())
	return nil
}

func (d *simDisk) Iter(lower, upper []byte) StoreIter {
	from, _ := d.live.find(lower)
	to := len(d.live)
	if upper != nil {
		to, _ = d.live.find(upper)
	}
	return &simIter{pairs: slices.Clone(d.live[from:max(from, to)])}
}

type simIter struct {
	pairs sorted
	next  int
}

func (it *simIter) Next() bool    { it.next++; return it.next <= len(it.pairs) }
func (it *simIter) Key() []byte   { return it.pairs[it.next-1].key }
func (it *simIter) Value() []byte { return it.pairs[it.next-1].value }
func (it *simIter) Close() error  { return nil }

// crash keeps what is durable and a random beginning of what is not.
func (d *simDisk) crash(rng *rand.Rand) {
	d.durableTo(d.base + rng.IntN(len(d.log)+1))
	d.log = nil
	d.live = slices.Clone(d.durable)
	d.full = false
}

// object reads a decoded object out of one of the two maps.
func (s sorted) object(part Partition, key []byte) Object {
	i, there := s.find(appendDataKey(nil, part, key))
	if !there {
		return Object{}
	}
	o, err := DecodeObject(s[i].value)
	if err != nil {
		panic(err)
	}
	return o
}
