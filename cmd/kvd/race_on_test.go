//go:build race

package main

// The race detector takes several times the memory and the time.
const (
	lanes     = 2
	diskLanes = 1
	rssMax    = 1 << 30
)
