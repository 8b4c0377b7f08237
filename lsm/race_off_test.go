//go:build !race

package lsm

const (
	defaultModelSeeds = 2000
	crashSeeds        = 2
	faultShare        = 1.0 // of the matrix of faults
	crashLives        = 2
	faultCrowds       = 150
)
