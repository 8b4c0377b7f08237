package replication

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"kvd/lsm"
)

// ErrTooManySiblings refuses a write that would make more than MaxSiblings concurrent values of one
// key, or more bytes of them than may be kept. Read the key and write with the context that came
// with it. A read fails with it when replicas hold more than fits into one answer: each by itself
// can be read at ONE.
var ErrTooManySiblings = errors.New("replication: too many or too large concurrent values of " +
	"this key; read it, at ONE if it fits no answer, and write with its context")

// Replica keeps objects in a store: it reads, merges and writes under the lock of the partition,
// and keeps the trees and the counts of hints that go with them. Do may be called by any number of
// goroutines.
//
// Invariants: a dot is given out once; the tree of a partition is that of what is applied; a hint
// of a node for a key is in the store from before the write that it is about is acknowledged.
type Replica struct {
	// Fixed after newReplica.
	self      NodeID
	store     Store
	placement *Placement
	policy    func(key []byte) Policy

	incarnation atomic.Uint32
	raising     sync.Mutex
	parts       [Partitions]partition
	hints       hintCounts
	lives       lives
	stamp       atomic.Uint64 // the last one given out
	changed     atomic.Uint64 // objects written
	behind      atomic.Bool   // the core's: of some partition reads do not count
}

// partition is what a replica keeps in memory of one partition. mu is held for a read and a write
// of the store, which wait for a disk when a read misses the cache and while commits are slowed
// down, never for a sync.
type partition struct {
	mu     sync.Mutex
	seq    uint64 // of the last dot
	forgot uint32 // the incarnation in which an object that was kept for others was last dropped

	summed summed
}

// summed is the tree of a partition. It has a lock of its own, which is held for no disk and taken
// behind that of the partition: the core asks for roots, and all requests wait for the core.
type summed struct {
	mu      sync.Mutex
	tree    *Tree // of what has been written since tracked, all of it once built; nil: empty
	tracked bool  // changed under both locks
	built   bool
	root    uint64 // of tree, when fresh
	fresh   bool
	touched int64 // time of day, ms, of the last change
}

func newReplica(self NodeID, store Store, p *Placement, incarnation uint32,
	policy func(key []byte) Policy) (*Replica, error) {
	r := &Replica{self: self, store: store, placement: p, policy: policy}
	r.incarnation.Store(incarnation)
	if err := r.lives.load(store); err != nil {
		return nil, err
	}
	return r, r.hints.load(store, p)
}

// Do does the work up to the point where it is visible and tells whether it has to be made durable
// by a Sync of the store before what waits for that may go on.
func (r *Replica) Do(w *Work) (sync bool) {
	w.Result = Result{}
	switch w.Kind {
	case WorkUpdate:
		w.Result.Err = r.update(w)
		return w.Result.Err == nil
	case WorkMerge:
		w.Result.Err = r.merge(w)
		return w.Result.Err == nil
	case WorkRead:
		w.Result.Object, w.Result.Encoded, w.Result.Err = r.readFor(w)
	case WorkHint:
		w.Result.Err = r.noteHints(w)
		return w.Result.Err == nil
	case WorkHintScan:
		w.Result.Err = r.hintPage(w)
	case WorkHintDone:
		w.Result.Err = r.hintDone(w)
	case WorkDigests, WorkObjects:
		w.Result.Err = r.leafPage(w)
	case WorkBuild:
		w.Result.Err = r.build(w.Entries)
	case WorkDeleted:
		w.Result.Err = r.deleted(w)
	case WorkCheck:
		w.Result.Err = r.check(w)
		return w.Result.Err == nil
	case WorkDrop:
		w.Result.Err = r.drop(w)
	case WorkScan, WorkScanDigest:
		w.Result.Err = r.scan(w)
	case WorkIncarnation:
		w.Result.Err = r.settleLife(w.Number)
	case WorkCaughtUp:
		w.Result.Err = r.caughtUp()
	}
	return false
}

// TryRead returns the object of a key, the zero Object when there is none. done is false when it
// would have to wait for a disk.
func (r *Replica) TryRead(part Partition, key []byte) (o Object, done bool, err error) {
	o, _, done, err = r.tryRead(part, key)
	return o, done, err
}

// tryRead is read, unless that would have to wait for a disk.
func (r *Replica) tryRead(part Partition, key []byte) (o Object, data []byte, done bool,
	err error) {
	data, done, err = r.store.TryGet(nil, dataKey(part, key))
	if !done {
		return Object{}, nil, false, nil
	}
	o, data, err = decodeStored(data, err, part, key)
	return o, data, true, err
}

// read returns the object of a key, also as it is stored.
func (r *Replica) read(part Partition, key []byte) (Object, []byte, error) {
	data, err := r.store.Get(nil, dataKey(part, key))
	return decodeStored(data, err, part, key)
}

func dataKey(part Partition, key []byte) []byte {
	return appendDataKey(make([]byte, 0, dataHeadBytes+len(key)), part, key)
}

// decodeStored makes an object of what the store has returned.
func decodeStored(data []byte, err error, part Partition, key []byte) (Object, []byte, error) {
	if errors.Is(err, lsm.ErrNotFound) {
		return Object{}, nil, nil
	}
	if err != nil {
		return Object{}, nil, err
	}
	o, err := DecodeObject(data)
	if err != nil {
		return Object{}, nil, fmt.Errorf("%w: partition %d, key %q", err, part, key)
	}
	return o, data, nil
}

// update coordinates a write: it gives it a dot and merges it with what is here.
func (r *Replica) update(w *Work) error {
	p := &r.parts[w.Part]
	if !p.lockFor(w) {
		return errWouldWait
	}
	defer p.mu.Unlock()
	if p.forgot == r.incarnation.Load() {
		if w.hurried {
			return errWouldWait
		}
		// A clock covers all dots of an actor up to its last, and this node no longer knows which
		// it has given out for a key that it has handed over: to go on counting would claim to
		// have seen them, and whoever still holds them would drop them.
		if err := r.raise(p.forgot + 1); err != nil {
			return err
		}
	}
	old, _, err := r.readFor(w)
	if err != nil {
		return err
	}
	seen := w.Seen
	if w.Blind {
		seen = old.Clock
	}
	s := Sibling{
		Dot:       Dot{Actor: MakeActor(r.self.Number(), r.incarnation.Load()), Seq: p.seq + 1},
		Stamp:     r.nextStamp(w.WallMillis, max(old.MaxStamp(), w.Newest)),
		Tombstone: w.Tombstone,
		Value:     w.Value,
	}
	next := old.Update(seen, s, r.policy(w.Key))
	if n := len(next.Siblings); n > MaxSiblings ||
		n > 1 && next.siblingsBytes() > shareBytes(r.placement.N) {
		return ErrTooManySiblings
	}
	p.seq++ // also when the write fails: a dot that may be in the log is never given out again
	w.Result.Object, w.Result.Changed = next, true
	err = r.writeLocked(p, w, &old, &next)
	if err == errWouldWait {
		p.seq--
	}
	return err
}

// stampAheadMillis is how far a stamp that came from elsewhere may take the clock of a node beyond
// its time of day.
const stampAheadMillis = 3_600_000

// nextStamp returns a stamp above seen and above those of the writes before. What was seen, where
// the client may say what it likes, decides on this key alone when it is too far ahead: as the last
// stamp it would let the writes of all keys win over whatever is written later.
func (r *Replica) nextStamp(wallMillis int64, seen Stamp) Stamp {
	for {
		last := r.stamp.Load()
		own := max(uint64(wallMillis)<<16, last+1)
		next := max(own, uint64(seen)+1)
		keep := max(own, min(next, uint64(wallMillis+stampAheadMillis)<<16))
		if r.stamp.CompareAndSwap(last, keep) {
			return Stamp(next)
		}
	}
}

// merge takes in an object that a peer sent. What is here already costs no write.
func (r *Replica) merge(w *Work) error {
	p := &r.parts[w.Part]
	if !p.lockFor(w) {
		return errWouldWait
	}
	defer p.mu.Unlock()
	old, _, err := r.readFor(w)
	if err != nil {
		return err
	}
	next := Merge(old, w.Object, r.policy(w.Key))
	w.Result.Object = next
	if next.Digest() == old.Digest() {
		w.Result.Encoded = nil
		if len(w.Targets) > 0 {
			return r.noteHintsLocked(w)
		}
		return nil
	}
	w.Result.Changed = true
	return r.writeLocked(p, w, &old, &next)
}

// writeLocked puts next in the place of old, together with the hints of w. The caller holds p.mu.
func (r *Replica) writeLocked(p *partition, w *Work, old, next *Object) error {
	if !next.fits() {
		return ErrTooManySiblings // what is here stays, and what was to come stays where it is
	}
	var b lsm.Batch
	w.Result.Encoded = next.AppendTo(nil)
	b.Put(appendDataKey(nil, w.Part, w.Key), w.Result.Encoded)
	fresh, err := r.addHints(&b, w)
	if err != nil {
		return err
	}
	news := r.addLives(&b, next.Clock)
	if err := r.applyFor(w, &b); err != nil {
		// A write in doubt is visible: the tree follows what is visible.
		if errors.Is(err, lsm.ErrInDoubt) {
			r.lives.learn(news)
			r.hints.add(fresh, 1)
			p.note(w.Key, old, next, w.WallMillis)
		}
		return err
	}
	r.hints.add(fresh, 1)
	r.lives.learn(news)
	r.changed.Add(1)
	p.note(w.Key, old, next, w.WallMillis)
	return nil
}

// note keeps the tree at what is in the store. The caller holds mu.
func (p *partition) note(key []byte, old, next *Object, wallMillis int64) {
	s := &p.summed
	s.mu.Lock()
	defer s.mu.Unlock()
	s.touched, s.fresh = wallMillis, false
	if !s.tracked {
		return
	}
	if s.tree == nil {
		s.tree = new(Tree)
	}
	s.tree.Update(LeafOf(KeyHash(key)), entryHashOf(key, old), entryHashOf(key, next))
}

// entryHashOf is what an object counts in the tree; nothing when there is none.
func entryHashOf(key []byte, o *Object) uint64 {
	if len(o.Clock) == 0 {
		return 0
	}
	return EntryHash(key, o.Digest())
}

// build makes the trees of some partitions.
func (r *Replica) build(parts []entry) error {
	var errs []error
	for _, e := range parts {
		errs = append(errs, r.buildTree(e.part))
	}
	return errors.Join(errs...)
}

// buildTree makes the tree of a partition. Writes go on meanwhile: from the moment of the snapshot
// the tree takes what changes, and what the snapshot holds is added at the end, which commutes.
func (r *Replica) buildTree(part Partition) error {
	p := &r.parts[part]
	p.mu.Lock()
	if !p.summed.track() {
		p.mu.Unlock()
		return nil
	}
	it := r.store.Iter(dataRange(part))
	p.mu.Unlock()

	var sum *Tree
	var failed error
	for it.Next() {
		o, err := DecodeObject(it.Value())
		if err != nil {
			failed = err
			break
		}
		if sum == nil {
			sum = new(Tree)
		}
		key := it.Key()[dataHeadBytes:]
		sum.Update(LeafOf(KeyHash(key)), 0, entryHashOf(key, &o))
	}
	err := errors.Join(failed, it.Close())
	p.mu.Lock()
	defer p.mu.Unlock()
	p.summed.build(sum, err)
	return err
}

// track tells whether the tree has to be built, and takes in what changes from now on.
func (s *summed) track() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.tracked
	s.tracked = true
	return !before
}

// build adds what was there when tracking began, unless it could not be read.
func (s *summed) build(sum *Tree, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		s.tree, s.tracked = nil, false
		return
	case s.tree == nil:
		s.tree = sum
	case sum != nil:
		s.tree.Join(sum)
	}
	s.built, s.fresh = true, false
}

func dataRange(part Partition) (lower, upper []byte) {
	lower = appendDataKey(nil, part, nil)
	return lower, after(lower)
}

// treeOf returns a copy of the tree of a partition, nil while there is none, and the time of day
// in ms at which the partition last changed.
func (r *Replica) treeOf(part Partition) (*Tree, int64) {
	s := &r.parts[part].summed
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.built {
		return nil, s.touched
	}
	t := new(Tree)
	if s.tree != nil {
		*t = *s.tree
	}
	return t, s.touched
}

// objects counts the entries of all trees.
func (r *Replica) objects() (n int) {
	for i := range r.parts {
		s := &r.parts[i].summed
		s.mu.Lock()
		if s.tree != nil && s.built {
			n += s.tree.Entries()
		}
		s.mu.Unlock()
	}
	return n
}

// unreadable is the root of a partition that has no tree because it cannot be read: not that of one
// that holds nothing.
const unreadable = math.MaxUint64

// rootOf is the root of the tree of a partition; 0 for one that holds nothing.
func (r *Replica) rootOf(part Partition) uint64 {
	s := &r.parts[part].summed
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.built:
		return unreadable
	case s.tree == nil:
		return 0
	}
	if !s.fresh {
		s.root, s.fresh = s.tree.Root(), true
	}
	return s.root
}

// pageBytes bounds the objects of a page, but a page has at least one entry. See MaxPageBytes.
const pageBytes = 192 << 10

// leafPage lists what some leaves of a partition hold: keys with digests, or objects.
func (r *Replica) leafPage(w *Work) error {
	if w.Kind == WorkObjects && w.Entries != nil {
		return r.namedObjects(w)
	}
	lower, upper := dataRange(w.Part)
	if len(w.After) > 0 {
		lower = append(appendDataKey(nil, w.Part, w.After), 0)
	}
	it := r.store.Iter(lower, upper)
	size := 0
	for it.Next() {
		key := it.Key()[dataHeadBytes:]
		if !w.Leaves[LeafOf(KeyHash(key))] {
			continue
		}
		o, err := DecodeObject(it.Value())
		if err != nil {
			return errors.Join(err, it.Close())
		}
		e := entry{part: w.Part, key: append([]byte(nil), key...), digest: o.Digest(),
			stamp: o.MaxStamp()}
		if w.Kind == WorkObjects {
			e.object = append([]byte(nil), it.Value()...)
		}
		n := len(e.key) + len(e.object) + 20
		if size += n; size > pageBytes && len(w.Result.Entries) > 0 {
			w.Result.More = true
			break
		}
		w.Result.Entries = append(w.Result.Entries, e)
	}
	return it.Close()
}

// namedObjects reads the objects that Entries name.
func (r *Replica) namedObjects(w *Work) error {
	size := 0
	for _, e := range w.Entries {
		o, data, err := r.read(w.Part, e.key)
		if err != nil {
			return err
		}
		if data == nil {
			continue
		}
		if size += len(e.key) + len(data); size > pageBytes && len(w.Result.Entries) > 0 {
			w.Result.More = true
			break
		}
		w.Result.Entries = append(w.Result.Entries,
			entry{part: w.Part, key: e.key, digest: o.Digest(), object: data})
	}
	return nil
}

// scan lists the pairs of a partition in [Lower, Upper), tombstones too: they count in a merge. Or
// it makes the digest of that list.
func (r *Replica) scan(w *Work) error {
	lower, upper := dataRange(w.Part)
	if len(w.Lower) > 0 {
		lower = appendDataKey(nil, w.Part, w.Lower)
	}
	if len(w.Upper) > 0 {
		upper = appendDataKey(nil, w.Part, w.Upper)
	}
	it := r.store.Iter(lower, upper)
	size, count, mem, sum := 0, 0, arena{}, newPageSum()
	for it.Next() {
		key, object := it.Key()[dataHeadBytes:], it.Value()
		n := len(it.Key()) + len(object)
		if count > 0 && (size+n > pageBytes || count >= w.Limit) {
			w.Result.More = true
			break
		}
		size += n
		count++
		if w.Kind == WorkScanDigest {
			sum.add(key, object)
			continue
		}
		w.Result.Entries = append(w.Result.Entries, entry{
			part:   w.Part,
			key:    mem.copy(key),
			object: mem.copy(object),
		})
	}
	if w.Kind == WorkScanDigest {
		w.Result.Digest = sum.end(w.Result.More)
	}
	return it.Close()
}

// deleted finds objects that are nothing but tombstones.
func (r *Replica) deleted(w *Work) error {
	it := r.store.Iter(dataRange(w.Part))
	for it.Next() {
		o, err := DecodeObject(it.Value())
		if err != nil {
			return errors.Join(err, it.Close())
		}
		if !o.Deleted() {
			continue
		}
		if len(w.Result.Entries) >= w.Limit {
			w.Result.More = true
			break
		}
		key := append([]byte(nil), it.Key()[dataHeadBytes:]...)
		w.Result.Entries = append(w.Result.Entries,
			entry{part: w.Part, key: key, digest: o.Digest()})
	}
	return it.Close()
}

// check keeps of Entries those that are the same here, and tells whether anybody is owed anything
// of the partition. What it answers is durable once Sync has returned.
func (r *Replica) check(w *Work) error {
	p := &r.parts[w.Part]
	p.mu.Lock()
	defer p.mu.Unlock()
	any, err := r.owesLocked(w.Part)
	if err != nil {
		return err
	}
	w.Result.Any = any
	for _, e := range w.Entries {
		o, _, err := r.read(w.Part, e.key)
		if err != nil {
			return err
		}
		if len(o.Clock) > 0 && o.Digest() == e.digest {
			w.Result.Entries = append(w.Result.Entries, e)
		}
	}
	return nil
}

// drop forgets the deleted objects that are still the same.
func (r *Replica) drop(w *Work) error {
	p := &r.parts[w.Part]
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range w.Entries {
		old, _, err := r.read(w.Part, e.key)
		if err != nil {
			return err
		}
		if len(old.Clock) == 0 || old.Digest() != e.digest || !old.Deleted() {
			continue
		}
		var b lsm.Batch
		b.Delete(appendDataKey(nil, w.Part, e.key))
		err = r.store.Apply(&b)
		if err == nil || errors.Is(err, lsm.ErrInDoubt) {
			p.note(e.key, &old, &Object{}, w.WallMillis)
		}
		if err != nil {
			return err
		}
		w.Result.Entries = append(w.Result.Entries, e)
	}
	return nil
}

// partitionOf reads the partition out of a key of the store.
func partitionOf(b []byte) Partition { return Partition(binary.BigEndian.Uint16(b)) }
