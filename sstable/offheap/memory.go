package offheap

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Memory is zero at first and stays where it is until Free.
type Memory struct {
	Words  []uint64
	Bytes  []byte // the same
	mapped []byte
}

// mapped counts the bytes of all Memory that is mapped.
var mapped atomic.Int64

// Mapped returns how many bytes are mapped in this process: unlike garbage on the heap, what is
// forgotten here never comes back.
func Mapped() int64 { return mapped.Load() }

// Alloc returns so many bytes, rounded up to words, aligned to 64. Less than mappedMin bytes come
// from the Go heap, where the race detector sees them.
//
// Pages are taken from the system when they are first touched, huge ones where it has them: with
// small ones each first touch is a fault of 1-4 us on virtual machines, and most lookups miss the
// TLB.
func Alloc(bytes, mappedMin int64) (Memory, error) {
	n := (bytes + 7) / 8
	if n*8 < mappedMin {
		words := make([]uint64, max(n, 64)) // the runtime aligns 512 bytes and more to 64
		return view(words[:n:n]), nil
	}
	mem, err := unix.Mmap(-1, 0, int(n*8), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return Memory{}, err
	}
	adviseHuge(mem)
	m := view(unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(mem))), n))
	m.mapped = mem
	mapped.Add(int64(len(mem)))
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
		mapped.Add(-int64(len(m.mapped)))
		_ = unix.Munmap(m.mapped) // fails only for an address that is not mapped
	}
	*m = Memory{}
}

// Pack copies slices without pointers into one piece of memory and makes them refer to it, so that
// the collector neither scans nor counts them. Where there is no such memory they stay as they are.
type Pack struct {
	bytes int64
	moves []func(p []byte) []byte
}

// Add has a slice moved by Move.
func Add[T ~uint8 | ~uint32 | ~uint64](p *Pack, s *[]T) {
	size := int64(len(*s)) * int64(unsafe.Sizeof(*new(T)))
	if size == 0 {
		return
	}
	p.bytes += (size + 63) &^ 63 // lines of their own
	p.moves = append(p.moves, func(to []byte) []byte {
		moved := unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(to))), len(*s))
		copy(moved, *s)
		*s = moved
		return to[(size+63)&^63:]
	})
}

// Move moves what was added, if it is at least mappedMin bytes, and returns what to Free.
func (p *Pack) Move(mappedMin int64) Memory {
	if p.bytes < mappedMin {
		return Memory{}
	}
	m, err := Alloc(p.bytes, 0)
	if err != nil {
		return Memory{}
	}
	rest := m.Bytes
	for _, move := range p.moves {
		rest = move(rest)
	}
	return m
}
