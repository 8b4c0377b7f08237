package bench

import (
	"bytes"
	"fmt"
)

// A scan is judged by the floors as they are while it runs, not as they were when it began: that
// would take a copy of the ledger per scan. It is right because no workload both scans and writes
// loaded keys, so the floors stand still (TestNoWorkloadScansWhatItUpdates).

func (w *worker) beginScan() {
	w.seen, w.last, w.cut, w.wrong = 0, w.last[:0], false, nil
	w.due = dueAt(w.op.number)
}

// dueAt is the slot of the first loaded key at or after n.
func dueAt(n Number) uint64 {
	if n.layer() == layerLoaded {
		return n.Slot()
	}
	return n.Slot() + 1
}

// checkPair judges one pair of a scan: its order, its value, and whether an acknowledged key should
// have stood between it and the pair before. Keys that are not of the key space are left alone.
func (w *worker) checkPair(key, value []byte) error {
	n, ok := w.run.space.Parse(key)
	if !ok {
		return nil
	}
	if bytes.Compare(key, w.key) < 0 || bytes.Compare(key, w.last) <= 0 {
		return &ValueError{n, fmt.Sprintf("out of order in a scan: after %q", w.last)}
	}
	w.last = append(w.last[:0], key...)
	if err := w.checkSkipped(dueAt(n), "a scan skipped it"); err != nil {
		return err
	}
	w.due = n.Slot() + 1
	floor := uint64(0)
	if n.layer() == layerLoaded {
		floor = w.run.spec.Ledger.floor(n.Slot())
	}
	return w.judge(n, floor, value)
}

// checkScan judges a scan as a whole: how many pairs there were and, when there were fewer than
// asked for, that no acknowledged key follows the last of them.
func (w *worker) checkScan() error {
	count := w.op.count
	switch {
	case w.wrong != nil || w.cut:
		return w.wrong
	case w.seen != w.outcome.entries || count >= 0 && w.seen > count:
		return &ValueError{w.op.number, fmt.Sprintf(
			"miscounted: a scan for %d pairs from here gave %d and says %d",
			count, w.seen, w.outcome.entries)}
	case w.seen == count:
		return nil
	}
	return w.checkSkipped(w.run.spec.Keys, "a scan ended before it")
}

// checkSkipped looks for an acknowledged key from the first that is due up to slot end.
func (w *worker) checkSkipped(end uint64, how string) error {
	for i := w.due; i < end; i++ {
		if w.run.spec.Ledger.floor(i) != 0 {
			return &ValueError{w.run.space.Loaded(i), "lost: " + how}
		}
	}
	return nil
}
