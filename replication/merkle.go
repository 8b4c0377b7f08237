package replication

import (
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"
)

// Leaves is the number of leaves of a [Tree].
const Leaves = 1 << leafBits

const (
	leafSumBytes = 12
	// LeavesBytes is the size of all leaves of a tree.
	LeavesBytes = Leaves * leafSumBytes
)

// EntryHash is what a key counts in its leaf of a [Tree] when its object has that digest. It is 0
// only for the digest 0, that of an object of which nothing is known: no entry.
func EntryHash(key []byte, digest uint64) uint64 {
	if digest == 0 {
		return 0
	}
	var d xxhash.Digest
	d.Reset()
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], digest)
	d.Write(b[:])
	d.Write(key)
	return max(d.Sum64(), 1)
}

// LeafSum is all the entries of one leaf: the exclusive or of their hashes, and how many there are.
type LeafSum struct {
	Hash  uint64
	Count uint32
}

// Tree sums up the entries of one partition, so that two nodes find out whether they hold the same
// and, if not, in which 256th of the keys they differ (Merkle, 1987; two levels). A leaf is an
// exclusive or, so an entry goes in and out in constant time and in any order; the count tells
// apart what the exclusive or cannot, such as nothing and the same entry twice. It is a check
// against loss and drift, not against someone who chooses values to deceive it.
//
// The zero Tree is empty. It has no lock: whoever changes the entries has one.
type Tree struct {
	hashes [Leaves]uint64
	counts [Leaves]uint32
}

// Update takes the entry hash before out of a leaf and puts the one after in; 0 stands for no
// entry. See [LeafOf] and [EntryHash].
func (t *Tree) Update(leaf int, before, after uint64) {
	t.hashes[leaf] ^= before ^ after
	if before != 0 {
		t.counts[leaf]--
	}
	if after != 0 {
		t.counts[leaf]++
	}
}

// Join puts all entries of o in, of which t has none.
func (t *Tree) Join(o *Tree) {
	for i := range Leaves {
		t.hashes[i] ^= o.hashes[i]
		t.counts[i] += o.counts[i]
	}
}

// Entries returns the number of entries.
func (t *Tree) Entries() int {
	n := 0
	for _, c := range t.counts {
		n += int(c)
	}
	return n
}

// Root sums up the tree. It is equal for equal leaves, and 0 for the empty tree only.
func (t *Tree) Root() uint64 {
	if t.Entries() == 0 {
		return 0
	}
	var b [LeavesBytes]byte
	for i := range Leaves {
		putLeafSum(b[i*leafSumBytes:], LeafSum{t.hashes[i], t.counts[i]})
	}
	return max(xxhash.Sum64(b[:]), 1)
}

// Leaves returns a copy of the leaves.
func (t *Tree) Leaves() []LeafSum {
	leaves := make([]LeafSum, Leaves)
	for i := range leaves {
		leaves[i] = LeafSum{t.hashes[i], t.counts[i]}
	}
	return leaves
}

// Diff returns the leaves in which two trees differ, ascending. What a list lacks counts as empty.
func Diff(a, b []LeafSum) []int {
	var diff []int
	for i := range max(len(a), len(b)) {
		var x, y LeafSum
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x != y {
			diff = append(diff, i)
		}
	}
	return diff
}

// LeavesError says why bytes are not the leaves of a tree.
type LeavesError struct {
	Leaf   int // -1 when it is not about one
	Reason string
}

func (e *LeavesError) Error() string {
	if e.Leaf < 0 {
		return "replication: leaves: " + e.Reason
	}
	return fmt.Sprintf("replication: leaf %d: %s", e.Leaf, e.Reason)
}

// AppendLeaves appends leaves as a message carries them: a bit for each that is not empty, then of
// each of these the hash in 8 bytes and the count in 4, little-endian. The tree of a partition with
// few keys, or of a node that has lost its disk, is small.
func AppendLeaves(dst []byte, leaves []LeafSum) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, Leaves/8)...)
	for i, l := range leaves {
		if l == (LeafSum{}) {
			continue
		}
		dst[at+i/8] |= 1 << (i % 8)
		var b [leafSumBytes]byte
		putLeafSum(b[:], l)
		dst = append(dst, b[:]...)
	}
	return dst
}

func putLeafSum(b []byte, l LeafSum) {
	binary.LittleEndian.PutUint64(b, l.Hash)
	binary.LittleEndian.PutUint32(b[8:], l.Count)
}

// DecodeLeaves returns the leaves of one tree, all of them. It refuses with a [*LeavesError] what
// no tree has: a hash without entries, and one entry without a hash.
func DecodeLeaves(b []byte) ([]LeafSum, error) {
	if len(b) < Leaves/8 {
		return nil, &LeavesError{Leaf: -1, Reason: fmt.Sprintf("%d bytes are too few", len(b))}
	}
	present, b := b[:Leaves/8], b[Leaves/8:]
	leaves := make([]LeafSum, Leaves)
	for i := range leaves {
		if present[i/8]&(1<<(i%8)) == 0 {
			continue
		}
		if len(b) < leafSumBytes {
			return nil, &LeavesError{Leaf: i, Reason: "cut short"}
		}
		l := LeafSum{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint32(b[8:])}
		if l == (LeafSum{}) {
			return nil, &LeavesError{Leaf: i, Reason: "empty, and said not to be"}
		}
		if l.Count == 0 && l.Hash != 0 {
			return nil, &LeavesError{Leaf: i, Reason: "a hash of no entries"}
		}
		if l.Count == 1 && l.Hash == 0 {
			return nil, &LeavesError{Leaf: i, Reason: "an entry without a hash"}
		}
		leaves[i], b = l, b[leafSumBytes:]
	}
	if len(b) > 0 {
		return nil, &LeavesError{Leaf: -1, Reason: "trailing bytes"}
	}
	return leaves, nil
}

// PartitionRoot is the root of the tree of one partition.
type PartitionRoot struct {
	Partition Partition
	Root      uint64
}

// Summary sums up the trees of many partitions: two nodes that hold the same in all the partitions
// they share learn so from one number. The roots are in ascending order of partitions.
func Summary(roots []PartitionRoot) uint64 {
	var d xxhash.Digest
	d.Reset()
	for _, r := range roots {
		var b [10]byte
		binary.LittleEndian.PutUint16(b[:], uint16(r.Partition))
		binary.LittleEndian.PutUint64(b[2:], r.Root)
		d.Write(b[:])
	}
	return d.Sum64()
}
