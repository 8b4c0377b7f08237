package lsm

import (
	"slices"
	"sync/atomic"

	"kvd/sstable"
)

// Snapshot is the database as it was at one moment. Compactions keep what it can see until Close.
// Its methods may be called concurrently.
type Snapshot struct {
	db     *DB
	seq    sstable.Seq
	closed atomic.Bool
}

// NewSnapshot returns the database as it is now: it sees all writes that have returned, and of
// those under way each whole or not at all.
func (db *DB) NewSnapshot() *Snapshot {
	// Reading the sequence number and registering it are one step under mu, where compactions
	// copy the list: none can start in between without knowing of this snapshot.
	db.mu.Lock()
	defer db.mu.Unlock()
	s := &Snapshot{db: db, seq: db.published.seq()}
	db.snapshots = append(db.snapshots, s)
	return s
}

// Get returns a copy of the value that key had, or ErrNotFound.
func (s *Snapshot) Get(key []byte) ([]byte, error) {
	cell := s.db.readers.Enter()
	defer cell.Exit()
	state := s.db.state.Load()
	// After the state: versions go only after the Close, and then from later states.
	if state == nil || s.closed.Load() {
		return nil, ErrClosed
	}
	value, err := state.get([]byte{}, key, s.seq, true)
	if err != nil {
		return nil, err
	}
	return value, nil
}

// NewIter returns an iterator over the snapshot. It may outlive the snapshot's Close.
func (s *Snapshot) NewIter(o IterOptions) *Iter {
	it := s.db.newIter(o, s)
	if s.closed.Load() { // after the state was taken, as in Get
		_ = it.Close()
		return &Iter{err: ErrClosed}
	}
	return it
}

// Close lets compactions drop what only this snapshot could see. A second Close returns ErrClosed.
func (s *Snapshot) Close() error {
	if s.closed.Swap(true) {
		return ErrClosed
	}
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	i := slices.Index(s.db.snapshots, s)
	s.db.snapshots = slices.Delete(s.db.snapshots, i, i+1)
	return nil
}

// snapshotSeqsLocked returns what compactions must preserve, ascending. The caller holds mu.
func (db *DB) snapshotSeqsLocked() []sstable.Seq {
	var seqs []sstable.Seq
	for _, s := range db.snapshots {
		if n := len(seqs); n == 0 || seqs[n-1] != s.seq {
			seqs = append(seqs, s.seq)
		}
	}
	return seqs
}
