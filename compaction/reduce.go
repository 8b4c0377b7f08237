package compaction

import (
	"bytes"
	"errors"
	"fmt"

	"kvd/sstable"
)

// verdict is what becomes of one entry of the inputs.
type verdict uint8

const (
	keep     verdict = iota
	shadowed         // a newer version serves every reader that could have wanted this one
	dropped          // a tombstone with nothing left to hide
)

var errOrder = errors.New("compaction: input keys out of order")

// reducer decides which versions survive a merge. It is fed all versions of all user keys of a
// job in the order of sstable.Compare and knows nothing of files.
//
// The snapshots cut the sequence numbers into stripes; stripe i holds the numbers above
// snapshot i-1 up to and including snapshot i, the last one all that are newer than every
// snapshot. All readers of a stripe see the same version of a key, the newest in it:
//
//   - of each user key, the newest version of each stripe is kept and the others are shadowed;
//   - a tombstone kept by that rule is dropped iff it is in stripe 0, so that no snapshot
//     is older than it, and no table in a level below the target can hold its user key. Its
//     job, hiding older versions, is done: those in the job were shadowed by it just now;
//   - a put in the same position (stripe 0, nothing below) gets sequence number 0. That is safe
//     because every reader that will see the output is at or after the put: it is either a live
//     snapshot, and all of those are, or it starts later; readers from before pinned the inputs.
//     And no older version of the key exists anywhere for it to be confused with.
type reducer struct {
	snapshots []sstable.Seq // ascending
	below     []runCursor

	user    []byte // copy of the user key of the previous entry
	trailer uint64 // and its trailer
	started bool
	stripe  int // of the previous entry
}

// runCursor answers "can this run hold the user key" for ascending keys in amortised O(1).
type runCursor struct {
	tables []*sstable.Meta
}

func (c *runCursor) mayHold(user []byte) bool {
	for len(c.tables) > 0 && bytes.Compare(c.tables[0].Largest.User, user) < 0 {
		c.tables = c.tables[1:]
	}
	return len(c.tables) > 0 && bytes.Compare(c.tables[0].Smallest.User, user) <= 0
}

func makeReducer(snapshots []sstable.Seq, below [][]*sstable.Meta) reducer {
	r := reducer{snapshots: snapshots}
	for _, run := range below {
		if len(run) > 0 {
			r.below = append(r.below, runCursor{run})
		}
	}
	return r
}

// step takes the next entry and returns its fate and the trailer to write it with. fresh tells
// that its user key differs from the previous entry's: the only place where outputs may be cut.
func (r *reducer) step(k sstable.Key) (trailer uint64, v verdict, fresh bool, err error) {
	c := -1
	if r.started {
		c = bytes.Compare(r.user, k.User)
	}
	stripe := r.stripeOf(k.Seq())
	switch {
	case c > 0 || c == 0 && k.Trailer > r.trailer:
		prev := sstable.Key{User: r.user, Trailer: r.trailer}
		return 0, 0, false, fmt.Errorf("%w: %v after %v", errOrder, k, prev)
	case c == 0:
		r.trailer = k.Trailer
		if stripe == r.stripe {
			return 0, shadowed, false, nil
		}
		r.stripe = stripe
	default:
		r.user = append(r.user[:0], k.User...)
		r.trailer, r.stripe, r.started, fresh = k.Trailer, stripe, true, true
	}
	if stripe > 0 || r.mayBeBelow(k.User) {
		return k.Trailer, keep, fresh, nil
	}
	if k.Kind() == sstable.KindDelete {
		return 0, dropped, fresh, nil
	}
	return uint64(k.Kind()), keep, fresh, nil
}

// stripeOf returns how many snapshots are older than s.
func (r *reducer) stripeOf(s sstable.Seq) int {
	i, j := 0, len(r.snapshots)
	for i < j {
		h := int(uint(i+j) >> 1)
		if r.snapshots[h] < s {
			i = h + 1
		} else {
			j = h
		}
	}
	return i
}

func (r *reducer) mayBeBelow(user []byte) bool {
	for i := range r.below {
		if r.below[i].mayHold(user) {
			return true
		}
	}
	return false
}
