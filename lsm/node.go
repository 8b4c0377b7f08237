package lsm

import "kvd/sstable"

// A node is an entry of a memtable, a run of 8-byte words in its arena:
//
//	keyLen 24 bits | height 8 | valueLen 32
//	trailer (seq<<8 | kind)
//	link to the next older version of the same key: see pointIndex
//	height links of the skip list, level 0 first; none for an entry that is not in the list
//	key bytes, value bytes, padding to a word
//
// It is named by the index of its first word. Word 0 is never a node, so that a zero link means the
// end. Nodes stand one after the other in the order in which their space was reserved. A node's
// words but for its links do not change once it is linked anywhere.
const (
	nodeHeader = 3
	olderWord  = 2
)

// nodeBytes is the arena space of an entry.
func nodeBytes(keyBytes, valueBytes, height int) int64 {
	return (int64(nodeHeader+height)*8 + int64(keyBytes) + int64(valueBytes) + 7) &^ 7
}

// writeNode fills the node at, but for its links, and returns the word after it.
func (a *arena) writeNode(at uint32, height int, key sstable.Key, value []byte) uint32 {
	a.words[at] = uint64(len(key.User)) | uint64(height)<<24 | uint64(len(value))<<32
	a.words[at+1] = key.Trailer
	start := (int(at) + nodeHeader + height) * 8
	n := copy(a.bytes[start:], key.User)
	n += copy(a.bytes[start+n:], value)
	return uint32((start + n + 7) / 8)
}

// after returns the word after a node.
func (a *arena) after(node uint32) uint32 {
	head := a.words[node]
	bytes := int(head&0xffffff) + int(head>>32)
	return node + nodeHeader + uint32(head>>24&0xff) + uint32((bytes+7)/8)
}

// key returns the key of a node. It lives in the arena.
func (a *arena) key(node uint32) sstable.Key {
	head := a.words[node]
	start := (int(node) + nodeHeader + int(head>>24&0xff)) * 8
	end := start + int(head&0xffffff)
	return sstable.Key{User: a.bytes[start:end:end], Trailer: a.words[node+1]}
}

// value returns the value of a node. It lives in the arena.
func (a *arena) value(node uint32) []byte {
	head := a.words[node]
	start := (int(node)+nodeHeader+int(head>>24&0xff))*8 + int(head&0xffffff)
	end := start + int(head>>32)
	return a.bytes[start:end:end]
}
