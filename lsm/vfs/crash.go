package vfs

import (
	"math/rand/v2"
	"slices"
)

// CrashMode says what becomes of everything that is not durable when the power fails.
type CrashMode uint8

const (
	// KeepAll keeps everything: the death of the process rather than of the machine.
	KeepAll CrashMode = iota
	// KeepNone keeps only what is durable.
	KeepNone
	// Random keeps a random subset of changes to directories, of sectors, and of growths.
	Random
	// Torn is Random, and in each file one of the surviving sectors is new only in its first part.
	Torn
	// Garbage is Random, and sectors may hold random bytes where they were being changed.
	Garbage
)

// CrashModes is every CrashMode, for tests that go through them all.
var CrashModes = [...]CrashMode{KeepAll, KeepNone, Random, Torn, Garbage}

func (c CrashMode) String() string {
	switch c {
	case KeepAll:
		return "KeepAll"
	case KeepNone:
		return "KeepNone"
	case Random:
		return "Random"
	case Torn:
		return "Torn"
	case Garbage:
		return "Garbage"
	}
	return "CrashMode(?)"
}

// Crash returns the disk that a loss of power at this moment would leave, as the first look after
// the restart finds it: everything on it is durable, nothing is open or locked, the capacity is the
// same. m goes on unharmed and shares nothing that either could see the other change.
//
// The result depends only on r, mode and the order of the operations so far. KeepAll and KeepNone
// draw nothing and accept a nil r. It costs a copy of the page tables, 24 bytes per 4 KiB, and of
// the pages that are not synced.
func (m *Mem) Crash(r *rand.Rand, mode CrashMode) *Mem {
	m.mu.RLock()
	defer m.mu.RUnlock()
	c := crash{
		r:     r,
		mode:  mode,
		names: map[*folder]map[string]entry{},
		files: map[*inode]*inode{},
		disk:  NewMem(),
	}
	for _, p := range m.pending {
		for _, e := range c.survivors(p) {
			e.apply(c.namesOf(e.dir))
		}
	}
	c.disk.root = c.folder(m.root)
	m.space.mu.Lock()
	defer m.space.mu.Unlock()
	c.disk.space.limit = m.space.limit
	return c.disk
}

// crash is the work of one Mem.Crash.
type crash struct {
	r    *rand.Rand
	mode CrashMode
	disk *Mem

	names map[*folder]map[string]entry // what the folders of the old disk are left with; nil if met
	files map[*inode]*inode            // old to new: two names of a file stay two names of one
}

// survivors returns the edits of a change that reach the disk.
func (c *crash) survivors(p *change) []edit {
	switch c.mode {
	case KeepAll:
		return p.edits
	case KeepNone:
		return nil
	}
	switch c.r.IntN(3) {
	case 0:
		return nil
	case 1:
		if len(p.edits) == 2 { // a rename: POSIX lets the old name survive as well
			return p.edits[:1]
		}
	}
	return p.edits
}

func (c *crash) namesOf(f *folder) map[string]entry {
	names, ok := c.names[f]
	if !ok {
		names = make(map[string]entry, len(f.durable))
		for name, e := range f.durable {
			names[name] = e
		}
		c.names[f] = names
	}
	return names
}

// folder rebuilds a folder and all below it. A folder that random edits have left in two places
// stays in the first one.
func (c *crash) folder(old *folder) *folder {
	names := c.namesOf(old)
	c.names[old] = nil
	f := newFolder()
	for _, name := range sortedNames(names) {
		e := names[name]
		if e.dir != nil {
			if met, ok := c.names[e.dir]; ok && met == nil {
				continue
			}
			e.dir = c.folder(e.dir)
		} else {
			e.file = c.file(e.file)
			e.file.links++
		}
		f.live[name], f.durable[name] = e, e
	}
	return f
}

func (c *crash) file(old *inode) *inode {
	n, ok := c.files[old]
	if !ok {
		n = c.content(old)
		c.files[old] = n
		c.disk.space.used += n.size
	}
	return n
}

// content builds what is left of a file.
func (c *crash) content(old *inode) *inode {
	old.mu.RLock()
	defer old.mu.RUnlock()
	n := &inode{pages: slices.Clone(old.pages), size: c.size(old.durableSize, old.size)}
	torn := tear{}
	for _, i := range slices.Sorted(slices.Values(old.dirty)) {
		g := &n.pages[i]
		g.live = c.page(i, g, old.size, &torn)
	}
	if torn.seen > 0 {
		torn.apply(c.r, n.pages)
	}
	for i := range n.pages {
		g := &n.pages[i]
		g.durable, g.dirty, g.owned = g.live, false, false
	}
	n.durableSize = n.size
	n.trim()
	return n
}

// size picks the size a file is left with.
func (c *crash) size(durable, live int64) int64 {
	switch {
	case c.mode == KeepNone:
		return durable
	case c.mode == KeepAll || durable == live:
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

// page decides over the unsynced sectors of page i and returns its new block.
func (c *crash) page(i int, g *page, size int64, torn *tear) *block {
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
	if c.mode == KeepNone {
		return &left
	}
	for at := 0; at < pageBytes; at += sectorBytes {
		was, is := durable[at:at+sectorBytes], live[at:at+sectorBytes]
		from, to := changed(was, is)
		// What a cut took off comes back whole if it comes back: it was not written over.
		if from == to || int64(i)*pageBytes+int64(at) >= size {
			continue
		}
		switch fate := c.r.IntN(3); {
		case fate == 0:
		case fate == 1 && c.mode == Garbage:
			for b := from; b < to; b++ {
				left[at+b] = byte(c.r.Uint32())
			}
		default:
			copy(left[at:], is)
			if c.mode == Torn && to-from > 1 {
				torn.offer(c.r, i, at+from, at+to, was[from:])
			}
		}
	}
	return &left
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
