package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/cespare/xxhash/v2"

	"kvd/lsm"
	"kvd/replication"
)

// store is where import writes and export reads: a node, by its *replication.Client, or a
// directory that this process opens itself, by offline.
type store interface {
	Get(ctx context.Context, key, dst []byte) ([]byte, error)
	Apply(ctx context.Context, b *lsm.Batch, d lsm.Durability) error
	Scan(ctx context.Context, lower, upper []byte, limit int,
		fn func(key, value []byte) error) error
	Flush(ctx context.Context) error
	Close() error
}

// openStore opens dir when it is given, else it dials the node.
func (p *program) openStore(ctx context.Context, dir string, readOnly bool,
	report *bulkReport) (store, error) {
	if dir == "" {
		return p.dialStore(ctx, report)
	}
	db, err := openOffline(dir, readOnly)
	if err != nil {
		return nil, err
	}
	return offline{db}, nil
}

// dialStore connects to a node, or to the cluster that it belongs to.
func (p *program) dialStore(ctx context.Context, report *bulkReport) (store, error) {
	c, inCluster, err := p.dialAny(ctx)
	if err != nil {
		return nil, err
	}
	if !inCluster {
		return c, nil
	}
	return clusterStore{p.clusterClient(), report}, c.Close()
}

// openOffline opens a database that must exist, unless it is opened for writing. It makes none in a
// directory with files of others.
func openOffline(dir string, readOnly bool) (*lsm.DB, error) {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && readOnly:
		return nil, fmt.Errorf("data directory: %w", err)
	case err == nil && !info.IsDir():
		return nil, fmt.Errorf("%s: not a directory", dir)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if !readOnly {
		if err := checkDataDir(dir); err != nil {
			return nil, err
		}
	}
	db, err := lsm.Open(dir, lsm.Options{ReadOnly: readOnly})
	if err == nil {
		if err = replication.CheckUnowned(db); err != nil {
			err = errors.Join(err, db.Close())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	return db, nil
}

// offline is a database as a store.
type offline struct{ db *lsm.DB }

func (o offline) Get(_ context.Context, key, dst []byte) ([]byte, error) {
	return o.db.GetTo(dst, key)
}

func (o offline) Apply(_ context.Context, b *lsm.Batch, d lsm.Durability) error {
	return o.db.Apply(b, d)
}

func (o offline) Flush(context.Context) error { return o.db.Flush() }
func (o offline) Close() error                { return o.db.Close() }

func (o offline) Scan(ctx context.Context, lower, upper []byte, limit int,
	fn func(key, value []byte) error) error {
	it := o.db.NewIter(lsm.IterOptions{Lower: orNil(lower), Upper: orNil(upper)})
	n := 0
	for ok := it.First(); ok && (limit == 0 || n < limit); ok = it.Next() {
		n++
		err := fn(it.Key(), it.Value())
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return errors.Join(err, it.Close())
		}
	}
	return errors.Join(it.Err(), it.Close())
}

func orNil(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

var _ store = (*replication.Client)(nil)

// limits are the most bytes that a key and a value may have in a store: less in a cluster.
func limits(s store) (key, value int) {
	if _, ok := s.(clusterStore); ok {
		return replication.MaxObjectKeyBytes, replication.MaxObjectValueBytes
	}
	return lsm.MaxKeyBytes, lsm.MaxValueBytes
}

// pairSum is the share of one pair in the checksum of a set of pairs. The checksum is the sum of
// the shares, so it does not depend on the order: an import and an export of the same pairs print
// the same one.
func pairSum(key, value []byte) uint64 {
	d := xxhash.New()
	var n [8]byte
	binary.LittleEndian.PutUint64(n[:], uint64(len(key)))
	_, _ = d.Write(n[:]) // never fails
	_, _ = d.Write(key)
	_, _ = d.Write(value)
	return d.Sum64()
}

// bulkReport is what an import or an export has done. Its methods may be called concurrently.
type bulkReport struct {
	mu       sync.Mutex
	pairs    int64 // written
	bytes    int64 // of their values
	equal    int64 // left alone because they were there already
	sum      uint64
	verified int64
	notes    []bulkNote // at most notesMax
	passed   int64      // things left out that need not worry anyone
	failed   int64      // things left out that make the exit code 1
}

// bulkNote is one thing that was left out, and why.
type bulkNote struct {
	name   string // a key or a path as it is: any bytes
	reason string // may hold such names
}

func (n bulkNote) String() string {
	return printable([]byte(n.name)) + ": " + harmless(n.reason)
}

const notesMax = 1000

func (r *bulkReport) wrote(key, value []byte) {
	sum := pairSum(key, value)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pairs++
	r.bytes += int64(len(value))
	r.sum += sum
}

func (r *bulkReport) found(key, value []byte) {
	sum := pairSum(key, value)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.equal++
	r.sum += sum
}

func (r *bulkReport) verify(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.verified += int64(n)
}

// leaveOut records something that was not imported or exported.
func (r *bulkReport) leaveOut(name, reason string, failure bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if failure {
		r.failed++
	} else {
		r.passed++
	}
	if len(r.notes) < notesMax {
		r.notes = append(r.notes, bulkNote{name, reason})
	}
}

// printNotes tells the user on stderr what was left out.
func (r *bulkReport) printNotes(p *program, command string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	const shown = 20
	for i, n := range r.notes {
		if i == shown && p.output != outputJSON {
			break
		}
		fmt.Fprintf(p.stderr, "%s: left out: %v\n", command, n)
	}
	if more := r.failed + r.passed - shown; more > 0 && p.output != outputJSON {
		fmt.Fprintf(p.stderr, "%s: left out: and %d more\n", command, more)
	}
}

// conclude tells the user what was left out, and what was done: on stdout, or behind the error that
// ended it.
func (r *bulkReport) conclude(p *program, command, did string, err error) error {
	r.printNotes(p, command)
	if err != nil && p.output != outputJSON {
		return fmt.Errorf("%w\n  %s", err, r.summary(did))
	}
	return errors.Join(err, r.print(p, did))
}

// print prints the result.
func (r *bulkReport) print(p *program, did string) error {
	if p.output != outputJSON {
		line := r.summary(did)
		r.mu.Lock()
		defer r.mu.Unlock()
		_, err := fmt.Fprintf(p.stdout, "%s; checksum %016x\n", line, r.sum)
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return p.printJSON(struct {
		Pairs    int64  `json:"pairs"`
		Bytes    int64  `json:"bytes"`
		Equal    int64  `json:"already_there"`
		Verified int64  `json:"verified"`
		Checksum string `json:"checksum"`
		Passed   int64  `json:"left_out"`
		Failed   int64  `json:"failed"`
	}{r.pairs, r.bytes, r.equal, r.verified, fmt.Sprintf("%016x", r.sum), r.passed, r.failed})
}

// summary is the result in a line.
func (r *bulkReport) summary(did string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	line := fmt.Sprintf("%s %s, %s", did, plural(r.pairs, "pair"), megabytes(r.bytes))
	if r.equal > 0 {
		line += fmt.Sprintf("; %d were there already", r.equal)
	}
	if r.verified > 0 {
		line += fmt.Sprintf("; %d read back and compared", r.verified)
	}
	if n := r.failed + r.passed; n > 0 {
		line += fmt.Sprintf("; %d left out", n)
	}
	return line
}

// outcome is the error that the exit code is made of.
func (r *bulkReport) outcome(what string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed == 0 {
		return nil
	}
	return fmt.Errorf("%d of the %s could not be taken; see above", r.failed, what)
}
