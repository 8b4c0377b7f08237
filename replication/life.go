package replication

import (
	"encoding/binary"
	"errors"
	"maps"
	"sync"
	"sync/atomic"

	"kvd/lsm"
)

// Both are in a store that was empty, also after a restart: freshKey until its node knows which of
// its lives it is in, behindKey until it has what others have.
var (
	freshKey  = []byte{metaPrefix, 'f'}
	behindKey = []byte{metaPrefix, 'b'}
)

// life is what a node knows of its life when that begins.
type life struct {
	incarnation uint32
	fresh       bool // another life may have had it: no dot before others were asked
	empty       bool // there is nothing in the store
	behind      bool // what a life before has stored may be missing
}

// beginLife makes the incarnation of a new life durable.
func beginLife(s Store, last uint32, wallMillis int64) (l life, err error) {
	l.incarnation = nextIncarnation(last, wallMillis)
	var b lsm.Batch
	b.Put(incarnationKey, binary.BigEndian.AppendUint32(nil, l.incarnation))
	if last == 0 {
		b.Put(freshKey, nil)
		b.Put(behindKey, nil)
		l.fresh, l.empty, l.behind = true, true, true
		return l, applySynced(s, &b)
	}
	if l.fresh, err = isThere(s, freshKey); err != nil {
		return l, err
	}
	if l.behind, err = isThere(s, behindKey); err != nil {
		return l, err
	}
	return l, applySynced(s, &b)
}

func isThere(s Store, key []byte) (bool, error) {
	_, err := s.Get(nil, key)
	if errors.Is(err, lsm.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// settleLife makes n durable as the incarnation of this life, which is none of a life before.
func (r *Replica) settleLife(n uint32) error {
	if err := r.raise(n); err != nil {
		return err
	}
	var b lsm.Batch
	b.Delete(freshKey)
	return applySynced(r.store, &b)
}

// raise makes a greater incarnation durable and takes it.
func (r *Replica) raise(n uint32) error {
	r.raising.Lock()
	defer r.raising.Unlock()
	if n <= r.incarnation.Load() {
		return nil
	}
	if err := saveIncarnation(r.store, n); err != nil {
		return err
	}
	r.incarnation.Store(n)
	return nil
}

// caughtUp forgets that the store was empty. It becomes durable behind what has come since.
func (r *Replica) caughtUp() error {
	var b lsm.Batch
	b.Delete(behindKey)
	return r.store.Apply(&b)
}

func applySynced(s Store, b *lsm.Batch) error {
	if err := s.Apply(b); err != nil {
		return err
	}
	return s.Sync(lsm.Sync)
}

// lives are the last lives of other nodes of which anything is stored here. A node that has lost
// its disk asks for them, and who answers may have been started since: so the first object with a
// dot of a life goes into the store in one batch with a record of that life.
type lives struct {
	known atomic.Pointer[map[uint32]uint32] // incarnation by number; replaced, never changed
	mu    sync.Mutex                        // held while it is
}

// lifePrefix begins the records: node u32, incarnation u32, no value. One for each life, so that
// it does not matter in which order two are written.
var lifePrefix = []byte{metaPrefix, 'l'}

func (l *lives) load(s Store) error {
	all := make(map[uint32]uint32)
	it := s.Iter(lifePrefix, after(lifePrefix))
	for it.Next() {
		if k := it.Key()[len(lifePrefix):]; len(k) == 8 {
			node := binary.BigEndian.Uint32(k)
			all[node] = max(all[node], binary.BigEndian.Uint32(k[4:]))
		}
	}
	l.known.Store(&all)
	return it.Close()
}

// of is the last life of a node that is known, 0 for none.
func (l *lives) of(node uint32) uint32 { return (*l.known.Load())[node] }

// addLives puts records of the lives in a clock that are not in the store yet into b and returns
// them. They are known when b has been applied.
func (r *Replica) addLives(b *lsm.Batch, c Clock) (news []Actor) {
	for _, d := range c {
		node, n := d.Actor.Node(), d.Actor.Incarnation()
		if n > r.lives.of(node) && node != r.self.Number() {
			key := binary.BigEndian.AppendUint32(append([]byte(nil), lifePrefix...), node)
			b.Put(binary.BigEndian.AppendUint32(key, n), nil)
			news = append(news, d.Actor)
		}
	}
	return news
}

func (l *lives) learn(news []Actor) {
	if len(news) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	all := maps.Clone(*l.known.Load())
	for _, a := range news {
		all[a.Node()] = max(all[a.Node()], a.Incarnation())
	}
	l.known.Store(&all)
}
