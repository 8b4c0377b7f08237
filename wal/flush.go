package wal

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"syscall"
)

const (
	// pageBytes is the unit in which a segment is first written. A frame that enters a new page
	// writes that page to its end, in zeros: otherwise the file system reads a recycled page back
	// to merge it (BenchmarkSyncEvicted), and each sync of a growing file has a new size to log.
	pageBytes = 4096
	// prewriteBytes is the step in which a syncing flush extends a growing segment ahead of itself,
	// unless the header says otherwise.
	prewriteBytes = 1 << 20
	// prewriteMaxFrame bounds the frames it does so for: those larger are limited by bytes, which
	// prewriting would double, not by the sync.
	prewriteMaxFrame = 128 << 10
)

const (
	gatherYields = 2  // how often a leader yields at most
	gatherProbe  = 16 // flushes between two attempts that bring nobody, or until there are none
)

// zeros is never written to.
var zeros [prewriteBytes]byte

// segment is a segment file being written. All but the embedded Header and the file belong to the
// leader.
type segment struct {
	Header
	file       File
	off        int64 // where the next frame goes
	fresh      int64 // below this, the file is of this incarnation; a multiple of pageBytes
	prewritten int64 // below this, the file is allocated and written
	end        Pos   // where the stream leaves the segment, once rotated away
	dirty      bool  // written since the last sync
}

func newSegment(f File, h Header) *segment {
	if h.PrewriteBytes <= 0 {
		h.PrewriteBytes = prewriteBytes
	}
	return &segment{
		Header:     h,
		file:       f,
		off:        HeaderBytes,
		fresh:      HeaderBytes,
		prewritten: max(h.Prewritten, HeaderBytes),
	}
}

// group is what one flush takes.
type group struct {
	parts    []part
	seg      *segment // current when the group was taken
	end      Pos
	sync     bool
	released uint64
	records  uint64 // appended so far

	frames, bytes, padding, syncs, closes uint64 // counted on the way
}

// wait leads or follows flushes until everything below p is written, and durable if sync.
func (w *Writer) wait(p Pos, sync bool) error {
	level := &w.written
	if sync {
		level = &w.durable
	}
	w.mu.Lock()
	if w.err == nil {
		p = min(p, w.end)
		if sync {
			w.want = max(w.want, p)
		}
	}
	for {
		if Pos(level.Load()) >= p {
			w.mu.Unlock()
			return nil
		}
		if err := w.err; err != nil {
			w.mu.Unlock()
			return err
		}
		if !w.flushing {
			w.leadLocked()
		} else {
			turn := w.gen
			if !w.open && (p > w.taken || sync && !w.syncs) {
				turn++
			}
			w.turn[turn&1].Wait()
		}
		if Pos(level.Load()) >= p {
			return nil
		}
		w.mu.Lock()
	}
}

// leadLocked runs one flush. It is called with mu held and returns with mu released.
//
// One at a time: a group that did not wait for the sync before it would gain nothing. Of two at
// once, through one descriptor or two, each took 175 us where one alone took 95.
func (w *Writer) leadLocked() {
	w.flushing, w.open = true, true
	w.gen++
	gen := w.gen
	w.gatherLocked()
	g := w.takeLocked()
	w.mu.Unlock()

	err := w.flush(&g)

	w.mu.Lock()
	w.flushing = false
	w.countLocked(&g)
	w.reuseLocked(g.parts)
	w.oldest = g.seg.Segment
	if len(w.old) > 0 {
		w.oldest = w.old[0].Segment
	}
	if err != nil {
		w.failLocked(err)
		w.mu.Unlock()
		return
	}
	w.mu.Unlock()
	// One of the next group is woken to lead it; whoever comes before it does so in its place.
	w.turn[gen&1].Broadcast()
	if g.closes > 0 && !g.sync {
		// A release may have served some of them; one of those would not lead.
		w.turn[(gen+1)&1].Broadcast()
	} else {
		w.turn[(gen+1)&1].Signal()
	}
}

// gatherLocked lets the writers that can run append before the group is taken: after a flush, all
// that it served can. It yields for as long as that makes the group grow, at most twice: with 16,
// 64 and 256 writers that gives 15, 57 and 173 records per sync, against 8.4, 32 and 121 without
// (BenchmarkSync), and with 16 writers that only write 9 records per frame instead of 1.1
// (BenchmarkAppendWrite). Four times gives 15.6, 62 and 204, but where the processors never idle
// each yield can cost a time slice. For a writer alone it is 0.15 us lost, so while yielding
// brings nobody it is only tried now and then. A frame that is full gains nothing; where the
// processors never idle, a log that was written behind spent half of its time here.
func (w *Writer) gatherLocked() {
	if w.end-w.taken >= cutBytes && w.want <= Pos(w.durable.Load()) {
		return
	}
	if w.crowd == 0 && w.gen%gatherProbe != 0 {
		return
	}
	w.crowd = max(w.crowd-1, 0)
	for range gatherYields {
		end := w.end
		w.mu.Unlock()
		runtime.Gosched()
		w.mu.Lock()
		if w.end == end {
			return
		}
		w.crowd = gatherProbe
	}
}

// failLocked makes err the final state of the writer, unless it already has one.
func (w *Writer) failLocked(err error) {
	if w.err == nil {
		w.err = err
	}
	w.turn[0].Broadcast()
	w.turn[1].Broadcast()
}

// takeLocked makes all that was appended so far a group.
func (w *Writer) takeLocked() group {
	if len(w.buf) > frameHeadroom {
		w.parts = append(w.parts, part{seg: w.seg, buf: w.buf, end: w.end})
		w.buf = w.bufferLocked()
	}
	g := group{
		parts:    w.parts,
		seg:      w.seg,
		end:      w.end,
		sync:     w.want > Pos(w.durable.Load()),
		released: w.released,
		records:  w.records,
	}
	w.parts, w.idle = w.idle[:0], nil
	w.open, w.taken, w.syncs = false, g.end, g.sync
	return g
}

// bufferLocked returns an empty buffer.
func (w *Writer) bufferLocked() []byte {
	n := len(w.free)
	if n == 0 {
		return w.newBuffer()
	}
	buf := w.free[n-1]
	w.free = w.free[:n-1]
	return buf
}

// reuseLocked takes back the memory of a group.
func (w *Writer) reuseLocked(parts []part) {
	for i := range parts {
		buf := parts[i].buf
		if buf != nil && cap(buf) <= bufferKeepBytes && len(w.free) < buffersKept {
			w.free = append(w.free, buf[:frameHeadroom])
		}
		parts[i] = part{}
	}
	w.idle = parts[:0]
}

func (w *Writer) countLocked(g *group) {
	w.metrics.Frames += g.frames
	w.metrics.Bytes += g.bytes
	w.metrics.Padding += g.padding
	w.metrics.Syncs += g.syncs
	if g.sync {
		w.metrics.countGroup(g.records - w.synced)
		w.synced = g.records
	}
}

// flush writes a group, segment by segment, and syncs it if it asks for that. Called by the leader
// without mu.
func (w *Writer) flush(g *group) error {
	var err error
	for i := range g.parts {
		p := &g.parts[i]
		if p.buf != nil && err == nil {
			err = w.writePart(g, p)
		}
		if p.seals {
			p.seg.end = p.end
			w.old = append(w.old, p.seg)
		}
	}
	if err != nil {
		return err
	}
	w.written.Store(uint64(g.end))
	if err := w.retire(g); err != nil || !g.sync {
		return err
	}
	if err := g.seg.sync(g); err != nil {
		return err
	}
	w.durable.Store(uint64(g.end))
	return nil
}

// writePart writes one frame.
func (w *Writer) writePart(g *group, p *part) error {
	s := p.seg
	payload := len(p.buf) - frameHeadroom
	p.buf = sealFrame(p.buf, s.Nonce, s.off, p.end-Pos(payload), Pos(w.durable.Load()))
	frame := int64(len(p.buf) - contextBytes)
	next := s.off + frame
	if next > s.fresh {
		s.fresh = (next + pageBytes - 1) &^ (pageBytes - 1)
		p.buf = append(p.buf, zeros[:s.fresh-next]...)
		g.padding += uint64(s.fresh - next)
	}
	if _, err := s.file.WriteAt(p.buf[contextBytes:], s.off); err != nil {
		return fmt.Errorf("wal: write segment %d: %w", s.Segment, err)
	}
	s.off = next
	s.dirty = true
	g.frames++
	g.bytes += uint64(frame)
	if g.sync && !p.seals && frame <= prewriteMaxFrame {
		return s.prewrite(g)
	}
	return nil
}

// prewrite extends a segment that has outgrown what is written of it.
func (s *segment) prewrite(g *group) error {
	if s.fresh <= s.prewritten {
		return nil
	}
	step := min(s.PrewriteBytes, prewriteBytes)
	s.prewritten = (s.fresh + step - 1) / step * step
	n, err := s.file.WriteAt(zeros[:s.prewritten-s.fresh], s.fresh)
	g.padding += uint64(n)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		// The log can do without; the frames may still fit.
		s.prewritten = math.MaxInt64
		return nil
	}
	if err != nil {
		return fmt.Errorf("wal: extend segment %d: %w", s.Segment, err)
	}
	return nil
}

// sync makes the frames of the segment durable.
func (s *segment) sync(g *group) error {
	if !s.dirty {
		return nil
	}
	if err := s.file.Sync(); err != nil {
		return fmt.Errorf("wal: sync segment %d: %w", s.Segment, err)
	}
	s.dirty = false
	g.syncs++
	return nil
}

// retire closes the segments that were rotated away: those released as they are, and if the group
// syncs the others too, synced. Oldest first, so that durable never passes one that is not.
func (w *Writer) retire(g *group) error {
	for len(w.old) > 0 {
		s := w.old[0]
		if s.Segment >= g.released {
			if !g.sync {
				return nil
			}
			if err := s.sync(g); err != nil {
				return err
			}
		}
		w.durable.Store(max(w.durable.Load(), uint64(s.end)))
		w.old = append(w.old[:0], w.old[1:]...)
		g.closes++
		if err := s.file.Close(); err != nil {
			return fmt.Errorf("wal: close segment %d: %w", s.Segment, err)
		}
	}
	return nil
}

// writeEnd writes and syncs the END frame. Everything before it is durable.
func (w *Writer) writeEnd(s *segment, at Pos) error {
	var g group
	w.buf = w.buf[:frameHeadroom]
	if err := w.writePart(&g, &part{seg: s, buf: w.buf, end: at}); err != nil {
		return err
	}
	if err := s.sync(&g); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.countLocked(&g)
	return nil
}
