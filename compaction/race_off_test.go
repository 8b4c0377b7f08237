//go:build !race

package compaction

const defaultSimFlushes = 1_000_000
