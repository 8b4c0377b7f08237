//go:build !linux

package lsm

// adviseHuge does nothing where huge pages cannot be asked for.
func adviseHuge([]byte) {}
