package metamorphic

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"kvd/lsm"
	"kvd/sstable"
)

// The databases here are wrong on purpose, each in one way that needs some history to show. The
// test must find every one of them, and shrink what it found to a list that a reader can follow.

// forgetful drops deletes after a flush.
type forgetful struct {
	*lsm.DB
	flushed bool
}

func (f *forgetful) Flush() error {
	f.flushed = true
	return f.DB.Flush()
}

func (f *forgetful) Delete(key []byte, d lsm.Durability) error {
	if f.flushed {
		return nil
	}
	return f.DB.Delete(key, d)
}

// hasty acknowledges a synced write before it is synced.
type hasty struct{ *lsm.DB }

func (h *hasty) Put(key, value []byte, d lsm.Durability) error {
	return h.DB.Put(key, value, max(d, lsm.Async))
}

// unbounded iterates past the upper bound.
type unbounded struct{ *lsm.DB }

func (u *unbounded) NewIter(o lsm.IterOptions) *lsm.Iter {
	o.Upper = nil
	return u.DB.NewIter(o)
}

// merging lets the first write of a key in a batch win.
type merging struct{ *lsm.DB }

func (m *merging) Apply(b *lsm.Batch, d lsm.Durability) error {
	var firsts lsm.Batch
	seen := map[string]bool{}
	b.Each(func(kind sstable.Kind, key, value []byte) bool {
		switch {
		case seen[string(key)]:
		case kind == sstable.KindPut:
			firsts.Put(key, value)
		default:
			firsts.Delete(key)
		}
		seen[string(key)] = true
		return true
	})
	if firsts.Len() == 0 {
		return m.DB.Apply(b, d) // empty, or refused
	}
	return m.DB.Apply(&firsts, d)
}

// compacted loses an empty value when it compacts a range that is bounded.
type compacted struct{ *lsm.DB }

func (c *compacted) Compact(ctx context.Context, lo, hi []byte) error {
	if lo != nil {
		it := c.NewIter(lsm.IterOptions{Lower: lo, Upper: hi})
		var lost []byte
		for key, value := range it.All() {
			if len(value) == 0 {
				lost = bytes.Clone(key)
				break
			}
		}
		if err := it.Close(); err != nil {
			return err
		}
		if lost != nil {
			if err := c.Delete(lost, lsm.Sync); err != nil {
				return err
			}
		}
	}
	return c.DB.Compact(ctx, lo, hi)
}

func TestFindsAndShrinks(t *testing.T) {
	middle := corners()[4]
	for _, c := range []struct {
		name string
		wrap func(*lsm.DB) database
		most int    // ops of the list in the end
		has  string // an op of it
	}{
		{"forgetful", func(db *lsm.DB) database { return &forgetful{DB: db} }, 5, "delete"},
		{"hasty", func(db *lsm.DB) database { return &hasty{db} }, 4, "crash"},
		{"unbounded", func(db *lsm.DB) database { return &unbounded{db} }, 4, `"`},
		{"merging", func(db *lsm.DB) database { return &merging{db} }, 2, "batch"},
		{"compacted", func(db *lsm.DB) database { return &compacted{db} }, 4, "compact"},
	} {
		if raceDetector && c.name != "forgetful" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= 20; seed++ {
				ops, p := generate(seed, 500), middle
				m := failure(ops, p, c.wrap, triesOnce)
				if m == nil {
					continue
				}
				short, p := shrinkFailure(ops, m, c.wrap, 10*shrinkTime)
				text := p.String()
				for _, o := range short {
					text += "\n" + o.String()
				}
				t.Logf("seed %d, shrunk from %d ops:\n%s", seed, m.at+1, text)
				if len(short) > c.most || !strings.Contains(text, c.has) {
					t.Errorf("has %d ops, want at most %d with %q", len(short), c.most, c.has)
				}
				again, err := parseOps(text)
				if err != nil || failure(again, p, c.wrap, triesOnce) == nil {
					t.Errorf("the saved list does not fail: %v", err)
				}
				return
			}
			t.Error("not found")
		})
	}
}

// A list is minimal when no op can be left out, whatever the failure hangs on.
func TestShrink(t *testing.T) {
	ops := generate(1, 300)
	needed := []op{{"flush"}, {"reopen"}, {"flush"}}
	fails := func(candidate []op) bool {
		i := 0
		for _, o := range candidate {
			if i < len(needed) && o.String() == needed[i].String() {
				i++
			}
		}
		return i == len(needed)
	}
	if !fails(ops) {
		t.Fatal("the list has not what it needs")
	}
	if got := shrink(ops, fails, time.Minute); len(got) != len(needed) || !fails(got) {
		t.Errorf("shrunk to %v", got)
	}
	calls := 0
	slow := func(candidate []op) bool { calls++; return fails(candidate) }
	if got := shrink(ops, slow, 0); calls > 0 || len(got) != len(ops) {
		t.Errorf("%d candidates were run after the deadline", calls)
	}
}
