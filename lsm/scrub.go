package lsm

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"time"
)

// scrubber finds damage on the disk while the database is open: it reads every file that recovery
// or a read would need, from the disk and not from memory, once in each Options.ScrubPeriod, and
// mends from memory what memory still has.
//
// One goroutine, scrubLoop, does all of it: what is due by scrub_plan.go, file by file
// (scrub_files.go), step by step (scrub_read.go), and the mending (scrub_heal.go). Between two
// steps it holds nothing, neither a read state nor a file, so it keeps no disk space or memtable
// from being freed however slowly it goes.
//
// The moment at which a file was read last is kept in memory only. After a restart all files are
// equally due and come in a random order: a database that is restarted more often than once in a
// period has each file read once in a period on average. Keeping the moments on disk would make
// that exact, for a write with each file read and one more file that can be damaged.
type scrubber struct {
	requests chan *scrubRequest
	manifest scrubMark

	manifestBytes atomic.Int64 // to read, when it was read last

	// A pass is over when every file that was there when it began has been read or removed.
	pass     atomic.Uint64 // number of the one under way; 0 while the database is being opened
	began    atomic.Int64  // when, in nanoseconds since the epoch
	passes   atomic.Uint64 // complete
	lastPass atomic.Int64  // what the last one took, nanoseconds
	bytes    atomic.Uint64
	damages  atomic.Uint64
	healed   atomic.Uint64
}

// scrubMark says when a file was read last. Set by the scrub, read by Metrics.
type scrubMark struct {
	turn uint64        // fixed
	pass atomic.Uint64 // of the last reading, or of the making
	read atomic.Int64  // when that was, in nanoseconds since the epoch
}

// made notes that the file has just been written. All files found by Open are made at 0.
func (m *scrubMark) made(db *DB) {
	m.turn = rand.Uint64()
	if pass := db.scrub.pass.Load(); pass > 0 {
		m.pass.Store(pass)
		m.read.Store(int64(db.uptime()))
	}
}

// uptime is the monotonic time since Open.
func (db *DB) uptime() time.Duration { return time.Since(db.pace.epoch) }

// Damage is a place in a file that does not read as it was written.
type Damage struct {
	File   string // path
	Offset int64  // in bytes; -1 when the whole file is meant
	Reason string
	Healed bool // written anew elsewhere, from what memory or another reading had
}

// ScrubReport is what a scrub has read and found.
type ScrubReport struct {
	Files   int
	Bytes   int64
	Took    time.Duration
	Found   int      // damaged places
	Healed  int      // of these, healed
	Damages []Damage // the first 100 of them
}

const scrubReportMax = 100

type scrubRequest struct {
	ctx   context.Context
	table *table        // to read nothing else; nil: everything
	done  chan struct{} // closed when the rest is set

	report ScrubReport
	err    error
}

// Scrub reads everything that the database needs, now and at full speed, as the background scrub
// does in each period: every table block by block, the manifest, the log. What is damaged is healed
// where memory or another reading has it. The error is for what kept it from reading all: ctx,
// ErrClosed, ErrReadOnly for a database that was opened so. The report says what was read until
// then. Damage is no error.
func (db *DB) Scrub(ctx context.Context) (ScrubReport, error) {
	if db.opts.ReadOnly {
		return ScrubReport{}, fmt.Errorf("%w: a scrub heals, Check does not", ErrReadOnly)
	}
	r := &scrubRequest{ctx: ctx}
	err := db.requestScrub(r)
	return r.report, err
}

// requestScrub returns when the scrub has served the request.
func (db *DB) requestScrub(r *scrubRequest) error {
	r.done = make(chan struct{})
	select {
	case <-db.done:
		return ErrClosed
	case <-r.ctx.Done():
		return r.ctx.Err()
	case db.scrub.requests <- r:
	}
	<-r.done
	return r.err
}

// scrubRun is the goroutine of the scrub and what it alone knows.
type scrubRun struct {
	db      *DB
	period  time.Duration // negative: only on request
	timer   *time.Timer
	rate    float64       // bytes per second
	planned time.Duration // when that was decided
	went    time.Duration // when the last step was allowed
	earned  float64       // bytes that may be read, by now
	counted time.Duration // when that was
	current *scrubMark    // of the file being read
	done    int64         // bytes of it that have been read
	owed    int64         // bytes of the one before that were planned for and not there

	request *scrubRequest // being served, at full speed; nil: in the background
	next    *scrubRequest // came meanwhile
}

// What ends the reading of a file before its end.
var (
	errScrubGone      = errors.New("lsm: scrub: the file is not needed any more")
	errScrubPreempted = errors.New("lsm: scrub: another one begins")
)

func (db *DB) scrubLoop() {
	defer db.loops.Done()
	now := db.uptime()
	r := &scrubRun{db: db, period: db.opts.ScrubPeriod, went: now, counted: now,
		timer: time.NewTimer(db.opts.ScrubPeriod)}
	defer r.timer.Stop()
	for r.step() {
	}
	if r.next != nil {
		r.next.err = ErrClosed
		close(r.next.done)
	}
}

// step reads one file, or serves one request. It returns false when the DB is closing.
func (r *scrubRun) step() bool {
	if r.next != nil {
		r.request, r.next = r.next, nil
		r.serve()
		close(r.request.done)
		r.request = nil
		r.went = r.db.uptime()
		r.counted, r.earned, r.owed = r.went, 0, 0
		return true
	}
	if r.period < 0 {
		select {
		case <-r.db.done:
			return false
		case r.next = <-r.db.scrub.requests:
			return true
		}
	}
	items := r.plan()
	if items == nil {
		return false
	}
	err := r.visit(&items[0])
	if errors.Is(err, ErrClosed) {
		return false
	}
	if err != nil && !errors.Is(err, errScrubPreempted) {
		r.db.log.Warn("a scrub cannot read a file now; it will try again",
			"file", items[0].name(r.db), "error", err)
	}
	r.endPass()
	return true
}

// plan returns the files in the order in which they are due and decides how fast to go. It is nil
// when the DB is closed.
func (r *scrubRun) plan() []scrubItem {
	items := r.db.scrubItems()
	sortScrub(items)
	ahead := r.owed - int64(r.earned)
	if len(items) > 0 && items[0].mark == r.current {
		ahead -= r.done
	}
	r.planned = r.db.uptime()
	r.rate = scrubRate(items, ahead, r.planned, r.period)
	return items
}

// serve is a whole pass at full speed, or the table that was asked for.
func (r *scrubRun) serve() {
	q, s := r.request, &r.db.scrub
	if t := q.table; t != nil {
		q.err = r.visit(&scrubItem{table: t, mark: &t.mark, bytes: int64(t.meta.Bytes)})
		return
	}
	began := r.db.uptime()
	s.began.Store(int64(began))
	s.pass.Add(1)
	items := r.db.scrubItems()
	sortScrub(items)
	for i := range items {
		if q.err = r.visit(&items[i]); q.err != nil {
			break
		}
	}
	q.report.Took = r.db.uptime() - began
	r.endPass()
}

// endPass begins the next pass when the present one is over.
func (r *scrubRun) endPass() {
	s := &r.db.scrub
	items := r.db.scrubItems()
	for i := range items {
		if items[i].mark.pass.Load() < s.pass.Load() {
			return
		}
	}
	if items == nil {
		return // closed
	}
	now := int64(r.db.uptime())
	s.lastPass.Store(now - s.began.Load())
	s.began.Store(now)
	s.passes.Add(1)
	s.pass.Add(1)
}

// await returns when so many bytes may be read.
func (r *scrubRun) await(bytes int64) error {
	db := r.db
	if q := r.request; q != nil {
		runtime.Gosched() // a step takes a millisecond of processor time; others come first
		select {
		case <-db.done:
			return ErrClosed
		case <-q.ctx.Done():
			return q.ctx.Err()
		default:
			return nil
		}
	}
	rested := db.uptime()
	rested += scrubRest * (rested - r.went)
	for {
		now := db.uptime()
		r.earned += r.rate * (now - r.counted).Seconds()
		r.counted = now
		if now >= r.planned+r.period/scrubMinShare && r.plan() == nil {
			return ErrClosed
		}
		left := scrubPause(float64(bytes+r.owed)-r.earned, r.rate)
		if left = max(left, rested-now); left <= 0 {
			r.went, r.earned, r.owed = now, 0, 0
			return nil
		}
		r.timer.Reset(min(left, max(r.period/scrubMinShare, time.Millisecond)))
		select {
		case <-db.done:
			return ErrClosed
		case r.next = <-db.scrub.requests:
			return errScrubPreempted
		case <-r.timer.C:
		}
	}
}
