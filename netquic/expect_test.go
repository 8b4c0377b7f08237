package netquic

import (
	"testing"
	"time"
)

// What is expected follows what was, and one wait does not decide.
func TestExpectation(t *testing.T) {
	e := nothing
	if e.soon() {
		t.Error("a packet is expected before there was one")
	}
	after := func(d time.Duration, soon bool) (n int) {
		for e.soon() != soon {
			e.waited(d)
			if n++; n > 100 {
				t.Fatalf("after %d waits of %v soon is %v", n, d, !soon)
			}
		}
		return n
	}
	for _, c := range []struct {
		wait time.Duration
		soon bool
		n    int
	}{
		{50 * time.Microsecond, true, 11},
		{time.Hour, false, 1}, // counts for 2 ms
		{450 * time.Microsecond, true, 12},
		{time.Hour, false, 1},
		{0, true, 3},
		{pollMost, false, 0},
	} {
		if c.n == 0 {
			for range 1000 {
				e.waited(c.wait)
			}
			if e < expectation(pollMost*9/10) {
				t.Errorf("a thousand waits of %v: %v is expected", c.wait, time.Duration(e))
			}
		} else if n := after(c.wait, c.soon); n != c.n {
			t.Errorf("waits of %v: soon is %v after %d, not %d", c.wait, c.soon, n, c.n)
		}
	}
}

// One who passes by costs a poll, a crowd nearly all of them, until it has gone.
func TestCrowd(t *testing.T) {
	var c crowd
	skipped := func() (n int) {
		for c.skip() {
			n++
		}
		return n
	}
	if skipped() != 0 {
		t.Error("nobody was met")
	}
	c.met()
	if n := skipped(); n != 1 {
		t.Errorf("%d waits are skipped for one who passed by", n)
	}
	c.gone()
	for _, want := range []int{1, 3, 7, 15, 31, 63, 63} {
		c.met()
		if n := skipped(); n != want {
			t.Errorf("%d waits are skipped, not %d", n, want)
		}
	}
	for range 6 {
		c.gone()
	}
	c.met()
	if n := skipped(); n != 1 {
		t.Errorf("%d waits are skipped after the crowd has gone", n)
	}
}
