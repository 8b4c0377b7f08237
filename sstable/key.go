package sstable

import (
	"bytes"
	"fmt"

	"github.com/cespare/xxhash/v2"
)

// Seq is the position of a write in the total order of all writes of one database. It starts at 1;
// 0 is given to entries at the bottom of the tree whose place in the order no longer matters.
type Seq uint64

// SeqMax is the largest sequence number: 56 bits, so that Seq and Kind share one 8-byte trailer.
const SeqMax Seq = 1<<56 - 1

// Kind says what an entry means. The values are part of the file formats; do not change them.
type Kind uint8

const (
	KindDelete Kind = 0 // a tombstone: the key has no value from this sequence number on
	KindPut    Kind = 1 // the key has the entry's value from this sequence number on
)

func (k Kind) String() string {
	switch k {
	case KindDelete:
		return "DEL"
	case KindPut:
		return "PUT"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Key is an internal key: the user's key and, in the trailer, seq<<8 | kind.
// Whether User may be kept is said by whoever returns the Key.
type Key struct {
	User    []byte
	Trailer uint64
}

// MakeKey joins a user key with its sequence number and kind. It does not copy user.
func MakeKey(user []byte, s Seq, k Kind) Key {
	return Key{User: user, Trailer: uint64(s)<<8 | uint64(k)}
}

// Seq returns the sequence number in the trailer.
func (k Key) Seq() Seq { return Seq(k.Trailer >> 8) }

// Kind returns the kind in the trailer.
func (k Key) Kind() Kind { return Kind(k.Trailer) }

// Clone returns a Key that shares no memory with k.
func (k Key) Clone() Key {
	return Key{User: bytes.Clone(k.User), Trailer: k.Trailer}
}

// String prints the key as in "apple#7,PUT".
func (k Key) String() string {
	return fmt.Sprintf("%q#%d,%s", k.User, k.Seq(), k.Kind())
}

// Compare orders internal keys: by user key, bytes ascending, then newest first. A reader that
// meets the versions of one user key therefore sees the newest one first.
func Compare(a, b Key) int {
	if c := bytes.Compare(a.User, b.User); c != 0 {
		return c
	}
	switch {
	case a.Trailer > b.Trailer:
		return -1
	case a.Trailer < b.Trailer:
		return 1
	}
	return 0
}

// Hash is the one hash of a user key from which every filter probe is derived. A lookup computes
// it once and passes it to all the tables it visits. Part of the file format.
func Hash(user []byte) uint64 { return xxhash.Sum64(user) }
