package vfs

import (
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// entry is what a name leads to: a file, a folder, or nothing.
type entry struct {
	file *inode
	dir  *folder
}

// folder is a directory of a Mem. Guarded by Mem.mu.
type folder struct {
	live    map[string]entry // what a lookup sees
	durable map[string]entry // what the last SyncDir made sure of
}

func newFolder() *folder {
	return &folder{live: map[string]entry{}, durable: map[string]entry{}}
}

// holds reports whether d is f or lies in it.
func (f *folder) holds(d *folder) bool {
	if f == d {
		return true
	}
	for _, e := range f.live {
		if e.dir != nil && e.dir.holds(d) {
			return true
		}
	}
	return false
}

// edit makes a name of a folder lead to an entry; to nothing when the entry is zero.
type edit struct {
	dir  *folder
	name string
	to   entry
}

func (e edit) apply(names map[string]entry) {
	if e.to == (entry{}) {
		delete(names, e.name)
	} else {
		names[e.name] = e.to
	}
}

// change is one operation on directories that is not durable yet: one edit, or the two of a rename,
// the target first. Mem.pending has them in the order they happened.
type change struct {
	edits []edit
	made  uint64    // when, by the clock of the disk
	lost  []*folder // those whose sync failed and gave it up
}

// renames returns the target and the source of a rename of which neither is durable.
func (c *change) renames() (target, source edit, ok bool) {
	if len(c.edits) != 2 {
		return edit{}, edit{}, false
	}
	return c.edits[0], c.edits[1], true
}

// changeLocked carries out edits as one change, to be made durable by a later SyncDir.
func (m *Mem) changeLocked(edits ...edit) {
	for _, e := range edits {
		was := e.dir.live[e.name]
		e.apply(e.dir.live)
		if e.to.file != nil {
			e.to.file.links++
		}
		if was.file != nil {
			was.file.links--
			m.releaseLocked(was.file)
		}
	}
	m.pending = append(m.pending, &change{edits: edits, made: m.tick()})
}

// syncDirLocked makes the changes to d durable. A rename out of d takes its target along even if
// that is in another folder, because no file system loses a file between its two names; a renamed
// folder takes both along, because it cannot be in two places.
func (m *Mem) syncDirLocked(d *folder) {
	was := len(m.pending)
	for i, c := range m.pending {
		target, source, ok := c.renames()
		whole := ok && (source.dir == d || target.dir == d && target.to.dir != nil)
		c.edits = slices.DeleteFunc(c.edits, func(e edit) bool {
			if e.dir != d && !whole || c.lostIn(d) {
				return false
			}
			e.apply(e.dir.durable)
			if e.dir != d || m.lost {
				m.supersedeLocked(i, e)
			}
			return true
		})
	}
	if was > 0 {
		m.tick() // one too many if none of them was of d
		m.pending = slices.DeleteFunc(m.pending, func(c *change) bool { return len(c.edits) == 0 })
	}
}

// supersedeLocked forgets what changes before the i-th had in store for a name whose durable entry
// e has just decided.
func (m *Mem) supersedeLocked(i int, e edit) {
	for _, c := range m.pending[:i] {
		c.edits = slices.DeleteFunc(c.edits, func(o edit) bool {
			return o.dir == e.dir && o.name == e.name
		})
	}
}

// locateLocked finds the folder a name is in, and its base name there; that of the root is empty.
func (m *Mem) locateLocked(name string) (*folder, string, error) {
	if name == "" {
		return nil, "", syscall.ENOENT
	}
	d := m.root
	rest := path.Clean("/" + filepath.ToSlash(name))[1:]
	for {
		part, below, deeper := strings.Cut(rest, "/")
		if !deeper {
			return d, part, nil
		}
		e, ok := d.live[part]
		switch {
		case !ok:
			return nil, "", syscall.ENOENT
		case e.dir == nil:
			return nil, "", syscall.ENOTDIR
		}
		d, rest = e.dir, below
	}
}

// lookupLocked returns what a name leads to.
func (m *Mem) lookupLocked(name string) (entry, error) {
	d, base, err := m.locateLocked(name)
	if err != nil {
		return entry{}, err
	}
	if base == "" {
		return entry{dir: d}, nil
	}
	e, ok := d.live[base]
	if !ok {
		return entry{}, syscall.ENOENT
	}
	return e, nil
}

// fileLocked returns the file a name leads to.
func (m *Mem) fileLocked(name string) (*inode, error) {
	e, err := m.lookupLocked(name)
	if err == nil && e.dir != nil {
		err = syscall.EISDIR
	}
	return e.file, err
}

// folderLocked returns the folder a name leads to.
func (m *Mem) folderLocked(name string) (*folder, error) {
	e, err := m.lookupLocked(name)
	if err == nil && e.dir == nil {
		err = syscall.ENOTDIR
	}
	return e.dir, err
}

func sortedNames(names map[string]entry) []string {
	return slices.Sorted(maps.Keys(names))
}
