package vfs

import (
	"maps"
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
	// LoseRemovals keeps everything but loses removals: what was renamed has both names.
	LoseRemovals
	// LoseNames loses the changes to directories and keeps the files.
	LoseNames
	// LoseFiles keeps the changes to directories and loses those of files: a rename persisted, and
	// what was renamed did not.
	LoseFiles
	// LoseContent loses only the bytes: what grew is zeros.
	LoseContent
	// LoseSizes loses only the sizes: what was written within the old ones is there.
	LoseSizes
	// LoseNewest loses what the file written last has not synced.
	LoseNewest
	// LoseEarly loses what happened before some random moment and keeps what happened after it, as
	// a disk does that writes late things first.
	LoseEarly
	// LoseLate keeps what happened before some random moment and loses what happened after it.
	LoseLate
	// LoseOne loses what one random operation did.
	LoseOne
	// KeepOne keeps what one random operation did.
	KeepOne
)

// CrashModes is every CrashMode, for tests that go through them all.
var CrashModes = [...]CrashMode{KeepAll, KeepNone, Random, Torn, Garbage, LoseRemovals, LoseNames,
	LoseFiles, LoseContent, LoseSizes, LoseNewest, LoseEarly, LoseLate, LoseOne, KeepOne}

var crashNames = [len(CrashModes)]string{"KeepAll", "KeepNone", "Random", "Torn", "Garbage",
	"LoseRemovals", "LoseNames", "LoseFiles", "LoseContent", "LoseSizes",
	"LoseNewest", "LoseEarly", "LoseLate", "LoseOne", "KeepOne"}

func (c CrashMode) String() string {
	if int(c) < len(crashNames) {
		return crashNames[c]
	}
	return "CrashMode(?)"
}

// Draws reports whether the mode is one of chance, so that other seeds leave other disks.
func (c CrashMode) Draws() bool {
	switch c {
	case Random, Torn, Garbage, LoseEarly, LoseLate, LoseOne, KeepOne:
		return true
	}
	return false
}

// Crash returns the disk that a loss of power at this moment would leave, as the first look after
// the restart finds it: everything on it is durable, nothing is open or locked, the capacity is the
// same. m goes on unharmed and shares nothing that either could see the other change. Operations
// that run meanwhile are on it as a whole or not at all.
//
// The result depends only on r, mode and the order of the operations so far. Modes that do not
// draw accept a nil r. It costs a copy of the page tables, 24 bytes per 4 KiB, and of the pages
// that are not synced.
func (m *Mem) Crash(r *rand.Rand, mode CrashMode) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := crash{
		r:     r,
		mode:  mode,
		names: map[*folder]map[string]entry{},
		files: map[*inode]*inode{},
		disk:  NewMem(),
	}
	switch mode {
	case LoseNewest, LoseEarly, LoseLate, LoseOne, KeepOne:
		c.chooseMoment(m)
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
	r      *rand.Rand
	mode   CrashMode
	moment uint64 // what the modes of one moment, one operation or one file go by
	disk   *Mem

	names map[*folder]map[string]entry // what the folders of the old disk are left with; nil if met
	files map[*inode]*inode            // old to new: two names of a file stay two names of one
}

// chooseMoment picks an operation that is not durable, each as likely as any other; for LoseNewest
// the last one on a file.
func (c *crash) chooseMoment(m *Mem) {
	times := map[uint64]bool{}
	files := map[*inode]bool{}
	for _, p := range m.pending {
		times[p.made] = true
		for _, e := range p.edits {
			e.to.collect(files)
		}
	}
	entry{dir: m.root}.collect(files)
	for n := range files {
		n.mu.RLock()
		if n.written != 0 {
			times[n.written] = true
			c.moment = max(c.moment, n.written)
		}
		for i := range n.dirty {
			for _, at := range n.dirty[i].written {
				if at != 0 {
					times[at] = true
				}
			}
		}
		n.mu.RUnlock()
	}
	if c.mode == LoseNewest || len(times) == 0 {
		return
	}
	sorted := slices.Sorted(maps.Keys(times))
	c.moment = sorted[c.r.IntN(len(sorted))]
}

// collect finds all files that an entry leads to, or did when it was last durable.
func (e entry) collect(files map[*inode]bool) {
	if e.file != nil {
		files[e.file] = true
	}
	if e.dir == nil {
		return
	}
	for _, names := range []map[string]entry{e.dir.live, e.dir.durable} {
		for _, below := range names {
			below.collect(files)
		}
	}
}

// keeps decides, in the modes of one moment, over what an operation at some time did.
func (c *crash) keeps(at uint64) bool {
	switch c.mode {
	case LoseEarly:
		return at >= c.moment
	case LoseLate:
		return at < c.moment
	case LoseOne:
		return at != c.moment
	case KeepOne:
		return at == c.moment
	}
	return true
}

// survivors returns the edits of a change that reach the disk.
func (c *crash) survivors(p *change) []edit {
	switch c.mode {
	case KeepNone, LoseNames:
		return nil
	case LoseRemovals:
		return slices.DeleteFunc(slices.Clone(p.edits), func(e edit) bool {
			return e.to == (entry{})
		})
	case Random, Torn, Garbage:
	default:
		if c.keeps(p.made) {
			return p.edits
		}
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
