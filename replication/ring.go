package replication

import (
	"bytes"

	"github.com/cespare/xxhash/v2"
)

// Partitions is how many parts the keys are divided into. It is for ever: a key's partition is
// part of what is stored. The parts are equal and far more than nodes, so that whole partitions
// can be handed out (strategy 3 of DeCandia et al., "Dynamo", SOSP 2007): a node's load is a count,
// and moving load is moving files of whole partitions.
const Partitions = 1 << partitionBits

const (
	partitionBits = 10
	leafBits      = 8
)

// Partition is one part of the keys: 0 to Partitions-1.
type Partition uint16

// PartitionOf returns the partition of a key: the first ten bits of its [KeyHash].
func PartitionOf(key []byte) Partition {
	return Partition(xxhash.Sum64(hashTag(key)) >> (64 - partitionBits))
}

// KeyHash places a key: the first ten bits are its partition, the eight after them its leaf within
// it. The ten are taken from the xxhash64 of the key's tag, if it has one: what stands between its
// first '{' and the next '}', when that is not nothing. So "{cart7}a" and "{cart7}b" are in one
// partition. All other bits are those of the xxhash64 of the whole key, or a partition full of
// keys of one tag would be a single leaf.
func KeyHash(key []byte) uint64 {
	hash := xxhash.Sum64(key)
	if tag := hashTag(key); len(tag) < len(key) {
		const low = 1<<(64-partitionBits) - 1
		hash = xxhash.Sum64(tag)&^low | hash&low
	}
	return hash
}

// LeafOf returns the leaf of a [Tree] that a key with this [KeyHash] counts in: 0 to Leaves-1.
func LeafOf(hash uint64) int {
	return int(hash >> (64 - partitionBits - leafBits) % Leaves)
}

// hashTag returns the part of a key that decides its partition; it is shorter than the key unless
// it is the key.
func hashTag(key []byte) []byte {
	open := bytes.IndexByte(key, '{')
	if open < 0 {
		return key
	}
	length := bytes.IndexByte(key[open+1:], '}')
	if length <= 0 {
		return key
	}
	return key[open+1 : open+1+length]
}
