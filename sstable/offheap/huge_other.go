//go:build !linux

package offheap

// adviseHuge does nothing where huge pages cannot be asked for.
func adviseHuge([]byte) {}
