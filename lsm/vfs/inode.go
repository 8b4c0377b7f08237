package vfs

import (
	"slices"
	"sync"
)

const (
	sectorBytes = 512  // what a disk writes as one
	pageBytes   = 4096 // what is shared and copied as one in memory
	pageSectors = pageBytes / sectorBytes
	allSectors  = 1<<pageSectors - 1

	// fileBytesMax bounds the page table of a file somebody writes far past the end of.
	fileBytesMax = 1 << 34
)

// block is the content of a page. It is immutable once more than one page or disk refers to it.
type block [pageBytes]byte

// page is 4 KiB of a file: what a read sees and what would survive. A nil block is all zeros.
//
// Invariant: dirty == 0 implies live == durable, and then the block is shared and not owned.
type page struct {
	live, durable *block
	dirty         uint8 // bit i: sector i was written since the last sync
	owned         bool  // live is referred to by nothing else and may be written in place
}

// inode is the content of one file of a Mem. Sharing blocks by copy on write makes a crashed disk
// cost a page table, not a copy of every byte, so that a test can afford a crash at every step.
//
// Invariants: live bytes at or past size are zero, durable bytes at or past durableSize are zero;
// pages past the end of the table are holes; dirty names every page whose dirty bits are set
// (maybe more, maybe twice).
type inode struct {
	// Guarded by mu, which is taken after Mem.mu.
	mu          sync.RWMutex
	pages       []page
	dirty       []int
	size        int64
	durableSize int64

	// Guarded by Mem.mu.
	links   int // directory entries
	handles int // open files and locks
	locked  bool
}

// readLocked copies the live bytes from off on and returns how many there were. The caller holds mu
// for reading.
func (n *inode) readLocked(p []byte, off int64) int {
	if off >= n.size {
		return 0
	}
	p = p[:min(int64(len(p)), n.size-off)]
	for rest := p; len(rest) > 0; {
		i, at := int(off/pageBytes), int(off%pageBytes)
		part := rest[:min(len(rest), pageBytes-at)]
		if i < len(n.pages) && n.pages[i].live != nil {
			copy(part, n.pages[i].live[at:])
		} else {
			clear(part)
		}
		rest, off = rest[len(part):], off+int64(len(part))
	}
	return len(p)
}

// writeLocked puts p at off and grows the file if need be. Room has been made sure of. Writing
// nothing does nothing, however far out. The caller holds mu.
func (n *inode) writeLocked(p []byte, off int64) {
	if len(p) == 0 {
		return
	}
	n.size = max(n.size, off+int64(len(p)))
	for len(p) > 0 {
		i, at := int(off/pageBytes), int(off%pageBytes)
		w := min(len(p), pageBytes-at)
		copy(n.ownLocked(i)[at:], p[:w])
		n.markLocked(i, at, at+w)
		p, off = p[w:], off+int64(w)
	}
}

// truncateLocked sets the size. What is cut off turns to zeros that are as little durable as any
// other write. The caller holds mu.
func (n *inode) truncateLocked(size int64) {
	if size < n.size {
		first, at := int(size/pageBytes), int(size%pageBytes)
		for i := first; i < len(n.pages); i, at = i+1, 0 {
			if n.pages[i].live == nil {
				continue
			}
			if at == 0 {
				n.pages[i].live, n.pages[i].owned = nil, false
			} else {
				clear(n.ownLocked(i)[at:])
			}
			n.markLocked(i, at, pageBytes)
		}
	}
	n.size = size
}

// ownLocked returns the live block of page i for writing.
func (n *inode) ownLocked(i int) *block {
	if i >= len(n.pages) {
		n.pages = append(n.pages, make([]page, i+1-len(n.pages))...)
	}
	g := &n.pages[i]
	if !g.owned {
		b := new(block)
		if g.live != nil {
			*b = *g.live
		}
		g.live, g.owned = b, true
	}
	return g.live
}

// markLocked notes that bytes [from, to) of page i are no longer durable; from < to.
func (n *inode) markLocked(i, from, to int) {
	g := &n.pages[i]
	if g.dirty == 0 {
		n.dirty = append(n.dirty, i)
	}
	for s := from / sectorBytes; s <= (to-1)/sectorBytes; s++ {
		g.dirty |= 1 << s
	}
}

// syncLocked makes the content durable. The caller holds mu.
func (n *inode) syncLocked() {
	for _, i := range n.dirty {
		g := &n.pages[i]
		g.durable, g.dirty, g.owned = g.live, 0, false
	}
	n.dirty = n.dirty[:0]
	n.durableSize = n.size
}

// dirtyPagesLocked returns the numbers of the pages with unsynced sectors, ascending.
func (n *inode) dirtyPagesLocked() []int {
	d := slices.Clone(n.dirty)
	slices.Sort(d)
	return slices.Compact(d)
}
