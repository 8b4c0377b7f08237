package vfs

import (
	"errors"
	"slices"
)

// lostSync is what an inject function returns to have a sync fail and lose what it was to make
// durable.
type lostSync struct {
	err   error
	evict bool
}

func (e *lostSync) Error() string { return "vfs: a sync that loses its data: " + e.err.Error() }

func (e *lostSync) Unwrap() error { return e.err }

// LostSync is what an inject function returns to have a Sync or SyncDir fail with err the way it
// does on systems that give up on what they could not write: what was to become durable counts as
// clean from then on. Reads go on to see it, later syncs succeed and pass it over, and it is gone
// after a loss of power. Only what is written again, in files all of the page, in directories the
// name, is covered by the next sync. (Rebello et al., Can Applications Recover from fsync
// Failures?, ATC 2020.) The file system below the Fault has to be a Mem; on others, and in every
// other operation, it is just err.
func LostSync(err error) error { return &lostSync{err: err} }

// EvictedSync is LostSync, and the lost pages have left the cache since: reads see again what was
// durable before. The size of a file stays, what it has grown by reads as zeros. Names of files
// lead to what they durably did; those of directories stay.
func EvictedSync(err error) error { return &lostSync{err: err, evict: true} }

// loseFile does with h, a file of a Mem, what err asks for and returns the error to fail with.
func loseFile(h File, err error) error {
	e, ok := errors.AsType[*lostSync](err)
	if !ok {
		return err
	}
	if f, ok := h.(*memFile); ok {
		f.m.mu.RLock()
		defer f.m.mu.RUnlock()
		f.n.mu.Lock()
		defer f.n.mu.Unlock()
		if !f.closed {
			f.n.loseLocked(e.evict)
			f.m.tick()
		}
	}
	return e.err
}

// loseNames is loseFile for the names in dir.
func loseNames(fs FS, dir string, err error) error {
	e, ok := errors.AsType[*lostSync](err)
	if !ok {
		return err
	}
	if m, ok := fs.(*Mem); ok {
		m.mu.Lock()
		defer m.mu.Unlock()
		if d, err := m.folderLocked(dir); err == nil {
			m.loseLocked(d, e.evict)
			m.tick()
		}
	}
	return e.err
}

// loseLocked has later syncs pass over what is not durable yet. The caller holds mu.
func (n *inode) loseLocked(evict bool) {
	kept := n.dirty[:0]
	for _, d := range n.dirty {
		g := &n.pages[d.index]
		// A page with the end of a file that was cut stays: its old bytes lie beyond the end.
		whole := n.size >= n.durableSize || int64(d.index+1)*pageBytes <= n.size
		if evict && whole {
			g.live, g.dirty, g.owned = g.durable, 0, false
			continue
		}
		d.lost = true
		kept = append(kept, d)
		g.dirty = int32(len(kept))
	}
	n.dirty = kept
	n.sizeLost = n.size != n.durableSize
}

// loseLocked has later syncs of d pass over the changes to it that are not durable yet.
func (m *Mem) loseLocked(d *folder, evict bool) {
	for _, c := range m.pending {
		if slices.ContainsFunc(c.edits, func(e edit) bool { return e.dir == d }) {
			c.lost = append(c.lost, d)
			m.lost = true
		}
	}
	if !evict {
		return
	}
	for _, c := range m.pending {
		c.edits = slices.DeleteFunc(c.edits, func(e edit) bool {
			if e.dir != d || e.to.dir != nil || d.live[e.name].dir != nil {
				return false
			}
			m.revertLocked(d, e.name)
			return true
		})
	}
	m.pending = slices.DeleteFunc(m.pending, func(c *change) bool { return len(c.edits) == 0 })
}

// revertLocked makes a name lead to the file it durably leads to, or to nothing.
func (m *Mem) revertLocked(d *folder, name string) {
	is, was := d.live[name], d.durable[name]
	if is == was || was.dir != nil {
		return
	}
	edit{d, name, was}.apply(d.live)
	if n := was.file; n != nil {
		if n.links == 0 && n.handles == 0 {
			n.mu.RLock()
			m.space.restore(n.size)
			n.mu.RUnlock()
		}
		n.links++
	}
	if is.file != nil {
		is.file.links--
		m.releaseLocked(is.file)
	}
}

// lostIn reports whether a sync of d passes the change over.
func (c *change) lostIn(d *folder) bool { return slices.Contains(c.lost, d) }
