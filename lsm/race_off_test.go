//go:build !race

package lsm

const defaultModelSeeds = 2000
