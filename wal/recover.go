package wal

import "fmt"

// Result says what a recovery found.
type Result struct {
	// End is the position after the last record replayed, where the next writer starts.
	End Pos
	// Torn reports that something was written beyond End and is lost: what a crash leaves of
	// records that were never synced. It is not an error, and never an acknowledged Sync.
	Torn bool
	// Dropped estimates how many bytes of records that is.
	Dropped int64
	// Records and Segments count what was replayed.
	Records, Segments int
	// Segment and Offset are the place of End: where no frame continues the log.
	Segment uint64
	Offset  int64
}

// Recover replays the records of a log in order: it calls fn for each, with a slice that is valid
// during the call. Segments are given in ascending order of their numbers. Replay begins with the
// frame at position start, or if that is NoPos with the first frame there is; segments before it
// are skipped. Give start where it is known: with NoPos nothing vouches for the first frames.
//
// Replay ends at the first position that no valid frame continues, neither in the same segment nor
// at the start of a later one. If any valid frame, wherever it stands, says that more than that was
// synced, acknowledged data is damaged or missing: a *CorruptError. Otherwise this is the end of
// the log, and what may follow is a torn tail that nobody was promised. The last synced group of a
// log that was not closed has no later frame to vouch for it; damage to it looks like a torn tail.
//
// A read error is returned as it is and never taken for the end. An error of fn ends the replay
// and is returned. After an error fn may have seen some of the records.
func Recover(segments []Segment, start Pos, fn func(rec []byte) error) (Result, error) {
	c := recovery{segs: segments, fn: fn, x: start, at: -1, stopped: HeaderBytes}
	for i, s := range segments {
		if i > 0 && s.Number <= segments[i-1].Number {
			return c.res, fmt.Errorf("wal: segment %d given after segment %d",
				s.Number, segments[i-1].Number)
		}
		// All headers first: a segment without one must not be found out by chance.
		if err := c.r.reset(s); err != nil {
			return c.res, err
		}
	}
	for {
		more, err := c.segment()
		if err != nil {
			return c.res, err
		}
		if !more {
			break
		}
	}
	err := c.tail()
	return c.res, err
}

// recovery is the state of one Recover.
type recovery struct {
	segs []Segment
	fn   func([]byte) error
	r    Reader
	res  Result

	x       Pos   // replayed up to here; NoPos before the first frame if any will do
	at      int   // index of the segment replayed last; -1 if none
	stopped int64 // offset in it where no frame continues
	ended   bool  // there is its END frame

	found witness // what the frames that were not replayed say
}

// witness sums up valid frames that the replay did not reach.
type witness struct {
	any       bool
	low, high Pos    // where the lowest begins and the highest ends
	lowest    uint64 // segment of the lowest
	below     int64  // bytes of that segment before it
	durable   Pos    // the highest promise
	segment   uint64 // who made it
	offset    int64
}

// segment replays the next segment that continues the stream. It reports whether there was one.
func (c *recovery) segment() (bool, error) {
	for i := c.at + 1; i < len(c.segs); i++ {
		if ok, err := c.first(i); err != nil || ok {
			if ok && c.x == NoPos && i > 0 {
				err = c.skip(i)
			}
			if err != nil {
				return false, err
			}
			return true, c.replay(i)
		}
	}
	return false, nil
}

// first moves the reader to the first frame of segment i, if that continues the stream. A segment
// without frames was prepared and not used, and one that starts elsewhere is what a crash left
// behind a torn tail: a recovery before this one did not replay it either.
func (c *recovery) first(i int) (bool, error) {
	if err := c.r.reset(c.segs[i]); err != nil {
		return false, err
	}
	c.r.pos = c.x
	return c.r.Next(), c.r.Err()
}

// skip checks that the log may begin with segment i, the first that begins with a valid frame.
func (c *recovery) skip(i int) error {
	for before := range i {
		if err := c.survey(before); err != nil {
			return err
		}
	}
	if err := c.judge(); err != nil {
		return err
	}
	c.found = witness{}
	_, err := c.first(i)
	return err
}

// replay hands out the records of segment i, whose first frame the reader is at.
func (c *recovery) replay(i int) error {
	c.at = i
	c.res.Segments++
	for more := true; more; more = c.r.Next() {
		f := c.r.Frame()
		for p := f.Payload; len(p) > 0; {
			rec, rest, ok := NextRecord(p)
			if !ok {
				return &CorruptError{c.segs[i].Number, f.Offset, "a record is cut short"}
			}
			if err := c.fn(rec); err != nil {
				return err
			}
			c.res.Records++
			p = rest
		}
		c.x = f.End()
	}
	c.stopped, c.ended = c.r.Offset(), c.r.ended
	return c.r.Err()
}

// tail decides what the place is where the replay ended.
func (c *recovery) tail() error {
	for i := max(c.at, 0); i < len(c.segs); i++ {
		if err := c.survey(i); err != nil {
			return err
		}
	}
	c.res.End = c.x
	if len(c.segs) > 0 {
		c.res.Segment, c.res.Offset = c.segs[max(c.at, 0)].Number, c.stopped
	}
	if c.x == NoPos {
		c.res.End = c.found.high // positions are not used twice
	}
	return c.judge()
}

// survey collects what the frames of segment i say that the replay did not reach.
func (c *recovery) survey(i int) error {
	r := &c.r
	if err := r.reset(c.segs[i]); err != nil {
		return err
	}
	if c.x != NoPos {
		r.floor = c.x
	}
	if i == c.at {
		r.off, r.pos, r.ended = c.stopped, c.x, c.ended
	}
	if err := c.remnant(); err != nil {
		return err
	}
	for r.Next() || r.Resync() {
		f := r.Frame()
		if c.at >= 0 && i > c.at && f.Offset == HeaderBytes && f.Pos < c.x {
			return &CorruptError{c.segs[i].Number, f.Offset, fmt.Sprintf(
				"it starts at position %d, but the segments before it reach %d", f.Pos, c.x)}
		}
		c.note(f)
	}
	return r.Err()
}

// remnant counts the frame that would continue the stream where the reader is, had it verified.
func (c *recovery) remnant() error {
	r := &c.r
	if r.ended || r.off+frameHeaderBytes > r.seg.Size {
		return nil
	}
	p, err := r.view(r.off, frameHeaderBytes)
	if err != nil {
		return err
	}
	h := parseFrameHead(p)
	if h.pos == c.x && h.durable <= c.x && h.payload > 0 && h.payload <= MaxFrame {
		c.res.Torn = true
		c.res.Dropped += h.payload
	}
	return nil
}

// note takes in one valid frame.
func (c *recovery) note(f Frame) {
	if len(f.Payload) > 0 && (c.x == NoPos || f.Pos >= c.x) {
		c.res.Torn = true
		c.res.Dropped += int64(len(f.Payload))
	}
	w := &c.found
	if !w.any || f.Pos < w.low {
		w.low, w.lowest, w.below = f.Pos, c.r.seg.Number, f.Offset-HeaderBytes
	}
	w.any = true
	w.high = max(w.high, f.End())
	if f.Durable > w.durable {
		w.durable, w.segment, w.offset = f.Durable, c.r.seg.Number, f.Offset
	}
}

// judge tells a torn tail from damage.
func (c *recovery) judge() error {
	w := &c.found
	// Without a start the first frames are lost if a later one vouches for all before itself.
	if !w.any || c.x != NoPos && w.durable <= c.x || c.x == NoPos && w.durable < w.low {
		return nil
	}
	e := &CorruptError{Segment: c.segs[max(c.at, 0)].Number, Offset: c.stopped}
	if w.lowest != e.Segment && c.x != NoPos && w.low-c.x < Pos(w.below) {
		// What is lost stood at the start of a later segment.
		e.Segment, e.Offset = w.lowest, HeaderBytes
	}
	place := "the log has no start"
	if c.x != NoPos {
		place = fmt.Sprintf("the log ends here at position %d", c.x)
	}
	e.Reason = fmt.Sprintf("%s, but the frame at offset %d of segment %d says that everything "+
		"below %d was synced", place, w.offset, w.segment, w.durable)
	return e
}
