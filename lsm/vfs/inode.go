package vfs

import (
	"bytes"
	"sync"
)

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
// Invariant: a page that is not dirty has live == durable, and does not own the block.
type page struct {
	live, durable *block
	dirty         int32 // where inode.dirty has it, from 1; 0 when not written since the last sync
	owned         bool  // live is referred to by nothing else and may be written in place
}

// dirtyPage says which sectors of a page were written since the last sync, and when by the clock of
// the disk; 0 is not at all.
type dirtyPage struct {
	index   int
	written [pageBytes / sectorBytes]uint64
	lost    bool // a sync failed and gave it up: it is durable only if it is written again
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
	dirty       []dirtyPage
	size        int64
	durableSize int64
	sizeLost    bool   // as in dirtyPage
	written     uint64 // when the last write or truncation was; 0 when none since the last sync

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
func (n *inode) writeLocked(p []byte, off int64, now uint64) {
	if len(p) == 0 {
		return
	}
	n.written, n.sizeLost = now, false
	n.size = max(n.size, off+int64(len(p)))
	for len(p) > 0 {
		i, at := int(off/pageBytes), int(off%pageBytes)
		w := min(len(p), pageBytes-at)
		if w == pageBytes && bytes.Equal(p[:w], zeroBlock[:]) {
			// Logs grow ahead of themselves by zeros, which as a hole cost no memory.
			n.cutLocked(i, now)
			p, off = p[w:], off+int64(w)
			continue
		}
		copy(n.ownLocked(i, at, at+w, now)[at:], p[:w])
		p, off = p[w:], off+int64(w)
	}
}

// truncateLocked sets the size. What is cut off turns to zeros that are as little durable as any
// other write. The caller holds mu.
func (n *inode) truncateLocked(size int64, now uint64) {
	n.written, n.sizeLost = now, false
	if size < n.size {
		first, at := int(size/pageBytes), int(size%pageBytes)
		for i := first; i < len(n.pages); i, at = i+1, 0 {
			if n.pages[i].live == nil {
				continue
			}
			if at > 0 {
				clear(n.ownLocked(i, at, pageBytes, now)[at:])
				continue
			}
			n.cutLocked(i, now)
		}
	}
	n.size = size
}

// cutLocked makes page i a hole, as little durable as any other write.
func (n *inode) cutLocked(i int, now uint64) {
	n.reachLocked(i)
	n.markLocked(i, 0, pageBytes, now)
	n.pages[i].live, n.pages[i].owned = nil, false
}

// reachLocked makes the page table reach page i.
func (n *inode) reachLocked(i int) {
	if i >= len(n.pages) {
		n.pages = append(n.pages, make([]page, i+1-len(n.pages))...)
	}
}

// ownLocked returns the live block of page i for writing [from, to), which makes the page dirty.
func (n *inode) ownLocked(i, from, to int, now uint64) *block {
	n.reachLocked(i)
	n.markLocked(i, from, to, now)
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

func (n *inode) markLocked(i, from, to int, now uint64) {
	g := &n.pages[i]
	if g.dirty == 0 {
		n.dirty = append(n.dirty, dirtyPage{index: i})
		g.dirty = int32(len(n.dirty))
	}
	d := &n.dirty[g.dirty-1]
	d.lost = false
	for s := from / sectorBytes; s*sectorBytes < to; s++ {
		d.written[s] = now
	}
}

// syncLocked makes the content durable and reports whether it was not. The caller holds mu.
func (n *inode) syncLocked() bool {
	if n.written == 0 {
		return false
	}
	lost := n.dirty[:0]
	for i := range n.dirty {
		g := &n.pages[n.dirty[i].index]
		if n.dirty[i].lost {
			lost = append(lost, n.dirty[i])
			g.dirty = int32(len(lost))
			continue
		}
		g.durable, g.dirty, g.owned = g.live, 0, false
	}
	n.dirty = lost
	if !n.sizeLost {
		n.durableSize = n.size
	}
	if len(lost) == 0 && !n.sizeLost {
		n.written = 0
	}
	return true
}
