package lsm

import (
	"hash/maphash"
	"math/bits"
	"sync/atomic"
)

// pointIndex finds the versions of one key in a memtable: a hash table of its keys with open
// addressing, one cache miss for a key that is not there and two for one that is, where a skip list
// of half a million entries takes a dozen. It is lock-free and only grows.
//
// A slot is tag<<32 | node: the newest version of a key and 32 bits of its hash, so that slots of
// other keys are passed without touching their nodes. Each version links to the next older one in
// the same form. Invariant: the versions of a key are linked newest first, in whatever order
// commits insert them.
//
// An old version is found by walking from the newest, so a snapshot from before half a million
// writes of one key in one memtable pays for each of them.
type pointIndex struct {
	arena *arena
	slots []uint64
	shift uint
}

// indexSeed makes the hash a secret: that of the filters is public, and keys chosen to collide
// would fill a table with probes.
var indexSeed = maphash.MakeSeed()

func indexHash(user []byte) uint64 { return maphash.Bytes(indexSeed, user) }

// slotsFor is the number of slots of an arena of so many bytes: with entries of 116 bytes the table
// is less than half full, and takes an eighth of the arena's size.
func slotsFor(bytes int64) int {
	return max(16, 1<<bits.Len64(uint64(bytes)/64-1))
}

// entriesMax is how many entries keep probing short.
func (x *pointIndex) entriesMax() uint64 { return uint64(len(x.slots)) / 4 * 3 }

// init makes the index an empty one. The arena's slots must be zero.
func (x *pointIndex) init(a *arena) {
	x.arena, x.slots = a, a.slots
	x.shift = uint(64 - bits.Len(uint(len(a.slots)-1)))
}

// insert adds a node whose user key has the given indexHash.
func (x *pointIndex) insert(node uint32, hash uint64) {
	words, tag := x.arena.words, hash<<32
	user := x.arena.key(node).User
	mask := uint64(len(x.slots) - 1)
	for i := hash >> x.shift; ; i = (i + 1) & mask {
		slot := &x.slots[i]
		first := atomic.LoadUint64(slot)
		for first == 0 { // not taken, at least not for long
			words[node+olderWord] = 0
			if atomic.CompareAndSwapUint64(slot, 0, tag|uint64(node)) {
				return
			}
			first = atomic.LoadUint64(slot)
		}
		if first>>32<<32 == tag && string(x.arena.key(uint32(first)).User) == string(user) {
			x.push(slot, node, tag)
			return
		}
	}
}

// push links a node into the versions of its key, after those that are newer.
func (x *pointIndex) push(slot *uint64, node uint32, tag uint64) {
	words := x.arena.words
	for {
		place := slot
		next := atomic.LoadUint64(place)
		for uint32(next) != 0 && words[uint32(next)+1] > words[node+1] {
			place = &words[uint32(next)+olderWord]
			next = atomic.LoadUint64(place)
		}
		words[node+olderWord] = next // nobody reads it yet
		if atomic.CompareAndSwapUint64(place, next, tag|uint64(node)) {
			return
		}
	}
}

// find returns the newest version of user, whose indexHash is given, with a trailer of at most
// trailer; 0 when there is none.
func (x *pointIndex) find(user []byte, hash, trailer uint64) uint32 {
	words, tag := x.arena.words, hash&0xffffffff
	mask := uint64(len(x.slots) - 1)
	for i := hash >> x.shift; ; i = (i + 1) & mask {
		first := atomic.LoadUint64(&x.slots[i])
		if first == 0 {
			return 0
		}
		if first>>32 != tag || string(x.arena.key(uint32(first)).User) != string(user) {
			continue
		}
		node := uint32(first)
		for node != 0 && words[node+1] > trailer {
			node = uint32(atomic.LoadUint64(&words[node+olderWord]))
		}
		return node
	}
}
