// Package offheap gives memory that the garbage collector neither scans nor counts into its goal,
// which would let garbage grow to the same size. It must hold no Go pointers,
// and whoever frees it vouches that nobody reads it any more: a late read is a fault, not garbage.
//
// The memtables and the block cache, which are nearly all of the memory of a database, live in it.
package offheap
