package offheap

import "golang.org/x/sys/unix"

// adviseHuge asks for huge pages: a lookup in small ones misses the TLB, and each
// first touch of a small page is a fault. It is a hint, and a kernel without them ignores it.
func adviseHuge(mem []byte) { _ = unix.Madvise(mem, unix.MADV_HUGEPAGE) }
