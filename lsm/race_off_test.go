//go:build !race

package lsm

const (
	defaultModelSeeds = 2000
	crashSeeds        = 2
)
