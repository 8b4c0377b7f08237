package offheap

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapBytes is the size from which memory is mapped. Smaller pieces, as tests use, are on the Go
// heap, where the race detector sees them.
const mapBytes = 1 << 20

// Memory is zero at first and stays where it is until Free.
type Memory struct {
	Words  []uint64
	Bytes  []byte // the same
	mapped []byte
}

// Alloc returns so many bytes, rounded up to words, aligned to 64. Pages are taken from the system
// when they are first touched, huge ones where it has them: with small ones each first touch is a
// fault of 1-4 us on virtual machines, and most lookups miss the TLB.
func Alloc(bytes int64) (Memory, error) {
	n := (bytes + 7) / 8
	if n*8 < mapBytes {
		words := make([]uint64, max(n, 64)) // the runtime aligns 512 bytes and more to 64
		return view(words[:n:n]), nil
	}
	mem, err := unix.Mmap(-1, 0, int(n*8), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return Memory{}, err
	}
	adviseHuge(mem)
	m := view(unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(mem))), n))
	m.mapped = mem
	return m, nil
}

func view(words []uint64) Memory {
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), len(words)*8)
	return Memory{Words: words, Bytes: bytes}
}

// Release gives the pages from a byte on to another back to the system, if they are mapped. What is
// read there afterwards is anything.
func (m *Memory) Release(from, to int64) {
	const page = 64 << 10 // a multiple of that of any system
	from, to = (from+page-1)/page*page, to/page*page
	if m.mapped != nil && from < to {
		_ = unix.Madvise(m.mapped[from:to], unix.MADV_DONTNEED) // advice
	}
}

// Free gives the memory back. Nothing may use it any more.
func (m *Memory) Free() {
	if m.mapped != nil {
		_ = unix.Munmap(m.mapped) // fails only for an address that is not mapped
	}
	*m = Memory{}
}
