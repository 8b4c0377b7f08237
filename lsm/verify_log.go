package lsm

import (
	"errors"
	"fmt"
	"path/filepath"

	"kvd/lsm/vfs"
	"kvd/sstable"
	"kvd/wal"
)

// logFile is an open file in the format of the log: a segment or a manifest.
type logFile struct {
	name    string
	file    vfs.File
	segment wal.Segment
}

func (f logFile) close() { _ = f.file.Close() } // only read from

func (c *checker) open(name string, num uint64) (logFile, error) {
	f, err := c.fs.Open(name)
	if err != nil {
		return logFile{}, err
	}
	size, err := f.Size()
	if err != nil {
		_ = f.Close() // the first error is the one to tell
		return logFile{}, err
	}
	return logFile{name, f, wal.Segment{Number: num, R: f, Size: size}}, nil
}

// log checks the segments that recovery needs. The verdict is that of the recovery itself, so what
// a crash leaves is no damage here either. Only once there is damage it is looked for more.
func (c *checker) log(l *Layout) {
	whole := true
	if first := logName(l.Dir, l.LogSegment); l.LogSegment != 0 &&
		(len(l.Logs) == 0 || l.Logs[0] != first) {
		c.damage(first, &CorruptError{first, -1, "missing, but the manifest needs it"})
		whole = false
	}
	var files []logFile
	for _, name := range l.Logs {
		c.seen(name)
		_, num := parseName(filepath.Base(name))
		f, err := c.open(name, num)
		if err != nil {
			c.damage(name, err)
			whole = false
			continue
		}
		defer f.close()
		f.segment.Log = l.DatabaseID
		files = append(files, f)
		c.damage(name, wal.VerifyHeader(f.segment))
	}
	c.v.Segments, c.v.LastSeq = len(files), l.LastSeq
	if len(files) == 0 {
		return
	}
	told := len(c.v.Damages)
	var err error
	if whole {
		if err = c.recover(l, files); err == nil {
			return
		}
	}
	c.gaps(files, l, true)
	if _, ok := errors.AsType[*CorruptError](err); !ok && len(c.v.Damages) == told {
		c.damage(files[0].name, err)
	}
}

// recover reads the log as Open does.
func (c *checker) recover(l *Layout, files []logFile) error {
	var segments []wal.Segment
	for _, f := range files {
		segments = append(segments, f.segment)
	}
	result, err := wal.Recover(segments, l.LogStart, func(rec []byte) error {
		last, err := checkBatch(rec, c.v.LastSeq, true)
		if err == nil {
			c.v.LastSeq = last
		}
		return err
	})
	c.v.Records = result.Records
	c.v.TornBytes = result.Dropped
	if e, ok := errors.AsType[*wal.CorruptError](err); ok {
		err = inFile(err, logName(l.Dir, e.Segment))
	}
	if err == nil && result.End < l.LogEnd {
		err = endsEarly(l.Dir, result, l.LogEnd)
	}
	if e, ok := errors.AsType[*CorruptError](err); ok {
		c.damage(e.File, err)
	}
	return err
}

// endsEarly is the damage of a log that ends before the place where it was closed.
func endsEarly(dir string, r wal.Result, closed wal.Pos) error {
	return &CorruptError{logName(dir, r.Segment), r.Offset, fmt.Sprintf("the log ends at position "+
		"%d, but when the database was closed it ended at %d", r.End, closed)}
}

// checkBatch decodes a record of the log, which continues after sequence number last if follows is
// set, and returns the last sequence number in it.
func checkBatch(rec []byte, last sstable.Seq, follows bool) (sstable.Seq, error) {
	ops, base, count, err := openBatch(rec)
	if err == nil && follows && base != last+1 {
		err = fmt.Errorf("a batch at sequence %d follows sequence %d", base, last)
	}
	n := uint32(0)
	for err == nil && ops.next() {
		n++
	}
	if err == nil {
		err = ops.err
	}
	if err == nil && n != count {
		err = fmt.Errorf("a batch of %d writes says %d", n, count)
	}
	return base + sstable.Seq(count) - 1, err
}

// gaps tells of every place in a damaged log where records are missing that were synced. l is what
// is known of the log, nil if nothing is; batches says that the records are those of writes.
func (c *checker) gaps(files []logFile, l *Layout, batches bool) {
	g := &gapFinder{c: c, batches: batches, end: wal.NoPos}
	if l != nil {
		g.end, g.vouched = l.LogStart, l.LogEnd
	}
	for _, f := range files {
		g.file(f)
	}
	if g.tail != nil {
		g.gaps = append(g.gaps, *g.tail)
	}
	for _, at := range g.gaps {
		if at.pos < g.vouched {
			c.damage(at.file, &CorruptError{at.file, at.offset, fmt.Sprintf(
				"the records from position %d on are missing, and everything below %d was synced",
				at.pos, g.vouched)})
		}
	}
}

// gapFinder walks the frames of a log, stepping over those that are damaged.
type gapFinder struct {
	c       *checker
	batches bool

	gaps    []gap
	tail    *gap    // the end of the last file, which may be that of the log
	end     wal.Pos // of the frame before; NoPos if there is none
	vouched wal.Pos // everything below was synced
	last    sstable.Seq
	follows bool // the next batch comes right after last
}

// gap is a place where the stream of records does not go on.
type gap struct {
	file   string
	offset int64
	pos    wal.Pos
}

func (g *gapFinder) file(f logFile) {
	r, err := wal.NewReader(f.segment)
	if err != nil {
		g.unreadable(f, err)
		return
	}
	for found := 0; found < damagesMax; {
		at, more, jumped := r.Offset(), r.Next(), false
		if !more && r.Err() == nil {
			more = r.Resync()
			jumped = more
		}
		if err := r.Err(); err != nil {
			g.unreadable(f, err)
			return
		}
		if !more {
			g.tail = &gap{f.name, at, g.end}
			return
		}
		frame := r.Frame()
		pos := g.end
		if pos == wal.NoPos {
			pos = max(frame.Pos, 1) - 1
		}
		if jumped {
			g.gaps = append(g.gaps, gap{f.name, at, pos})
			found++
		} else if g.tail != nil && frame.Pos > pos {
			g.gaps = append(g.gaps, *g.tail)
		}
		g.follows = g.follows && !jumped && frame.Pos == pos
		g.tail = nil
		g.end, g.vouched = frame.End(), max(g.vouched, frame.Durable)
		if err := g.frame(frame); err != nil {
			g.c.damage(f.name, &CorruptError{f.name, frame.Offset, err.Error()})
			g.follows = false
			found++
		}
	}
}

// unreadable tells of a file that cannot be read on. What is missing after it may be in there.
func (g *gapFinder) unreadable(f logFile, err error) {
	g.c.damage(f.name, err)
	g.end, g.tail, g.follows = wal.NoPos, nil, false
}

// frame decodes the records of a valid frame.
func (g *gapFinder) frame(f wal.Frame) error {
	for p := f.Payload; len(p) > 0 && g.batches; {
		rec, rest, ok := wal.NextRecord(p)
		if !ok {
			return errors.New("a valid frame holds a broken record")
		}
		last, err := checkBatch(rec, g.last, g.follows)
		if err != nil {
			return err
		}
		g.last, g.follows = last, true
		p = rest
	}
	return nil
}
