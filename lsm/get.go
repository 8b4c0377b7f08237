package lsm

import "kvd/sstable"

// Get returns a copy of the value of key, or ErrNotFound. A *CorruptError says that the value
// cannot be known because a file is damaged.
func (db *DB) Get(key []byte) ([]byte, error) {
	value, err := db.GetTo(nil, key)
	if err != nil {
		return nil, err
	}
	if value == nil {
		value = []byte{}
	}
	return value, nil
}

// GetTo appends the value of key to dst and returns the result, which is dst unchanged when there
// is an error. It allocates nothing when dst has room and the block is cached.
func (db *DB) GetTo(dst, key []byte) ([]byte, error) { return db.get(dst, key, true) }

// TryGet is GetTo for a caller that must not wait for a disk: done is false when it would have to
// read a file. dst then comes back as it was, and the GetTo that should follow may wait.
func (db *DB) TryGet(dst, key []byte) (value []byte, done bool, err error) {
	value, err = db.get(dst, key, false)
	if err == sstable.ErrNotCached {
		return dst, false, nil
	}
	return value, true, err
}

// get is the hot path of reading: the state before the sequence number. The other way round, a
// flush and compaction between the two could drop the version that the older sequence number is
// entitled to, and the key would seem gone.
func (db *DB) get(dst, key []byte, wait bool) ([]byte, error) {
	cell := db.readers.Enter()
	s := db.state.Load()
	if s == nil {
		cell.Exit()
		return dst, ErrClosed
	}
	value, err := s.get(dst, key, db.published.seq(), wait)
	cell.Exit()
	return value, err
}
