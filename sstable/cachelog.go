package sstable

import (
	"slices"
	"unsafe"

	"kvd/sstable/offheap"
)

const (
	// frameUnit is what frames are multiples of; the first unit is the block, and what it points
	// to follows. Two cache lines.
	frameUnit     = 128
	cacheBytesMax = 1 << 38 // a slot counts units in 32 bits
	batchBytesMax = 1 << 20
)

// cacheLog is the memory of a Cache as an endless log of frames, written round and round.
// Positions only grow; position p is at p modulo the size. The frames are, from the oldest on:
//
//	free .. tail  passed: nobody finds them any more, some may still be reading
//	tail .. head  blocks in the cache, and dead frames among them
//	head .. free+size  free
//
// A frame that is still pinned when all readers have left stays where it is: the head jumps over
// this island, and it is passed again on the next lap.
type cacheLog struct {
	memory           offheap.Memory
	size             uint64
	free, tail, head uint64
	waiting          []passedFrames
	islands          []island // ahead of head, nearest first
	islandBytes      int64
	poison           bool // of tests: overwrite what becomes free
}

// passedFrames are those up to end, which become free when the mark has passed.
type passedFrames struct{ end, mark uint64 }

type island struct{ at, size uint64 }

func (l *cacheLog) init(memory offheap.Memory) {
	*l = cacheLog{memory: memory, size: uint64(len(memory.Bytes))}
}

// frame returns the frame at an offset of the memory.
func (l *cacheLog) frame(offset uint64) *block {
	return (*block)(unsafe.Pointer(&l.memory.Bytes[offset]))
}

// frameBytes is the size of a frame with so many bytes of payload and table.
func frameBytes(bytes int) int64 {
	return (int64(bytes) + 2*frameUnit - 1) / frameUnit * frameUnit
}

// batch is how much is passed before it waits for readers together.
func (l *cacheLog) batch() int64 { return int64(min(l.size/16, batchBytesMax)) }

// room is how much is free, limbo how much has been passed and is not.
func (l *cacheLog) room() int64  { return int64(l.free+l.size-l.head) - l.islandBytes }
func (l *cacheLog) limbo() int64 { return int64(l.tail - l.free) }

// place takes a frame at the head and returns its offset.
func (l *cacheLog) place(bytes int64) (offset uint64, ok bool) {
	for n := uint64(bytes); l.size > 0; {
		end := (l.head/l.size + 1) * l.size
		limit := min(l.free+l.size, end)
		if len(l.islands) > 0 {
			limit = min(limit, l.islands[0].at)
		}
		if gap := limit - l.head; gap < n {
			if limit == l.free+l.size {
				return 0, false
			}
			if gap > 0 {
				*l.frame(l.head % l.size) = block{size: uint32(gap)}
			}
			l.head = limit
			if len(l.islands) > 0 && l.islands[0].at == limit {
				l.head += l.islands[0].size
				l.islandBytes -= int64(l.islands[0].size)
				l.islands = slices.Delete(l.islands, 0, 1)
			}
			continue
		}
		offset = l.head % l.size
		l.head += n
		return offset, true
	}
	return 0, false
}

// fill makes the frame at offset a copy of b.
func (l *cacheLog) fill(offset uint64, bytes int64, b *block) *block {
	payload := l.memory.Bytes[offset+frameUnit : offset+uint64(bytes)]
	t := copy(payload, b.table)
	d := copy(payload[t:], b.data)
	f := l.frame(offset)
	*f = block{
		data: payload[t : t+d : t+d], table: payload[:t:t],
		base: b.base, prefix: b.prefix, lead: b.lead, size: uint32(bytes),
	}
	return f
}

// pass moves the tail over the next frame.
func (l *cacheLog) pass() (*block, bool) {
	if l.tail == l.head {
		return nil, false
	}
	f := l.frame(l.tail % l.size)
	l.tail += uint64(f.size)
	return f, true
}

// retire notes that what was passed since the last time becomes free when the mark has passed.
func (l *cacheLog) retire(mark uint64) {
	if n := len(l.waiting); n == 0 && l.tail > l.free || n > 0 && l.tail > l.waiting[n-1].end {
		l.waiting = append(l.waiting, passedFrames{l.tail, mark})
	}
}

// reclaim frees what was passed before marks that have passed.
func (l *cacheLog) reclaim(passed func(mark uint64) bool) {
	n := 0
	for ; n < len(l.waiting) && passed(l.waiting[n].mark); n++ {
		for l.free < l.waiting[n].end {
			f := l.frame(l.free % l.size)
			size := uint64(f.size)
			switch {
			case f.pins.Load() != 0:
				l.islands = append(l.islands, island{l.free + l.size, size})
				l.islandBytes += int64(size)
			case l.poison && size > frameUnit:
				p := l.memory.Bytes[l.free%l.size:][frameUnit:size]
				for i := range p {
					p[i] = 0xdb
				}
			}
			l.free += size
		}
	}
	l.waiting = slices.Delete(l.waiting, 0, n)
}
