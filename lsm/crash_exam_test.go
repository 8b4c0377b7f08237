package lsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"

	"kvd/compaction"
	"kvd/lsm/vfs"
	"kvd/sstable"
)

// crashOptions are the settings of a run, in a form that is saved with a failure.
type crashOptions struct {
	MemtableBytes, CacheBytes    int64
	BlockBytes, FilterBitsPerKey int
	Compaction                   compaction.Config
}

// open opens a database and listens to what it would tell an operator.
func (o crashOptions) open(dir string, fsys vfs.FS, readOnly bool) (*DB, *crashLog, error) {
	log := new(crashLog)
	db, err := Open(dir, Options{
		FS:               fsys,
		Logger:           slog.New(log),
		MemtableBytes:    o.MemtableBytes,
		CacheBytes:       o.CacheBytes,
		BlockBytes:       o.BlockBytes,
		FilterBitsPerKey: o.FilterBitsPerKey,
		Compaction:       o.Compaction,
		ReadOnly:         readOnly,
	})
	return db, log, err
}

// crashLog collects warnings and errors. After a loss of power only one is in order: that of a torn
// tail.
type crashLog struct {
	mu    sync.Mutex
	lines []string
}

func (l *crashLog) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn
}
func (l *crashLog) WithAttrs([]slog.Attr) slog.Handler { return l }
func (l *crashLog) WithGroup(string) slog.Handler      { return l }

func (l *crashLog) Handle(_ context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, "the end of the log was never synced") {
		return nil
	}
	line := r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	return nil
}

func (l *crashLog) err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) == 0 {
		return nil
	}
	return fmt.Errorf("it says: %s", strings.Join(l.lines, "; "))
}

// crashExam recovers images and demands what was promised. Its methods may be called concurrently.
type crashExam struct {
	opts     crashOptions
	compound func(hash uint64, depth int) int // ways to crash the recovery of an image in
	over     func() bool                      // the time is up

	results sync.Map // hash of an image -> *crashResult
	trace   []string // fixed while images are examined

	recoveries, points, cells, same, reopens atomic.Int64
}

// crashResult is what an image was recovered to. It depends on nothing but the disk.
type crashResult struct {
	seq    sstable.Seq
	copies []string // the checkpoints that are there
}

// crashFailure says which image fails and where it is kept.
type crashFailure struct{ err error }

func (f *crashFailure) Error() string { return f.err.Error() }
func (f *crashFailure) Unwrap() error { return f.err }

// point examines all images of a moment.
func (e *crashExam) point(h *crashHistory, p *crashPoint, depth int) error {
	for i := range p.images {
		if e.over() {
			return nil
		}
		if err := e.image(h, p, &p.images[i], depth); err != nil {
			if _, ok := errors.AsType[*crashFailure](err); ok {
				return err // of a crash during the recovery: kept already
			}
			r := e.record(h, p, &p.images[i], err)
			dir, saveErr := r.save(p.images[i].disk)
			err = fmt.Errorf("%s, %v: %w\nexamine: go test ./lsm -run TestCrashAtEveryOperation "+
				"-crash.image=%s", p, p.images[i].way, err, dir)
			return &crashFailure{err: errors.Join(err, saveErr)}
		}
	}
	e.points.Add(1)
	return nil
}

func (e *crashExam) record(
	h *crashHistory, p *crashPoint, image *crashImage, err error,
) *crashRecord {
	return &crashRecord{
		Failure: err.Error(), Point: p.String(), Way: image.way.String(),
		KeepAll: image.way.mode == vfs.KeepAll, Demand: p.demand, Options: e.opts,
		Copies: h.copies, Commits: h.commits, Trace: e.trace,
	}
}

// image examines one image. Two disks that are the same recover to the same: the second is not
// recovered again, but must be what is demanded of it.
func (e *crashExam) image(h *crashHistory, p *crashPoint, image *crashImage, depth int) error {
	image.hash = image.disk.Hash(crashSeed)
	known, ok := e.results.Load(image.hash)
	if !ok {
		result, err := e.recover(h, p, image, depth)
		if err != nil {
			return err
		}
		known, _ = e.results.LoadOrStore(image.hash, result)
	}
	return p.demand.check(h, known.(*crashResult), image.way.mode == vfs.KeepAll)
}

// check compares what was recovered with what must be.
func (d *crashDemand) check(h *crashHistory, got *crashResult, keepAll bool) error {
	lowest := d.Durable
	if keepAll {
		lowest = max(lowest, d.Written)
	}
	n, ok := h.prefix(got.seq)
	switch {
	case !ok:
		return fmt.Errorf("recovered up to sequence number %d, where no commit ends", got.seq)
	case got.seq < lowest:
		return fmt.Errorf("recovered up to sequence number %d, but %d was promised",
			got.seq, lowest)
	case n > 0 && h.commits[n-1].newest > d.Ticket:
		return fmt.Errorf("recovered up to sequence number %d, which had not begun", got.seq)
	}
	for _, dir := range got.copies {
		if dir == d.Copy {
			return nil
		}
	}
	if d.Copy != "" {
		return fmt.Errorf("the checkpoint %s is not there", d.Copy)
	}
	return nil
}

// recover recovers an image, examines and uses the database, closes it, and opens it once more. If
// the power is to fail during that, those images are examined too.
func (e *crashExam) recover(
	h *crashHistory, p *crashPoint, image *crashImage, depth int,
) (result *crashResult, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	disk := image.disk.Crash(nil, vfs.KeepAll)
	verified, verifyErr := Verify(image.disk.Crash(nil, vfs.KeepAll), crashDir, nil)
	result = &crashResult{}
	if result.copies, err = e.copies(h, disk, image.hash); err != nil {
		return nil, err
	}
	var fsys vfs.FS = disk
	var capture *crashCapture
	after := new(crashHistory)
	if len(result.copies) > 0 {
		there := &crashCopy{Dir: result.copies[0]}
		there.done.Store(true)
		after.copy.Store(there)
	}
	if ways := e.compound(image.hash, depth); ways > 0 {
		capture = (&crashCapture{
			seed: image.hash, mem: disk, h: after,
			at:   fmt.Sprintf("%v, %v, in the recovery of that ", p, image.way),
			ways: func(n uint64) []crashWay { return turnWays(image.hash+n, ways) },
		}).start()
		fsys = capture.fs
		defer capture.stop()
	}
	e.recoveries.Add(1)
	run := &recoveryExam{
		e: e, h: h, after: after, disk: disk, variant: image.hash, capture: capture,
	}
	if err := run.open(fsys, result); err != nil {
		return nil, err
	}
	if err := run.verified(verified, verifyErr, result.seq); err != nil {
		return nil, errors.Join(err, run.db.Close())
	}
	if err := run.use(fsys); err != nil {
		return nil, err
	}
	if capture == nil {
		return result, nil
	}
	capture.take(vfs.Op{Kind: vfs.OpUnlock, Name: "the end"})
	capture.stop()
	e.cells.Add(capture.cells)
	e.same.Add(capture.same)
	for _, q := range capture.drain() {
		if err := e.point(run.after, q, depth+1); err != nil {
			return nil, err
		}
	}
	return result, nil
}

// turnWays returns n of the ways, others for other numbers.
func turnWays(number uint64, n int) []crashWay {
	var ways []crashWay
	for i := range n {
		ways = append(ways, crashWays[(number*7+uint64(i)*5)%uint64(len(crashWays))])
	}
	return ways
}

// copies returns the checkpoints that are on a disk: those with CURRENT. Each must be whole.
func (e *crashExam) copies(
	h *crashHistory, disk *vfs.Mem, variant uint64,
) (there []string, err error) {
	for dir, seq := range h.copies {
		_, err := disk.Size(dir + "/" + currentName)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		there = append(there, dir)
		if variant%4 != 0 { // it is one of many images that have it
			continue
		}
		v, err := Verify(disk, dir, nil)
		if err := errors.Join(append(v.Damages, err)...); err != nil {
			return nil, fmt.Errorf("verify the checkpoint: %w", err)
		}
		db, log, err := e.opts.open(dir, disk, variant%8 == 0)
		if err != nil {
			return nil, fmt.Errorf("open the checkpoint: %w", err)
		}
		n, _ := h.prefix(seq)
		err = contents(db, h.state(n))
		if err := errors.Join(err, db.Close(), log.err()); err != nil {
			return nil, fmt.Errorf("the checkpoint of sequence number %d: %w", seq, err)
		}
	}
	return there, nil
}

// recoveryExam is one recovery of an image.
type recoveryExam struct {
	e       *crashExam
	h       *crashHistory // before the crash
	after   *crashHistory // since: what was recovered is its beginning
	disk    *vfs.Mem
	variant uint64        // chooses among the ways to go on
	capture *crashCapture // nil when the power does not fail again

	db    *DB
	log   *crashLog
	state []string
}

// open recovers, and compares.
func (r *recoveryExam) open(fsys vfs.FS, result *crashResult) (err error) {
	if r.db, r.log, err = r.e.opts.open(crashDir, fsys, false); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	result.seq = r.db.published.seq()
	n, ok := r.h.prefix(result.seq)
	if !ok {
		err = fmt.Errorf("recovered up to sequence number %d, where no commit ends", result.seq)
		return errors.Join(err, r.db.Close())
	}
	r.after.begin(r.h, n)
	if r.capture != nil {
		r.capture.begun()
	}
	r.state = r.h.state(n)
	if err := r.examine(); err != nil {
		return errors.Join(fmt.Errorf("recovered: %w", err), r.db.Close())
	}
	return nil
}

// verified looks at what Verify said of the image: a crash is not damage.
func (r *recoveryExam) verified(v Verification, err error, seq sstable.Seq) error {
	if errors.Is(err, fs.ErrNotExist) && seq == 0 {
		return nil // the power failed before there was a database
	}
	if err := errors.Join(append(v.Damages, err)...); err != nil {
		return fmt.Errorf("it can be recovered, but Verify says: %w", err)
	}
	if v.LastSeq != seq {
		return fmt.Errorf("recovered up to sequence number %d, but Verify says %d", seq, v.LastSeq)
	}
	return nil
}

// examine looks into the open database.
func (r *recoveryExam) examine() error {
	if err := contents(r.db, r.state); err != nil {
		return err
	}
	if err := r.db.Check(); err != nil {
		return err
	}
	return r.log.err()
}

// use writes to the recovered database, closes and opens it: at once or after the write, so that
// both what was recovered and what came after it is opened twice.
func (r *recoveryExam) use(fsys vfs.FS) error {
	if r.variant%3 == 0 {
		if err := r.reopen(fsys); err != nil {
			return err
		}
	}
	if err := r.write(); err != nil {
		return errors.Join(fmt.Errorf("use the recovered database: %w", err), r.db.Close())
	}
	if r.variant%3 == 1 {
		if err := r.reopen(fsys); err != nil {
			return err
		}
	}
	return r.close()
}

// write makes a write that must win over all older ones of its key.
func (r *recoveryExam) write() error {
	key := int(r.variant % uint64(len(crashKeys)))
	ops := []crashOp{{key, fmt.Sprintf("written after the recovery %016x", r.variant)}}
	if err := r.after.commit(r.db, ops, Durability(r.variant/64%3)); err != nil {
		return err
	}
	if err := r.after.settle(); err != nil { // the sequence numbers go on where they were
		return err
	}
	r.state = r.after.state(len(r.after.commits))
	value, err := r.db.Get([]byte(crashKeys[key]))
	if err == nil && !bytes.Equal(value, []byte(ops[0].Value)) {
		err = fmt.Errorf("the new value of %q does not win: %.30q", crashKeys[key], value)
	}
	if err == nil && r.variant/8%8 == 0 {
		if err = r.db.Flush(); err == nil {
			err = r.after.allDurable()
		}
		if err == nil {
			err = contents(r.db, r.state)
		}
	}
	return err
}

func (r *recoveryExam) close() error {
	if err := errors.Join(r.db.Close(), r.log.err()); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	if n := r.disk.OpenFiles(); n != 0 {
		return fmt.Errorf("%d files are open after Close", n)
	}
	return r.after.allDurable()
}

func (r *recoveryExam) reopen(fsys vfs.FS) (err error) {
	if err := r.close(); err != nil {
		return err
	}
	r.e.reopens.Add(1)
	if r.db, r.log, err = r.e.opts.open(crashDir, fsys, false); err != nil {
		return fmt.Errorf("open once more: %w", err)
	}
	if seq := r.db.published.seq(); seq != r.after.last() {
		err = fmt.Errorf("sequence number %d after %d", seq, r.after.last())
	} else {
		err = r.examine()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("opened once more: %w", err), r.db.Close())
	}
	return nil
}
