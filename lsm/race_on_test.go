//go:build race

package lsm

// The race detector makes everything ten times slower.
const (
	defaultModelSeeds = 200
	crashSeeds        = 1
	faultShare        = 0.04 // of the matrix of faults
	crashLives        = 1
	faultCrowds       = 15
)
