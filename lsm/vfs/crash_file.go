package vfs

import (
	"cmp"
	"math/rand/v2"
	"slices"
)

// content builds what is left of a file.
func (c *crash) content(old *inode) *inode {
	old.mu.RLock()
	defer old.mu.RUnlock()
	n := &inode{pages: slices.Clone(old.pages), size: c.size(old)}
	torn := tear{}
	for _, d := range slices.SortedFunc(slices.Values(old.dirty), dirtyPage.compare) {
		g := &n.pages[d.index]
		g.live = c.page(&d, g, old, &torn)
	}
	if torn.seen > 0 {
		torn.apply(c.r, n.pages)
	}
	for i := range n.pages {
		g := &n.pages[i]
		g.durable, g.dirty, g.owned = g.live, 0, false
	}
	n.durableSize = n.size
	n.trim()
	return n
}

func (d dirtyPage) compare(e dirtyPage) int { return cmp.Compare(d.index, e.index) }

// size picks the size a file is left with.
func (c *crash) size(old *inode) int64 {
	durable, live := old.durableSize, old.size
	switch c.mode {
	case Random, Torn, Garbage:
	case KeepNone, LoseFiles, LoseSizes:
		return durable
	case LoseNewest:
		if old.written == c.moment {
			return durable
		}
		return live
	default:
		if c.keeps(old.written) {
			return live
		}
		return durable
	}
	if durable == live {
		return live
	}
	switch c.r.IntN(3) {
	case 0:
		return durable
	case 1:
		if live > durable {
			return durable + c.r.Int64N(live-durable)
		}
	}
	return live
}

// page decides over the unsynced sectors of page d of a file and returns its new block.
func (c *crash) page(d *dirtyPage, g *page, old *inode, torn *tear) *block {
	var live, durable block
	if g.live != nil {
		live = *g.live
	}
	if g.durable != nil {
		durable = *g.durable
	}
	if c.mode == KeepAll {
		return &live
	}
	left := durable
	for at := 0; at < pageBytes; at += sectorBytes {
		was, is := durable[at:at+sectorBytes], live[at:at+sectorBytes]
		from, to := changed(was, is)
		// What a cut took off comes back whole if it comes back: it was not written over.
		if from == to || int64(d.index)*pageBytes+int64(at) >= old.size {
			continue
		}
		switch c.fate(d.written[at/sectorBytes], old) {
		case fateLost:
		case fateGarbage:
			for b := from; b < to; b++ {
				left[at+b] = byte(c.r.Uint32())
			}
		default:
			copy(left[at:], is)
			if c.mode == Torn && to-from > 1 {
				torn.offer(c.r, d.index, at+from, at+to, was[from:])
			}
		}
	}
	return &left
}

// fate is what becomes of a sector.
type fate uint8

const (
	fateKept fate = iota
	fateLost
	fateGarbage
)

// fate decides over a sector of a file, written at some time.
func (c *crash) fate(written uint64, old *inode) fate {
	kept := c.keeps(written)
	switch c.mode {
	case Random, Torn, Garbage:
		chance := c.r.IntN(3)
		if chance == 1 && c.mode == Garbage {
			return fateGarbage
		}
		kept = chance != 0
	case KeepNone, LoseFiles, LoseContent:
		kept = false
	case LoseNewest:
		kept = old.written != c.moment
	}
	if kept {
		return fateKept
	}
	return fateLost
}

// changed returns the span of bytes in which two sectors differ.
func changed(was, is []byte) (from, to int) {
	to = len(is)
	for from < to && was[from] == is[from] {
		from++
	}
	for to > from && was[to-1] == is[to-1] {
		to--
	}
	return from, to
}

// tear picks one of the surviving sectors of a file, each as likely as any other.
type tear struct {
	seen     int
	page     int
	from, to int    // the bytes of the page that changed
	was      []byte // what was there
}

func (t *tear) offer(r *rand.Rand, page, from, to int, was []byte) {
	t.seen++
	if r.IntN(t.seen) == 0 {
		t.page, t.from, t.to = page, from, to
		t.was = slices.Clone(was[:to-from])
	}
}

// apply undoes the last part of the change, at least one byte of it and not all.
func (t *tear) apply(r *rand.Rand, pages []page) {
	keep := 1 + r.IntN(t.to-t.from-1)
	copy(pages[t.page].live[t.from+keep:], t.was[keep:])
}

// trim cuts content past the size off.
func (n *inode) trim() {
	first, at := int(n.size/pageBytes), int(n.size%pageBytes)
	if first >= len(n.pages) {
		return
	}
	if g := &n.pages[first]; at > 0 {
		if g.live != nil {
			b := *g.live
			clear(b[at:])
			g.live, g.durable = &b, &b
		}
		first++
	}
	clear(n.pages[first:])
	n.pages = n.pages[:first]
}
