package replication

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"kvd/lsm"
)

// Store is the ordered map that a replica keeps its objects in: the engine in a node, a simulated
// disk in the simulator. Everything that was applied before a Sync that returned nil survives a
// crash; what was applied after it survives as a prefix, whole batches only. Methods may be called
// by any number of goroutines.
type Store interface {
	// Get appends the value of key to dst, or fails with lsm.ErrNotFound.
	Get(dst, key []byte) ([]byte, error)
	// TryGet is Get, or done is false when that would wait for a disk.
	TryGet(dst, key []byte) (value []byte, done bool, err error)
	// Apply makes all writes of b or none of them. They are visible at once and not yet durable.
	Apply(b *lsm.Batch) error
	// TryApply is Apply, or done is false when that would have to wait: nothing has changed then.
	TryApply(b *lsm.Batch) (done bool, err error)
	// Sync returns when everything applied before is as durable as d says.
	Sync(d lsm.Durability) error
	// Iter walks [lower, upper) as it is at the time of the call.
	Iter(lower, upper []byte) StoreIter
}

// StoreIter walks forward. Key and Value are valid until the next move.
type StoreIter interface {
	Next() bool
	Key() []byte
	Value() []byte
	// Close ends the walk and tells whether an error did before.
	Close() error
}

// EngineStore is a Store on the engine.
type EngineStore struct{ DB *lsm.DB }

func (s EngineStore) Get(dst, key []byte) ([]byte, error) { return s.DB.GetTo(dst, key) }
func (s EngineStore) TryGet(dst, key []byte) (value []byte, done bool, err error) {
	return s.DB.TryGet(dst, key)
}
func (s EngineStore) Apply(b *lsm.Batch) error            { return s.DB.Apply(b, lsm.NoSync) }
func (s EngineStore) TryApply(b *lsm.Batch) (bool, error) { return s.DB.TryApply(b) }

// Sync is an empty batch: the engine takes it as a barrier behind everything before it, and callers
// share one sync of the log.
func (s EngineStore) Sync(d lsm.Durability) error {
	if d == lsm.NoSync {
		return nil
	}
	return s.DB.Apply(&lsm.Batch{}, d)
}

func (s EngineStore) Iter(lower, upper []byte) StoreIter {
	return &engineIter{it: s.DB.NewIter(lsm.IterOptions{Lower: lower, Upper: upper})}
}

type engineIter struct {
	it    *lsm.Iter
	began bool
}

func (e *engineIter) Next() bool {
	if !e.began {
		e.began = true
		return e.it.First()
	}
	return e.it.Next()
}

func (e *engineIter) Key() []byte   { return e.it.Key() }
func (e *engineIter) Value() []byte { return e.it.Value() }
func (e *engineIter) Close() error  { return e.it.Close() }

// The keys of a Store. All numbers are big endian, so that what belongs together is one range:
//
//	'd' partition u16, key          an object: the replica's own, or one it keeps for another node
//	'h' node u32, partition u16, key   a hint: the node is owed this object; no value
//	'm' name                        what the node remembers of itself, and of the lives of others
//
// Key "k" of partition 5, owed to the node with number 0x01020304:
//
//	64 0005 6b
//	68 01020304 0005 6b
const (
	dataPrefix = 'd'
	hintPrefix = 'h'
	metaPrefix = 'm'

	dataHeadBytes = 3
	hintHeadBytes = 7
)

// MaxObjectKeyBytes bounds the keys of a cluster: what is put before them must fit the engine's.
const MaxObjectKeyBytes = lsm.MaxKeyBytes - hintHeadBytes

func appendDataKey(dst []byte, part Partition, key []byte) []byte {
	dst = append(dst, dataPrefix)
	dst = binary.BigEndian.AppendUint16(dst, uint16(part))
	return append(dst, key...)
}

func appendHintKey(dst []byte, node uint32, part Partition, key []byte) []byte {
	dst = append(dst, hintPrefix)
	dst = binary.BigEndian.AppendUint32(dst, node)
	dst = binary.BigEndian.AppendUint16(dst, uint16(part))
	return append(dst, key...)
}

// ObjectKeys is the range of an engine in which a replica keeps objects, and ObjectKey takes one of
// its keys apart: for looking at what a stopped node has.
func ObjectKeys() (lower, upper []byte) { return []byte{dataPrefix}, []byte{dataPrefix + 1} }

// ObjectKey returns the partition and the key of an object. They are parts of k.
func ObjectKey(k []byte) (part Partition, key []byte, ok bool) {
	if len(k) <= dataHeadBytes || k[0] != dataPrefix {
		return 0, nil, false
	}
	return partitionOf(k[1:]), k[dataHeadBytes:], true
}

// after returns the first key behind all that begin with prefix.
func after(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

// IdentityError says that a data directory belongs to another node or cluster than the one that
// was to be started on it. Nothing was changed.
type IdentityError struct{ What, Have, Want string }

func (e *IdentityError) Error() string {
	return fmt.Sprintf("replication: the data belongs to %s %s, not to %s", e.What, e.Have, e.Want)
}

var (
	identityKey    = []byte{metaPrefix, 'i', 'd'}
	placementKey   = []byte{metaPrefix, 'p'} // the digest, big endian, and the words for it
	incarnationKey = []byte{metaPrefix, 'n'}
)

// claimStore makes sure that the store is this node's and returns the incarnation it had last: 0
// for a store that has none, which is a first start or a disk that was lost.
func claimStore(s Store, self NodeID) (last uint32, err error) {
	have, err := s.Get(nil, identityKey)
	switch {
	case errors.Is(err, lsm.ErrNotFound):
		it := s.Iter(nil, nil)
		foreign := it.Next()
		if err := it.Close(); err != nil {
			return 0, err
		}
		if foreign {
			return 0, &IdentityError{"a node without a", "cluster", "node " + string(self)}
		}
		var b lsm.Batch
		b.Put(identityKey, []byte(self))
		return 0, s.Apply(&b)
	case err != nil:
		return 0, err
	case string(have) != string(self):
		return 0, &IdentityError{"node", string(have), string(self)}
	}
	text, err := s.Get(nil, incarnationKey)
	if errors.Is(err, lsm.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if len(text) != 4 {
		return 0, fmt.Errorf("replication: incarnation of %d bytes in the store", len(text))
	}
	return binary.BigEndian.Uint32(text), nil
}

// claimPlacement makes sure that the store was filled by a cluster of this placement. Another one
// has other owners for a part of the keys, who would answer that there are none. A store of before
// this was kept takes the placement that it is given. The caller syncs.
func claimPlacement(s Store, p *Placement) error {
	digest := binary.BigEndian.AppendUint64(nil, p.Digest())
	have, err := s.Get(nil, placementKey)
	switch {
	case errors.Is(err, lsm.ErrNotFound):
		var b lsm.Batch
		b.Put(placementKey, append(digest, p.String()...))
		return s.Apply(&b)
	case err != nil:
		return err
	case !bytes.HasPrefix(have, digest):
		return &IdentityError{"the cluster of", string(have[min(8, len(have)):]),
			"that of " + p.String()}
	}
	return nil
}

// saveIncarnation makes n durable. No dot may be given out before it returned nil.
func saveIncarnation(s Store, n uint32) error {
	var b lsm.Batch
	b.Put(incarnationKey, binary.BigEndian.AppendUint32(nil, n))
	return applySynced(s, &b)
}

// nextIncarnation is the one after last, and never one that a life before may have had whose disk
// is gone: the time of day makes up for what was forgotten.
func nextIncarnation(last uint32, wallMillis int64) uint32 {
	seconds := uint32(max(wallMillis/1000, 1))
	return max(last+1, seconds)
}
