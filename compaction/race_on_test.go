//go:build race

package compaction

// The race detector makes everything ten times slower, and the simulation is one goroutine.
const defaultSimFlushes = 100_000
