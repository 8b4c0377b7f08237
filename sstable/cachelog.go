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

// cacheLog is the memory of a Cache as an endless log of frames, written in laps. Positions only
// grow. The frames are, from the oldest on:
//
//	free .. tail  passed: nobody finds them any more, some may still be reading
//	tail .. head  blocks in the cache, and dead frames among them
//
// The rest is free. A lap ends early where enough of the frames at the start are free again: memory
// that the blocks of dropped tables leave is used before more is touched.
//
// A frame that is still pinned when all readers have left stays where it is: the head jumps over
// this island, and it is passed again on the next lap.
type cacheLog struct {
	memory           offheap.Memory
	size             uint64
	extent           uint64 // the lap ends here
	lap, lapBefore   uint64 // where the laps of head and before that begin
	free, tail, head uint64
	waiting          []passedFrames
	islands          []island // ahead of head, nearest first
	islandBytes      int64
	poison           bool // of tests: overwrite what becomes free
}

// passedFrames are those up to end, which become free when the mark has passed.
type passedFrames struct{ end, mark uint64 }

// island is a pinned frame at an offset of the memory.
type island struct{ offset, size uint64 }

func (l *cacheLog) init(memory offheap.Memory) {
	*l = cacheLog{memory: memory, size: uint64(len(memory.Bytes))}
	l.extent = min(l.size, extentStep)
}

// extentStep is how much more memory is used at a time.
const extentStep = 16 << 20

// offset of a position in the memory.
func (l *cacheLog) offset(at uint64) uint64 {
	if at >= l.lap {
		return at - l.lap
	}
	return at - l.lapBefore
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
func (l *cacheLog) room() int64 {
	if l.free < l.lap { // the head is on a lap more, behind it
		return int64(l.free-l.lapBefore) - int64(l.head-l.lap) - l.islandBytes
	}
	return int64(l.size-(l.head-l.lap)+(l.free-l.lap)) - l.islandBytes
}

func (l *cacheLog) limbo() int64 { return int64(l.tail - l.free) }

// place takes a frame at the head and returns its offset.
func (l *cacheLog) place(bytes int64) (offset uint64, ok bool) {
	for n := uint64(bytes); l.size > 0; {
		offset = l.head - l.lap
		limit, behind := l.extent, l.free < l.lap
		if behind {
			limit = l.free - l.lapBefore
		}
		jump := uint64(0)
		if len(l.islands) > 0 && l.islands[0].offset >= offset && l.islands[0].offset < limit {
			limit, jump = l.islands[0].offset, l.islands[0].size
		}
		switch {
		case limit-offset >= n:
			l.head += n
			return offset, true
		case jump > 0:
			l.pad(limit - offset)
			l.head += jump
			l.islandBytes -= int64(jump)
			l.islands = slices.Delete(l.islands, 0, 1)
		case behind:
			return 0, false
		case l.extent < l.size && l.free-l.lap < l.extent/4:
			l.extent = min(l.extent+extentStep, l.size)
		default:
			l.pad(limit - offset)
			l.lapBefore, l.lap = l.lap, l.head
		}
	}
	return 0, false
}

// pad moves the head over bytes that are too few for a frame.
func (l *cacheLog) pad(bytes uint64) {
	if bytes > 0 {
		l.put(l.head-l.lap, &block{size: uint32(bytes)})
		l.head += bytes
	}
}

// fill makes the frame at offset a copy of b.
func (l *cacheLog) fill(offset uint64, bytes int64, b *block) *block {
	payload := l.memory.Bytes[offset+frameUnit : offset+uint64(bytes)]
	t := copy(payload, b.table)
	d := copy(payload[t:], b.data)
	l.put(offset, &block{
		data: payload[t : t+d : t+d], table: payload[:t:t],
		base: b.base, prefix: b.prefix, lead: b.lead, size: uint32(bytes),
	})
	return l.frame(offset)
}

// put writes the head of a frame, byte by byte: an assignment would show what was there before,
// which is anything, to the garbage collector as pointers.
func (l *cacheLog) put(offset uint64, b *block) {
	copy(l.memory.Bytes[offset:], (*[frameUnit]byte)(unsafe.Pointer(b))[:])
}

// oldest returns the frame at the tail, nil when there is none.
func (l *cacheLog) oldest() *block {
	if l.tail == l.head {
		return nil
	}
	return l.frame(l.offset(l.tail))
}

// pass moves the tail over the oldest frame.
func (l *cacheLog) pass(f *block) { l.tail += uint64(f.size) }

// passed is how much was passed since the last retire.
func (l *cacheLog) passed() int64 {
	if n := len(l.waiting); n > 0 {
		return int64(l.tail - l.waiting[n-1].end)
	}
	return l.limbo()
}

// retire notes that what was passed since the last time becomes free when the mark has passed.
func (l *cacheLog) retire(mark uint64) {
	if l.passed() > 0 {
		l.waiting = append(l.waiting, passedFrames{l.tail, mark})
	}
}

// reclaim frees what was passed before marks that have passed.
func (l *cacheLog) reclaim(passed func(mark uint64) bool) {
	n := 0
	for ; n < len(l.waiting) && passed(l.waiting[n].mark); n++ {
		for l.free < l.waiting[n].end {
			offset := l.offset(l.free)
			f := l.frame(offset)
			size := uint64(f.size)
			switch {
			case f.pins.Load() != 0:
				l.islands = append(l.islands, island{offset, size})
				l.islandBytes += int64(size)
			case l.poison && size > frameUnit:
				p := l.memory.Bytes[offset:][frameUnit:size]
				for i := range p {
					p[i] = 0xdb
				}
			}
			l.free += size
		}
	}
	l.waiting = slices.Delete(l.waiting, 0, n)
}
