package procs

import "sync/atomic"

// others is whether there was something else to do.
var others atomic.Bool

// Other notes that the process does something else than requests that wait for a sync: a sync on
// the only processor would be in its way.
func Other() {
	if !others.Load() {
		others.Store(true)
	}
}

// Alone reports whether that has not been noted since the last call. It is a guess, for whoever
// syncs: another file's sync may have taken the note.
func Alone() bool { return !others.Swap(false) }
