package lsm

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"kvd/sstable"
	"kvd/wal"
)

// salvageLog applies what can be read of the log to the new database, batch by batch.
type salvageLog struct {
	s        *salvage
	segments []wal.Segment
	files    map[uint64]*source // by segment number
	absent   []absentSegment    // by number

	last    sstable.Seq // of the batch before
	pending []*Loss     // before the next batch; their sequence numbers are not known yet
	used    map[uint64]bool
}

// absentSegment is one that the log may need and that cannot be read.
type absentSegment struct {
	num    uint64
	name   string
	reason string
	told   bool // a gap in the log is where it stood
}

// writeLog applies the log. Where recovery would accept it, the end is where recovery says;
// otherwise everything that verifies is used.
func (s *salvage) writeLog() error {
	l := &salvageLog{s: s, files: make(map[uint64]*source), used: make(map[uint64]bool),
		last: s.newest}
	defer l.close()
	if err := l.open(); err != nil {
		return err
	}
	c := &s.catalog
	start := c.logStart
	if c.logSegment == 0 && !c.sound {
		start = wal.NoPos
	}
	end := wal.NoPos
	result, err := wal.Recover(l.segments, start, func([]byte) error { return nil })
	switch {
	case err == nil && len(l.absent) == 0 && result.End >= c.logEnd:
		end = result.End
		if result.Torn {
			s.note(l.tail(), -1, fmt.Sprintf("the log is torn behind position %d: %d bytes were "+
				"never synced, and are left out as when it is opened", end, result.Dropped))
		}
	case err == nil:
	default:
		if _, ok := errors.AsType[*wal.CorruptError](err); !ok {
			return err
		}
	}
	x, err := wal.Salvage(l.segments, start, end, l.frame, l.gap)
	if err != nil {
		return err
	}
	l.finish(x)
	s.report.Segments = len(l.used)
	return nil
}

// open opens the segments that the log needs, by the number in their headers: files may have been
// renamed.
func (l *salvageLog) open() error {
	c := &l.s.catalog
	for _, num := range c.logs {
		if err := l.openSegment(num); err != nil {
			return err
		}
	}
	slices.SortFunc(l.segments, func(a, b wal.Segment) int {
		return cmp.Compare(a.Number, b.Number)
	})
	l.dropForeign()
	if c.logSegment != 0 && l.files[c.logSegment] == nil && !l.isAbsent(c.logSegment) {
		first := absentSegment{c.logSegment, logName(l.s.dir, c.logSegment),
			"missing, but the manifest needs it", false}
		l.absent = slices.Insert(l.absent, 0, first)
	}
	return nil
}

// dropForeign leaves out segments of another database. Where no manifest tells which that is, the
// last segment does.
func (l *salvageLog) dropForeign() {
	id := l.s.catalog.databaseID
	if n := len(l.segments); n > 0 && id == 0 {
		id = l.segments[n-1].Log
	}
	l.segments = slices.DeleteFunc(l.segments, func(g wal.Segment) bool {
		foreign := id != 0 && g.Log != id
		if foreign {
			f := l.files[g.Number]
			l.s.note(f.name, -1, fmt.Sprintf("a segment of log %016x, not of %016x: left aside",
				g.Log, id))
			f.Close()
			delete(l.files, g.Number)
		}
		return foreign
	})
}

// openSegment opens the file that is named as segment num.
func (l *salvageLog) openSegment(num uint64) error {
	name, need := logName(l.s.dir, num), l.s.catalog.logSegment
	f, reason, err := openSource(l.s.fs, name)
	if err != nil {
		return err
	}
	var h wal.Header
	if reason == "" {
		h, err = wal.ReadHeader(f, f.size)
		_, corrupt := errors.AsType[*wal.CorruptError](err)
		if err != nil && !corrupt && !errors.Is(err, wal.ErrVersion) {
			f.Close()
			return err
		}
		if err != nil {
			reason = headerReason(err)
		}
	}
	switch {
	case reason != "" && num < need:
		l.s.note(name, -1, "an old log segment that is not needed: left aside")
	case reason != "":
		l.absent = append(l.absent, absentSegment{num: num, name: name, reason: reason})
	case h.Segment < need:
		l.s.note(name, -1, fmt.Sprintf("log segment %d is not needed: left aside", h.Segment))
	case l.files[h.Segment] != nil:
		l.s.note(name, -1, fmt.Sprintf("log segment %d again: left aside", h.Segment))
	default:
		if h.Segment != num {
			l.s.note(name, -1, fmt.Sprintf("this is log segment %d: used as such", h.Segment))
		}
		l.files[h.Segment] = f
		l.segments = append(l.segments, wal.Segment{
			Number: h.Segment, R: f, Size: f.size, Log: h.Log,
		})
		return nil
	}
	if f != nil {
		f.Close()
	}
	return nil
}

// tail is the file of the last segment.
func (l *salvageLog) tail() string {
	return l.files[l.segments[len(l.segments)-1].Number].name
}

func headerReason(err error) string {
	if e, ok := errors.AsType[*wal.CorruptError](err); ok {
		return e.Reason
	}
	return err.Error()
}

func (l *salvageLog) isAbsent(num uint64) bool {
	return slices.ContainsFunc(l.absent, func(a absentSegment) bool { return a.num == num })
}

func (l *salvageLog) close() {
	for _, f := range l.files {
		f.Close()
	}
}

// gap takes in a stretch of the log that cannot be read.
func (l *salvageLog) gap(g wal.Gap) error {
	loss := Loss{File: logName(l.s.dir, g.Segment), Offset: g.Offset, Reason: fmt.Sprintf(
		"no frame verifies for the positions %d to %d of the log", g.From, g.To)}
	if g.From == wal.NoPos {
		loss.MayBeOld = allKeys
		loss.Reason = fmt.Sprintf("no frame verifies before position %d of the log", g.To)
	}
	if f := l.files[g.Segment]; f != nil {
		loss.File = f.name
	}
	for i := range l.absent {
		if a := &l.absent[i]; !a.told && a.num >= g.Segment {
			loss.File, loss.Offset, a.told = a.name, -1, true
			loss.Reason = a.reason + "; " + loss.Reason
			break
		}
	}
	l.pending = append(l.pending, &loss)
	return nil
}

// frame applies the batches of a frame.
func (l *salvageLog) frame(segment uint64, f wal.Frame) error {
	for p := f.Payload; len(p) > 0; {
		rec, rest, ok := wal.NextRecord(p)
		if !ok {
			l.broken(segment, f, "a valid frame holds a broken record")
			return nil
		}
		p = rest
		ops, base, count, err := openBatch(rec)
		n, check := uint32(0), ops
		for err == nil && check.next() {
			n++
		}
		if err != nil || check.err != nil || n != count {
			l.broken(segment, f, "a valid frame holds a broken batch")
			continue
		}
		l.settle(base, Loss{File: l.files[segment].name, Offset: f.Offset})
		last := base + sstable.Seq(count) - 1
		if last <= l.last {
			continue // tables have it
		}
		l.last = last
		if err := l.apply(rec, ops); err != nil {
			return err
		}
		l.used[segment] = true
		l.s.report.Records++
	}
	return nil
}

func (l *salvageLog) broken(segment uint64, f wal.Frame, reason string) {
	name := l.files[segment].name
	l.pending = append(l.pending, &Loss{File: name, Offset: f.Offset, Reason: reason})
}

// settle says which writes the stretches were that lie before a batch at sequence number base. A
// stretch whose writes are all in tables is no loss.
func (l *salvageLog) settle(base sstable.Seq, at Loss) {
	if base > l.last+1 && len(l.pending) == 0 && l.s.catalog.sound {
		at.Reason = "the sequence numbers of the log jump"
		l.pending = append(l.pending, &at)
	}
	for _, loss := range l.pending {
		if base <= l.last+1 {
			l.s.note(loss.File, loss.Offset, loss.Reason+"; its writes are in tables")
			continue
		}
		loss.FirstSeq, loss.LastSeq = l.last+1, base-1
		if loss.MayBeOld != allKeys { // else what was before may be in tables
			loss.Entries = uint64(base - 1 - l.last)
			loss.MayBeOld = loss.Entries
		}
		l.s.lose(*loss)
	}
	l.pending = l.pending[:0]
}

// apply adds the writes of a record to the batch: a batch of the log is never cut.
func (l *salvageLog) apply(rec []byte, ops batchReader) error {
	s := l.s
	if s.batch.Len() > 0 && s.batch.Bytes()+len(rec) > batchTargetBytes {
		if err := s.flush(); err != nil {
			return err
		}
	}
	for ops.next() {
		if ops.kind == sstable.KindPut {
			s.batch.Put(ops.key, ops.value)
			s.wrote(len(ops.key) + len(ops.value))
		} else {
			s.batch.Delete(ops.key)
		}
	}
	return nil
}

// finish lists what is lost at the end of the log, which reaches to x.
func (l *salvageLog) finish(x wal.Pos) {
	end := l.s.catalog.logEnd
	if end > 0 && (x == wal.NoPos || x < end) && len(l.pending) == 0 {
		loss := Loss{File: l.s.report.Manifest, Offset: -1, Reason: fmt.Sprintf("the log ended at "+
			"position %d when the database was closed, but only %d is left", end, x)}
		if len(l.segments) > 0 {
			loss.File = l.tail()
		}
		l.pending = append(l.pending, &loss)
	}
	for i := range l.absent {
		a := &l.absent[i]
		switch {
		case a.told:
		case end > 0 && x != wal.NoPos && x >= end:
			l.s.note(a.name, -1, a.reason+"; the log is complete without it")
		default:
			l.pending = append(l.pending, &Loss{File: a.name, Offset: -1, Reason: a.reason})
		}
	}
	for _, f := range l.files {
		if f.bad >= 0 {
			l.pending = append(l.pending, &Loss{File: f.name, Offset: f.bad,
				Reason: "the disk fails to read from here"})
		}
	}
	for _, loss := range l.pending {
		loss.FirstSeq, loss.MayBeOld = l.last+1, allKeys
		l.s.lose(*loss)
	}
	l.pending = nil
}
