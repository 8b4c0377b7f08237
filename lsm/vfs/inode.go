package vfs

import "sync"

const (
	sectorBytes = 512  // what a disk writes as one
	pageBytes   = 4096 // what is shared and copied as one in memory

	// fileBytesMax bounds the page table of a file somebody writes far past the end of.
	fileBytesMax = 1 << 34
)

// block is the content of a page. It is immutable once more than one page or disk refers to it.
type block [pageBytes]byte

// page is 4 KiB of a file: what a read sees and what would survive. A nil block is all zeros.
//
// Invariant: a page that is not dirty has live == durable, and does not own the block. Which
// sectors of a dirty page were written is not kept: one written with what it held before cannot be
// told from one that was not.
type page struct {
	live, durable *block
	dirty         bool // written since the last sync
	owned         bool // live is referred to by nothing else and may be written in place
}

// inode is the content of one file of a Mem. Sharing blocks by copy on write makes a crashed disk
// cost a page table, not a copy of every byte, so that a test can afford a crash at every step.
//
// Invariants: live bytes at or past size are zero, durable bytes at or past durableSize are zero;
// pages past the end of the table are holes; dirty lists the dirty pages, each once.
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
			if at > 0 {
				clear(n.ownLocked(i)[at:])
				continue
			}
			n.markLocked(i)
			n.pages[i].live, n.pages[i].owned = nil, false
		}
	}
	n.size = size
}

// ownLocked returns the live block of page i for writing, which makes the page dirty.
func (n *inode) ownLocked(i int) *block {
	if i >= len(n.pages) {
		n.pages = append(n.pages, make([]page, i+1-len(n.pages))...)
	}
	n.markLocked(i)
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

func (n *inode) markLocked(i int) {
	if g := &n.pages[i]; !g.dirty {
		g.dirty = true
		n.dirty = append(n.dirty, i)
	}
}

// syncLocked makes the content durable. The caller holds mu.
func (n *inode) syncLocked() {
	for _, i := range n.dirty {
		g := &n.pages[i]
		g.durable, g.dirty, g.owned = g.live, false, false
	}
	n.dirty = n.dirty[:0]
	n.durableSize = n.size
}
