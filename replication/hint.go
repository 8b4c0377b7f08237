package replication

import (
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"

	"kvd/lsm"
)

// A hint says that a node is owed what an object holds. It names the key only: the object is beside
// it, the replica's own or one kept for the node, and what is handed over is the object as it is
// then. A key that was written a thousand times while a node was away travels once.

// HintsMax bounds the hints for one node. An owner beyond it counts what it drops, which the
// comparison of trees finds again; a node that stands in refuses the write.
const HintsMax = 4 << 20

// ErrHintsFull refuses to stand in for a node that is owed too much already.
var ErrHintsFull = errors.New("replication: too many hints for one node")

// hintCounts are the numbers of hints in the store by the node they are for.
type hintCounts struct {
	total   atomic.Int64
	mu      sync.Mutex
	count   map[uint32]int
	dropped atomic.Uint64
}

func (h *hintCounts) load(s Store, p *Placement) error {
	h.count = make(map[uint32]int)
	for _, m := range p.Members {
		n := 0
		lower := binary.BigEndian.AppendUint32([]byte{hintPrefix}, m.ID.Number())
		it := s.Iter(lower, after(lower))
		for it.Next() {
			n++
		}
		if err := it.Close(); err != nil {
			return err
		}
		h.count[m.ID.Number()] = n
		h.total.Add(int64(n))
	}
	return nil
}

func (h *hintCounts) add(nodes []uint32, n int) {
	if len(nodes) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, node := range nodes {
		h.count[node] += n
		h.total.Add(int64(n))
	}
}

func (h *hintCounts) of(node uint32) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count[node]
}

// addHints puts the hints of w that are not in the store yet into b and returns their nodes.
func (r *Replica) addHints(b *lsm.Batch, w *Work) (fresh []uint32, err error) {
	for _, node := range w.Targets {
		key := appendHintKey(nil, node, w.Part, w.Key)
		_, err := r.store.Get(nil, key)
		if err == nil {
			continue
		}
		if !errors.Is(err, lsm.ErrNotFound) {
			return nil, err
		}
		if r.hints.of(node) >= HintsMax {
			if !r.placement.Owns(r.self, w.Part) {
				return nil, ErrHintsFull
			}
			r.hints.dropped.Add(1)
			continue
		}
		b.Put(key, nil)
		fresh = append(fresh, node)
	}
	return fresh, nil
}

func (r *Replica) noteHints(w *Work) error {
	p := &r.parts[w.Part]
	p.mu.Lock()
	defer p.mu.Unlock()
	return r.noteHintsLocked(w)
}

func (r *Replica) noteHintsLocked(w *Work) error {
	var b lsm.Batch
	fresh, err := r.addHints(&b, w)
	if err != nil || len(fresh) == 0 {
		return err
	}
	if err := r.store.Apply(&b); err != nil {
		if errors.Is(err, lsm.ErrInDoubt) { // visible
			r.hints.add(fresh, 1)
		}
		return err
	}
	r.hints.add(fresh, 1)
	return nil
}

// hintPage lists what a node is owed, with the objects as they are now.
func (r *Replica) hintPage(w *Work) error {
	prefix := binary.BigEndian.AppendUint32([]byte{hintPrefix}, w.Target)
	lower := prefix
	if w.After != nil {
		lower = append(append([]byte(nil), w.After...), 0)
	}
	it := r.store.Iter(lower, after(prefix))
	size := 0
	for it.Next() {
		full := len(w.Result.Entries) >= w.Limit || size > pageBytes
		if full {
			w.Result.More = true
			break
		}
		k := it.Key()
		part := partitionOf(k[hintHeadBytes-2:])
		key := append([]byte(nil), k[hintHeadBytes:]...)
		o, data, err := r.read(part, key)
		if err != nil {
			// Damage keeps nobody else's object from being handed over.
			w.Result.Entries = append(w.Result.Entries, entry{part: part, key: key, damaged: true})
			continue
		}
		size += len(data) + len(key)
		w.Result.Entries = append(w.Result.Entries,
			entry{part: part, key: key, digest: o.Digest(), object: data})
	}
	return it.Close()
}

// hintDone forgets a hint whose object was handed over, unless the object has changed since, and
// with the last hint for a key the object that this node kept for others only.
func (r *Replica) hintDone(w *Work) error {
	p := &r.parts[w.Part]
	p.mu.Lock()
	defer p.mu.Unlock()
	o, _, err := r.read(w.Part, w.Key)
	if err != nil {
		return err
	}
	if o.Digest() != w.Digest {
		return nil
	}
	hint := appendHintKey(nil, w.Target, w.Part, w.Key)
	if _, err := r.store.Get(nil, hint); err != nil {
		if errors.Is(err, lsm.ErrNotFound) {
			return nil
		}
		return err
	}
	var b lsm.Batch
	b.Delete(hint)
	own := r.placement.Owns(r.self, w.Part)
	if !own {
		more, err := r.owed(w.Part, w.Key, w.Target)
		if err != nil {
			return err
		}
		if !more {
			b.Delete(appendDataKey(nil, w.Part, w.Key))
			p.forgot = r.incarnation.Load()
		}
	}
	err = r.store.Apply(&b)
	if err == nil || errors.Is(err, lsm.ErrInDoubt) {
		r.hints.add([]uint32{w.Target}, -1)
		w.Result.Changed = true
	}
	return err
}

// owed reports whether an owner other than node is owed the key too.
func (r *Replica) owed(part Partition, key []byte, node uint32) (bool, error) {
	for _, owner := range r.placement.Owners(part) {
		n := owner.Number()
		if n == node || r.hints.of(n) == 0 {
			continue
		}
		_, err := r.store.Get(nil, appendHintKey(nil, n, part, key))
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, lsm.ErrNotFound) {
			return false, err
		}
	}
	return false, nil
}

// owesLocked reports whether there is a hint for anybody about the partition.
func (r *Replica) owesLocked(part Partition) (bool, error) {
	for _, m := range r.placement.Members {
		n := m.ID.Number()
		if r.hints.of(n) == 0 {
			continue
		}
		lower := appendHintKey(nil, n, part, nil)
		it := r.store.Iter(lower, after(lower))
		any := it.Next()
		if err := it.Close(); err != nil || any {
			return any, err
		}
	}
	return false, nil
}
