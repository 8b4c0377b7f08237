package bench

import (
	"encoding/binary"
	"fmt"
)

// worker does operations one after the other. It belongs to one goroutine and allocates nothing
// after its buffers have grown.
type worker struct {
	run        *runner
	choose     chooser
	pinger     Pinger
	background bool
	samples    []sample
	serial     uint64 // of the writes of a run without ledger
	inARow     int    // failures since the last success
	hash       uint64

	key, value, read []byte
	op               operation
	version, floor   uint64
	outcome          outcome

	// Of the scan under way.
	visit func(key, value []byte) bool // visitPair, bound once
	seen  int                          // pairs visited, also those of other key spaces
	due   uint64                       // slot of the first loaded key that may still follow
	last  []byte                       // key of the pair before
	cut   bool                         // the run ended before the scan did
	wrong error

	_ [lineBytes]byte // not shared with the next worker
}

// outcome is what one operation did.
type outcome struct {
	err     error
	missing bool
	entries int // pairs read by a scan
	bytes   int // of keys and values, both directions
}

// closed does quota operations (0: no limit) back to back.
func (w *worker) closed(quota uint64) {
	r := w.run
	end := int64(0)
	for n := uint64(0); quota == 0 || n < quota; n++ {
		// What was prepared is done: an insert that was chosen holds its place in the frontier.
		if r.stopped.Load() || r.until > 0 && end >= r.until || !w.prepare() {
			return
		}
		begin := r.now()
		w.do()
		end = r.now()
		w.finish(end, end-begin)
	}
}

// open does operations when they are due and measures from then.
func (w *worker) open() {
	for due := range w.run.tickets {
		if w.run.stopped.Load() || !w.prepare() {
			return
		}
		w.do()
		end := w.run.now()
		w.finish(end, end-due)
	}
}

// prepare chooses the next operation and makes its key and value.
func (w *worker) prepare() bool {
	op := &w.op
	if !w.choose.next(op) {
		return false
	}
	w.outcome = outcome{}
	if op.kind == Ping {
		return true
	}
	w.key = w.run.space.AppendKey(w.key[:0], op.number)
	w.floor = 0
	if w.tracked() {
		w.floor = w.run.spec.Ledger.floor(op.number.Slot())
	}
	if op.kind == Update || op.kind == Insert {
		w.makeValue()
	}
	return true
}

// tracked reports whether the ledger knows the key of the operation.
func (w *worker) tracked() bool {
	return w.run.spec.Ledger != nil && w.op.number.layer() == layerLoaded
}

func (w *worker) makeValue() {
	if w.tracked() {
		w.version = w.run.spec.Ledger.begin(w.op.number.Slot())
	} else {
		w.serial++
		w.version = w.serial
	}
	w.value = w.run.values.Append(w.value[:0], w.op.number, w.version)
}

// do does the operation: what happens here is what is measured.
func (w *worker) do() {
	o := &w.outcome
	switch w.op.kind {
	case Read:
		w.get()
	case Update, Insert:
		o.err = w.run.target.Put(w.key, w.value)
		o.bytes = len(w.key) + len(w.value)
	case ReadModifyWrite:
		w.get()
		if o.err == nil {
			w.makeValue()
			o.err = w.run.target.Put(w.key, w.value)
			o.bytes += len(w.key) + len(w.value)
		}
	case Scan:
		w.beginScan()
		o.entries, o.err = w.run.target.Scan(w.key, w.op.count, w.visit)
	case Ping:
		o.err = w.pinger.Ping()
	}
}

func (w *worker) get() {
	var found bool
	o := &w.outcome
	w.read, found, o.err = w.run.target.Get(w.read[:0], w.key)
	o.missing = !found && o.err == nil
	o.bytes = len(w.read)
	if found {
		o.bytes += len(w.key)
	}
}

// visitPair takes one pair of a scan. It touches key and value, so that a store cannot get away
// with not loading them.
func (w *worker) visitPair(key, value []byte) bool {
	w.seen++
	w.outcome.bytes += len(key) + len(value)
	w.fold(uint64(len(key))<<32 ^ uint64(len(value)))
	if len(key) >= 8 {
		w.fold(binary.LittleEndian.Uint64(key[len(key)-8:]))
	}
	if len(value) >= 8 {
		w.fold(binary.LittleEndian.Uint64(value[len(value)-8:]))
	}
	if w.run.spec.Ledger != nil && w.wrong == nil {
		w.wrong = w.checkPair(key, value)
	}
	w.cut = w.op.count < 0 && w.run.stopped.Load()
	return w.wrong == nil && !w.cut
}

// fold mixes x into the hash over all that was read.
func (w *worker) fold(x uint64) { w.hash = (w.hash ^ x) * 0x9e3779b97f4a7c15 }

// finish judges the operation after the clock stopped and records it.
func (w *worker) finish(end, took int64) {
	r, op, o := w.run, &w.op, &w.outcome
	if op.kind == Insert && !w.choose.load.Fill {
		r.front.finish(op.place, o.err == nil)
	}
	if o.err != nil {
		r.rec.failed(op.kind, end, o.err)
		if w.inARow++; w.inARow >= errorsInARow {
			r.fail(fmt.Errorf("bench: gave up after %d failures in a row, the last: %w",
				w.inARow, o.err))
		}
		return
	}
	w.inARow = 0
	if r.hashing {
		w.fold(uint64(op.kind))
		w.foldRead()
	}
	if r.spec.Ledger != nil {
		r.fail(w.verify())
	}
	w.samples = append(w.samples, sample{
		end: end, took: took, entries: o.entries, bytes: o.bytes, kind: op.kind, missing: o.missing,
	})
	if len(w.samples) == cap(w.samples) || end-w.samples[0].end > samplesAge {
		w.flush()
	}
}

func (w *worker) foldRead() {
	if w.op.kind != Read && w.op.kind != ReadModifyWrite {
		return
	}
	w.fold(uint64(len(w.read)))
	for p := w.read; len(p) >= 8; p = p[8:] {
		w.fold(binary.LittleEndian.Uint64(p))
	}
}

func (w *worker) flush() {
	w.run.rec.merge(w.samples)
	w.samples = w.samples[:0]
}

// verify judges what a successful operation read, and tells the ledger what it wrote.
func (w *worker) verify() error {
	l, op := w.run.spec.Ledger, &w.op
	var err error
	switch op.kind {
	case Scan:
		return w.checkScan()
	case Read, ReadModifyWrite:
		err = w.checkRead()
	}
	if op.kind != Read && w.tracked() {
		l.acknowledge(op.number.Slot(), w.version)
	}
	return err
}

func (w *worker) checkRead() error {
	n := w.op.number
	if w.outcome.missing {
		switch {
		case n.layer() == layerMissing:
			return nil
		case n.layer() == layerLoaded && w.floor == anyVersion:
			return &ValueError{n, "lost: it was loaded"}
		case n.layer() == layerLoaded && w.floor != 0:
			return &ValueError{n, fmt.Sprintf("lost: version %x was acknowledged", w.floor)}
		case n.layer() != layerLoaded && w.run.front.failed.Load() == 0:
			return &ValueError{n, "lost: its insert was acknowledged"}
		}
		return nil
	}
	return w.judge(n, w.floor, w.read)
}

// judge checks a value that was read for n.
func (w *worker) judge(n Number, floor uint64, value []byte) error {
	version, err := CheckValue(n, value)
	switch {
	case err != nil:
		return err
	case n.layer() == layerMissing:
		return &ValueError{n, "invented: nobody writes this key"}
	case n.layer() != layerLoaded:
		return nil
	}
	return w.run.spec.Ledger.check(n, floor, version)
}
