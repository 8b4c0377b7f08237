package replication

import (
	"encoding/binary"
	"errors"

	"kvd/lsm"
)

// freshKey is in a store that was empty, until its node knows which of its lives it is in: also
// after a restart before that.
var freshKey = []byte{metaPrefix, 'f'}

// beginLife makes the incarnation of a new life durable, and tells whether the store is fresh: then
// it may be that of a life before, and no dot may be given out before others were asked.
func beginLife(s Store, last uint32, wallMillis int64) (n uint32, fresh bool, err error) {
	n = nextIncarnation(last, wallMillis)
	var b lsm.Batch
	b.Put(incarnationKey, binary.BigEndian.AppendUint32(nil, n))
	if last == 0 {
		b.Put(freshKey, nil)
	} else if _, err := s.Get(nil, freshKey); err == nil {
		fresh = true
	} else if !errors.Is(err, lsm.ErrNotFound) {
		return 0, false, err
	}
	return n, fresh || last == 0, applySynced(s, &b)
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

func applySynced(s Store, b *lsm.Batch) error {
	if err := s.Apply(b); err != nil {
		return err
	}
	return s.Sync(lsm.Sync)
}
