package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// ErrClosed is returned by a Writer after Close.
var ErrClosed = errors.New("wal: closed")

// errRecordSize fails a writer that was given a record no frame can hold.
var errRecordSize = fmt.Errorf("wal: a record exceeds %d bytes", MaxFrame)

const (
	// bufferBytes is the first capacity of a buffer, unless the log grows in smaller steps.
	bufferBytes = 64 << 10
	// cutBytes is where a frame ends and another begins: in one buffer that grew with what is
	// waiting, large values spent a third of their time in being copied to a larger one. A buffer
	// that is too small becomes so large at once: to double it step by step made as much garbage
	// as there was data.
	cutBytes        = 512 << 10
	bufferKeepBytes = 2 * cutBytes // a buffer that grew beyond this is not kept for reuse
	buffersKept     = 16
)

// Writer is the end of the log that grows.
//
// A record is appended to a buffer in memory, and then written or synced by whoever needs it so.
// The first to come leads: it takes all that was appended so far as one group, writes it as one
// frame, syncs if anyone in the group asked for that, and wakes the group. Those who come
// meanwhile are the next group. There is no goroutine and no delay in here: the time a flush takes
// is the time the next group has to gather.
//
// All methods are safe for concurrent use, except that the caller orders Append, Rotate and Close
// among themselves where their order matters to it. Append and Rotate never wait for I/O.
//
// The first write or sync that fails is final. Those who wait for it, and every later call that
// asks for more than is already out, get an error that wraps the cause, and nothing appended is
// acknowledged any more. That holds for a full disk too (errors.Is syscall.ENOSPC): once there is
// room, and everything below End is durable by other means, close this writer and go on with
// another one, in a fresh segment, from End.
type Writer struct {
	// Fixed.
	bufferBytes int64

	// Own synchronisation.
	written atomic.Uint64 // Pos below which the operating system has everything
	durable atomic.Uint64 // Pos below which everything is synced

	// Owned by the leader, that is by whoever set flushing.
	old []*segment // rotated away, written, not yet synced; oldest first

	mu sync.Mutex
	// turn[g&1] is where those wait whom flush number g will serve. Waiting on it unlocks mu but
	// does not lock it again: a served group leaves without one contended lock per member.
	turn [2]sync.Cond

	// Guarded by mu.
	buf      []byte // frameHeadroom, then the records not yet in parts
	end      Pos    // end of the last record appended
	seg      *segment
	parts    []part   // full buffers, and those of segments rotated away; before buf
	idle     []part   // the other array for parts
	free     [][]byte // buffers to reuse
	want     Pos      // somebody waits for everything below to be durable
	gen      uint64   // number of the current or last flush
	flushing bool     // there is a leader
	open     bool     // the flush still takes what is appended
	crowd    int      // flushes for which gathering is worth a try
	taken    Pos      // end of what the flush took
	syncs    bool     // the flush syncs
	released uint64   // segments below this number need no sync
	oldest   uint64   // number of the oldest segment whose file is open
	closed   bool     // the files are closed
	err      error    // final
	records  uint64
	synced   uint64 // value of records at the last sync
	metrics  Metrics
}

// part is a run of records for one segment.
type part struct {
	seg   *segment
	buf   []byte // frameHeadroom, then the records; nil if none
	end   Pos
	seals bool // nothing follows in this segment
}

// unlocker is the sync.Locker of Writer.turn, see there.
type unlocker struct{ mu *sync.Mutex }

func (u *unlocker) Lock()   {}
func (u *unlocker) Unlock() { u.mu.Unlock() }

// NewWriter returns a writer that puts its frames in f, a segment that has the header h and no
// frame of that incarnation yet. It owns f from now on. The first record gets the position start,
// and the caller vouches that everything below start is durable or not needed: when start is the
// end of a recovered log, sync its segments first, or have their records in synced tables.
func NewWriter(f File, h Header, start Pos) *Writer {
	w := &Writer{
		end:    start,
		seg:    newSegment(f, h),
		want:   start,
		taken:  start,
		oldest: h.Segment,
	}
	w.bufferBytes = min(bufferBytes, w.seg.PrewriteBytes)
	w.buf = w.newBuffer()
	w.written.Store(uint64(start))
	w.durable.Store(uint64(start))
	w.turn[0].L = &unlocker{&w.mu}
	w.turn[1].L = &unlocker{&w.mu}
	return w
}

func (w *Writer) newBuffer() []byte { return make([]byte, frameHeadroom, w.bufferBytes) }

// Append copies rec to the end of the log, as one unit: recovery finds all of it or nothing. It
// returns the position after it, to be given to Write or Sync. It never waits for I/O. When the
// writer has failed it returns NoPos, for which Write and Sync return the error.
func (w *Writer) Append(rec []byte) Pos {
	size := recordBytes(len(rec))
	w.mu.Lock()
	buffered := len(w.buf) - frameHeadroom
	full := buffered+size > cutBytes && (buffered > 0 || size > MaxFrame)
	if w.err != nil || full && !w.cutLocked(size) {
		w.mu.Unlock()
		return NoPos
	}
	if need := len(w.buf) + size; need > cap(w.buf) && need <= frameHeadroom+cutBytes {
		// The page is for what ends the frame: see writePart.
		w.buf = append(make([]byte, 0, frameHeadroom+cutBytes+pageBytes), w.buf...)
	}
	if len(rec) < 0x80 {
		w.buf = append(w.buf, byte(len(rec)))
	} else {
		w.buf = binary.AppendUvarint(w.buf, uint64(len(rec)))
	}
	w.buf = append(w.buf, rec...)
	w.end += Pos(size)
	p := w.end
	w.records++
	w.mu.Unlock()
	return p
}

// cutLocked ends the frame being gathered, so that a record of size bytes fits in the next one.
func (w *Writer) cutLocked(size int) bool {
	if size > MaxFrame {
		w.failLocked(errRecordSize)
		return false
	}
	w.parts = append(w.parts, part{seg: w.seg, buf: w.buf, end: w.end})
	w.buf = w.bufferLocked()
	return true
}

// Rotate makes f, a segment with the header h and no frames yet, the destination of all later
// appends, and returns the position where it starts. The number of h must be above that of the
// current segment. What was appended before still goes to the old segment, whose file the writer
// closes once it is synced: by the next flush that syncs, by Release, or by Close, always before
// anything in a later segment counts as durable. Rotate does no I/O. After a failure it still takes
// f over, to be closed by Close.
func (w *Writer) Rotate(f File, h Header) Pos {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		_ = f.Close() // nobody would do so later
		return NoPos
	}
	p := part{seg: w.seg, end: w.end, seals: true}
	if len(w.buf) > frameHeadroom {
		p.buf = w.buf
		w.buf = w.bufferLocked()
	}
	w.parts = append(w.parts, p)
	w.seg = newSegment(f, h)
	return w.end
}

// Release says that the segments up to and including number are not needed any more, because
// their records are in synced tables and recovery will be told to start after them. It returns
// when their files are closed and may be removed or recycled. They are not synced for it; their
// positions count as durable. The current segment cannot be released.
func (w *Writer) Release(number uint64) error {
	w.mu.Lock()
	if number >= w.seg.Segment {
		current := w.seg.Segment
		w.mu.Unlock()
		return fmt.Errorf("wal: release of segment %d while %d is current", number, current)
	}
	w.released = max(w.released, number+1)
	for w.oldest <= number && w.err == nil {
		if w.flushing {
			// With those it serves: the one signal for the next group is for its leader.
			w.turn[w.gen&1].Wait()
		} else {
			w.leadLocked()
		}
		w.mu.Lock()
	}
	err := w.err
	if w.oldest > number {
		err = nil
	}
	w.mu.Unlock()
	return err
}

// Write returns when the operating system has everything below p, which then survives the death of
// the process. Concurrent callers share one write.
func (w *Writer) Write(p Pos) error {
	if Pos(w.written.Load()) >= p {
		return nil
	}
	return w.wait(p, false)
}

// Sync returns when everything below p is synced, which then survives a power loss. Concurrent
// callers share one sync.
func (w *Writer) Sync(p Pos) error {
	if Pos(w.durable.Load()) >= p {
		return nil
	}
	return w.wait(p, true)
}

// End returns the position after the last record appended.
func (w *Writer) End() Pos {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.end
}

// Written returns the position below which the operating system has everything.
func (w *Writer) Written() Pos { return Pos(w.written.Load()) }

// Durable returns the position below which everything is synced.
func (w *Writer) Durable() Pos { return Pos(w.durable.Load()) }

// Buffered returns the number of bytes that the operating system does not have yet.
func (w *Writer) Buffered() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return int(w.end - Pos(w.written.Load()))
}

// Err returns what made the writer fail, ErrClosed after Close, else nil.
func (w *Writer) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Close syncs everything, writes an END frame that vouches for it, syncs that and closes the
// files. A failed writer only closes them and returns what made it fail.
func (w *Writer) Close() error {
	for {
		// An error here is the final one and stands in w.err.
		_ = w.Sync(NoPos)
		w.mu.Lock()
		if w.flushing {
			w.turn[w.gen&1].Wait()
			continue
		}
		if w.err != nil || w.end == Pos(w.durable.Load()) && len(w.parts) == 0 {
			break
		}
		w.leadLocked()
	}
	err := w.err
	w.failLocked(ErrClosed)
	closed := w.closed
	w.closed = true
	files := append([]*segment(nil), w.old...)
	for _, p := range w.parts {
		if p.seals {
			files = append(files, p.seg)
		}
	}
	seg, at := w.seg, w.end
	w.mu.Unlock()
	if closed {
		return err
	}
	// Nobody leads after an error, so what the leader owns is ours.
	if err == nil {
		err = w.writeEnd(seg, at)
	}
	for _, s := range append(files, seg) {
		if cerr := s.file.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("wal: close segment %d: %w", s.Segment, cerr)
		}
	}
	return err
}
