package sstable

// Iterator walks internal keys in the order of Compare. Tables, memtables, levels and merges of
// them all have this shape.
//
// A move reports whether it landed on an entry. When it did not, the iterator is exhausted in that
// direction or failed: Err tells which. Key and Value may be called only after a move that landed;
// what they return is valid until the next move or Close. Next after an exhausted Prev (and the
// reverse) does not land: position again with First, Last or a seek.
//
// An Iterator is used by one goroutine at a time.
type Iterator interface {
	First() bool
	Last() bool
	// SeekGE moves to the first entry whose user key is at or after user: the newest version of it.
	SeekGE(user []byte) bool
	// SeekLT moves to the last entry whose user key is before user: the oldest version of it.
	SeekLT(user []byte) bool
	Next() bool
	Prev() bool
	Key() Key
	Value() []byte
	Err() error
	Close() error
}
