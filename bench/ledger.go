package bench

import (
	"fmt"
	"sync/atomic"
)

// Ledger remembers which version of each loaded key was given out and which was acknowledged, so
// that a read can be judged. One ledger serves all runs on a store, one after the other; inside a
// run all workers use it at once. It takes 8 bytes per key.
//
// A version is epoch<<32 | count. Epochs grow from process to process (seconds since 1970 will do),
// so a value of an earlier process is recognised as older. A key has one writer at a time.
//
// Of keys that an earlier process wrote it knows nothing until Loaded finds them there: from then
// on a loaded key that is missing is lost.
type Ledger struct {
	epoch  uint64 // changes between runs only, before the first version is given out
	loaded bool   // changes between runs only: every loaded key was there, in some version

	issued, acked []atomic.Uint32 // count of the last version given out, acknowledged; 0 = none
}

// NewLedger makes a ledger for the given number of loaded keys.
func NewLedger(keys uint64, epoch uint32) *Ledger {
	return &Ledger{
		epoch:  uint64(epoch) << 32,
		issued: make([]atomic.Uint32, keys),
		acked:  make([]atomic.Uint32, keys),
	}
}

// begin gives out the version for the next write of key i.
func (l *Ledger) begin(i uint64) uint64 { return l.epoch | uint64(l.issued[i].Add(1)) }

// acknowledge notes that the write of that version succeeded.
func (l *Ledger) acknowledge(i, version uint64) { l.acked[i].Store(uint32(version)) }

// anyVersion is the floor of a key that must be there in a version nobody knows. Versions start
// at 1, also those written without a ledger.
const anyVersion = 1

// present notes that all loaded keys were found, the newest of those looked at in that version. A
// process that follows another within the second has the same epoch: it takes a later one.
func (l *Ledger) present(newest uint64) {
	if !l.loaded && newest >= l.epoch && !l.used() {
		l.epoch = (newest>>32 + 1) << 32
	}
	l.loaded = true
}

// used reports whether any version was given out.
func (l *Ledger) used() bool {
	for i := range l.issued {
		if l.issued[i].Load() != 0 {
			return true
		}
	}
	return false
}

// floor is the version that a read starting now must at least see; 0 when the key may be missing.
func (l *Ledger) floor(i uint64) uint64 {
	if count := l.acked[i].Load(); count != 0 {
		return l.epoch | uint64(count)
	}
	if l.loaded {
		return anyVersion
	}
	return 0
}

// check judges the version that a read saw; floor was taken before the read began.
func (l *Ledger) check(n Number, floor, version uint64) error {
	if version < floor {
		return &ValueError{n, fmt.Sprintf("stale: version %x, %x was acknowledged before",
			version, floor)}
	}
	if top := l.epoch | uint64(l.issued[n.Slot()].Load()); version > top {
		return &ValueError{n, fmt.Sprintf("invented: version %x, none above %x was written",
			version, top)}
	}
	return nil
}
