package vfs

import (
	"encoding/binary"
	"hash/maphash"
)

// Hash returns a number that two disks of the same content share: the same names that lead to the
// same files, of the same sizes and bytes. What of it is durable does not count. Others share it
// with the probability of a collision of 64 bits. It is the same within one process only.
func (m *Mem) Hash(seed maphash.Seed) uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	h := diskHash{files: map[*inode]uint64{}}
	h.sum.SetSeed(seed)
	h.folder(m.root)
	return h.sum.Sum64()
}

type diskHash struct {
	sum   maphash.Hash
	files map[*inode]uint64 // those met, numbered
}

func (h *diskHash) number(n uint64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], n)
	_, _ = h.sum.Write(b[:]) // never fails
}

func (h *diskHash) folder(f *folder) {
	h.number(uint64(len(f.live)))
	for _, name := range sortedNames(f.live) {
		h.number(uint64(len(name)))
		_, _ = h.sum.WriteString(name)
		if e := f.live[name]; e.dir != nil {
			h.number(^uint64(0)) // no file has that number
			h.folder(e.dir)
		} else {
			h.file(e.file)
		}
	}
}

func (h *diskHash) file(n *inode) {
	if number, met := h.files[n]; met {
		h.number(number)
		return
	}
	h.files[n] = uint64(len(h.files) + 1)
	n.mu.RLock()
	defer n.mu.RUnlock()
	h.number(0) // not met
	h.number(uint64(n.size))
	for i := range int((n.size + pageBytes - 1) / pageBytes) {
		b := &zeroBlock
		if i < len(n.pages) && n.pages[i].live != nil {
			b = n.pages[i].live
		}
		_, _ = h.sum.Write(b[:])
	}
}

// zeroBlock is never written to.
var zeroBlock block
