package lsm

import (
	"errors"
	"fmt"
	"maps"
	"strings"
)

// faultWrite is one batch and what its writer knows of it: a pair of unique keys, which no other
// batch touches and which tell whether the batch is there, and a change of a key that many share.
type faultWrite struct {
	writer, n int
	one, two  string // the unique keys
	key       string
	value     string // never empty
	remove    bool   // the key, instead of setting it
	fate      faultFate
	held      faultHold
}

// faultFate is what has become of a write as far as anybody was told.
type faultFate uint8

const (
	fateRefused faultFate = iota // an error that is not ErrInDoubt: it did not happen
	fateInDoubt                  // it is visible, and may be gone after a reopening
	fateAcked                    // it is visible, and what follows depends on what holds it
	fateGone                     // it was not there at a reopening: it never comes back
	fateStays                    // it was there at a reopening: it is in a table by now
)

// faultHold is what an acknowledged write must survive.
type faultHold uint8

const (
	heldInBuffer faultHold = iota // a clean close
	heldBySystem                  // the death of the process
	heldByDisk                    // a loss of power
)

func faultHoldOf(d Durability) faultHold {
	return map[Durability]faultHold{NoSync: heldInBuffer, Async: heldBySystem, Sync: heldByDisk}[d]
}

func (w *faultWrite) String() string {
	fate := [...]string{"refused", "in doubt", "acknowledged", "gone at a reopening",
		"there at a reopening"}[w.fate]
	hold := [...]string{"the log buffer", "the system", "the disk"}[w.held]
	return fmt.Sprintf("write %d of writer %d (%s, held by %s)", w.n, w.writer, fate, hold)
}

func (w *faultWrite) batch() *Batch {
	var b Batch
	b.Put([]byte(w.one), []byte(w.value))
	if w.remove {
		b.Delete([]byte(w.key))
	} else {
		b.Put([]byte(w.key), []byte(w.value))
	}
	b.Put([]byte(w.two), []byte(w.value))
	return &b
}

// apply does to contents what the write does.
func (w *faultWrite) apply(contents map[string]string) {
	contents[w.one], contents[w.two] = w.value, w.value
	if w.remove {
		delete(contents, w.key)
	} else {
		contents[w.key] = w.value
	}
}

// faultLedger is what one writer, who writes one batch after the other, knows of its writes.
type faultLedger struct {
	writer int
	writes []*faultWrite
	live   map[string]string // its keys as a reader of this instance must see them
}

const faultKeys = 20

// next returns the next write. Its values are as random as r is.
func (l *faultLedger) next(size, key int, remove bool) *faultWrite {
	n := len(l.writes)
	w := &faultWrite{
		writer: l.writer,
		n:      n,
		one:    fmt.Sprintf("u%d-%04d-0", l.writer, n),
		two:    fmt.Sprintf("u%d-%04d-1", l.writer, n),
		key:    l.key(key),
		remove: remove,
	}
	w.value = fmt.Sprintf("%d-%d %s", w.writer, w.n, strings.Repeat("v", size))
	l.writes = append(l.writes, w)
	return w
}

// key returns the i-th of the keys that writes share.
func (l *faultLedger) key(i int) string {
	return "k" + string(rune('0'+l.writer)) + "-" + string(rune('a'+i%faultKeys))
}

// outcome notes how a write with durability d ended. What comes before it in the log is at least
// as safe as it is.
func (l *faultLedger) outcome(w *faultWrite, d Durability, err error) {
	switch {
	case err == nil:
		w.fate = fateAcked
		l.hold(faultHoldOf(d))
	case errors.Is(err, ErrInDoubt):
		w.fate = fateInDoubt
	default:
		return
	}
	if l.live == nil {
		l.live = make(map[string]string)
	}
	w.apply(l.live)
}

// hold notes that all writes so far are held by h at least.
func (l *faultLedger) hold(h faultHold) {
	for _, w := range l.writes {
		if w.fate != fateRefused && w.fate != fateGone {
			w.held = max(w.held, h)
		}
	}
}

// faultMoment is when contents are looked at.
type faultMoment struct {
	name string
	live bool      // in the instance that took the writes
	must faultHold // else: writes that are held so well must be there
}

var (
	whileOpen    = faultMoment{name: "while open", live: true}
	afterOpening = faultMoment{name: "reopened", must: heldBySystem}
	afterEvicted = faultMoment{name: "reopened after pages were lost", must: heldByDisk}
	afterPower   = faultMoment{name: "after a loss of power", must: heldByDisk}
)

// check says what is wrong with the contents of the database at a moment: each write is there
// whole or not at all; those that must be there are, and those that must not are not; of those
// that may, a prefix is; and every key has the value of the last write that is there.
func (l *faultLedger) check(contents map[string]string, at faultMoment) error {
	want := make(map[string]string)
	var missing *faultWrite
	for _, w := range l.writes {
		one, two := contents[w.one], contents[w.two]
		there := one != ""
		if one != two || there && one != w.value {
			return fmt.Errorf("%s: %v holds %.12q and %.12q", at.name, w, one, two)
		}
		if there {
			w.apply(want)
		}
		must, mustNot := at.live || w.held >= at.must, false
		switch w.fate {
		case fateRefused, fateGone:
			must, mustNot = false, true
		case fateStays:
			must = true
		}
		switch {
		case must && !there:
			return fmt.Errorf("%s: %v is lost", at.name, w)
		case mustNot && there:
			return fmt.Errorf("%s: %v is there", at.name, w)
		case there && w.fate != fateStays && missing != nil:
			return fmt.Errorf("%s: %v is there, but not %v before it", at.name, w, missing)
		}
		if !there && !mustNot {
			missing = w
		}
	}
	for i := range faultKeys {
		key := l.key(i)
		if contents[key] != want[key] {
			return fmt.Errorf("%s: %s is %.12q, want %.12q", at.name, key, contents[key], want[key])
		}
	}
	return nil
}

// settle takes over what a reopening has brought back.
func (l *faultLedger) settle(contents map[string]string) {
	l.live = make(map[string]string)
	for _, w := range l.writes {
		switch {
		case w.fate == fateRefused || w.fate == fateGone:
		case contents[w.one] != "":
			w.fate, w.held = fateStays, heldByDisk
			w.apply(l.live)
		default:
			w.fate = fateGone
		}
	}
}

// faultContents reads everything, forward and backward.
func faultContents(db *DB) (map[string]string, error) {
	contents := make(map[string]string)
	it := db.NewIter(IterOptions{})
	for key, value := range it.All() {
		contents[string(key)] = string(value)
	}
	back := make(map[string]string, len(contents))
	for ok := it.Last(); ok; ok = it.Prev() {
		back[string(it.Key())] = string(it.Value())
	}
	if err := it.Close(); err != nil {
		return nil, err
	}
	if !maps.Equal(contents, back) {
		return nil, fmt.Errorf("%d pairs forward, %d backward, not the same", len(contents), len(back))
	}
	return contents, nil
}
