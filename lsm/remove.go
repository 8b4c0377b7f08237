package lsm

import (
	"errors"
	"io/fs"
	"maps"
	"sync"

	"kvd/lsm/vfs"
)

// remover removes files that are not needed any more and remembers those it could not remove: they
// take space until the next Open tries again, and Check has to tell them from files that were
// forgotten. Its methods may be called concurrently.
type remover struct {
	fs vfs.FS

	mu   sync.Mutex
	left map[string]struct{} // paths
}

// remove is FS.Remove. A file that is not there is no error: some callers clean up after a step
// that may or may not have made it.
func (r *remover) remove(name string) error {
	err := r.fs.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		delete(r.left, name)
		return nil
	}
	if r.left == nil {
		r.left = make(map[string]struct{})
	}
	r.left[name] = struct{}{}
	return err
}

// leftovers returns the files that could not be removed.
func (r *remover) leftovers() map[string]struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.left)
}
