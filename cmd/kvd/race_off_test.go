//go:build !race

package main

// How many nodes the tests of processes have at a time.
const (
	lanes     = 2
	diskLanes = 2
)

// rssMax bounds the memory of a node with a small memtable and a small cache.
const rssMax = 160 << 20
