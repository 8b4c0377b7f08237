package main

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// chaosKey is what is known of a key from outside: each write, how it ended, and what it had seen.
type chaosKey struct {
	name   string
	shared bool // by all clients
	blind  bool // some writes come without a context

	mu     sync.Mutex
	writes []*chaosWrite
	byName map[string]*chaosWrite // by value
	// Of the last acknowledged write, if the key has one owner.
	last        *chaosWrite
	lastContext []byte
}

type chaosWrite struct {
	value   string // unique, also of a delete
	deletes bool
	state   chaosState
	began   time.Time
	ended   time.Time // the zero time: perhaps not yet, or never
	// What its context covers for certain: the values that were read, or the writer's write before.
	saw []*chaosWrite
	// It replaced whatever its coordinator had: perhaps everything that had begun before its end.
	blind bool
}

type chaosState uint8

const (
	chaosInDoubt chaosState = iota
	chaosAcked
	chaosRefused // it was not begun, said the cluster
)

func newChaosKey(name string, shared, blind bool) *chaosKey {
	return &chaosKey{name: name, shared: shared, blind: blind, byName: map[string]*chaosWrite{}}
}

// begin notes a write before it is sent.
func (k *chaosKey) begin(w *chaosWrite) {
	k.mu.Lock()
	defer k.mu.Unlock()
	w.began = time.Now()
	k.writes = append(k.writes, w)
	if !w.deletes {
		k.byName[w.value] = w
	}
}

func (k *chaosKey) end(w *chaosWrite, s chaosState, context []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if w.state = s; s != chaosInDoubt {
		w.ended = time.Now()
	}
	if s == chaosAcked {
		k.last, k.lastContext = w, context
	}
}

// known turns values into the writes that they are of.
func (k *chaosKey) known(values [][]byte) (writes []*chaosWrite, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, v := range values {
		w := k.byName[string(v)]
		switch {
		case w == nil:
			return nil, fmt.Errorf("%s has %q, which nobody wrote", k.name, v)
		case w.state == chaosRefused:
			return nil, fmt.Errorf("%s has %q, which was refused", k.name, v)
		}
		writes = append(writes, w)
	}
	return writes, nil
}

// mayHaveSeen reports whether w can have replaced older.
func (w *chaosWrite) mayHaveSeen(older *chaosWrite) bool {
	for _, x := range w.saw {
		if x == older {
			return true
		}
	}
	return w.blind && (w.ended.IsZero() || older.began.Before(w.ended))
}

// check compares what a key has in the end with what may be left. Each acknowledged write is there,
// or a write that may have seen it is, or one that replaced that in turn, or it was deleted. And
// nothing is there that an acknowledged write had seen, or what that had seen.
func (k *chaosKey) check(values [][]byte) error {
	left, err := k.known(values)
	if err != nil {
		return err
	}
	accounted := k.accounted(left)
	replaced := map[*chaosWrite]bool{}
	var cover func(w *chaosWrite)
	cover = func(w *chaosWrite) {
		for _, older := range w.saw {
			if !replaced[older] {
				replaced[older] = true
				cover(older)
			}
		}
	}
	for _, w := range k.writes {
		if w.state != chaosAcked {
			continue
		}
		if !accounted[w] {
			return fmt.Errorf("%s has lost %q, which was acknowledged: it has %q", k.name, w.value,
				values)
		}
		cover(w)
	}
	for _, w := range left {
		if replaced[w] {
			return fmt.Errorf("%s has %q, which an acknowledged write had replaced", k.name, w.value)
		}
	}
	return nil
}

// accounted goes from what is left, and from deletes, back to what they may have replaced.
func (k *chaosKey) accounted(left []*chaosWrite) map[*chaosWrite]bool {
	queue := append([]*chaosWrite(nil), left...)
	for _, w := range k.writes {
		if w.deletes && w.state != chaosRefused {
			queue = append(queue, w)
		}
	}
	all := map[*chaosWrite]bool{}
	for len(queue) > 0 {
		w := queue[0]
		queue = queue[1:]
		if all[w] {
			continue
		}
		all[w] = true
		if !w.blind {
			queue = append(queue, w.saw...)
			continue
		}
		for _, older := range k.writes {
			if !all[older] && w.mayHaveSeen(older) {
				queue = append(queue, older)
			}
		}
	}
	return all
}

// The record is itself to be trusted: each kind of loss is found, and what is allowed is.
func TestChaosRecord(t *testing.T) {
	now := time.Now()
	at := func(second int) time.Time { return now.Add(time.Duration(second) * time.Second) }
	write := func(value string, s chaosState, saw ...*chaosWrite) *chaosWrite {
		return &chaosWrite{value: value, state: s, began: at(0), saw: saw}
	}
	a := write("a", chaosAcked)
	b := write("b", chaosAcked, a)
	doubt := write("doubt", chaosInDoubt, b)
	after := write("after", chaosAcked, doubt)
	gone := write("gone", chaosAcked, b)
	gone.deletes = true
	refused := write("refused", chaosRefused, b)
	blind := write("blind", chaosAcked)
	blind.blind, blind.ended = true, at(1)
	late := write("late", chaosAcked)
	late.began = at(2)
	for _, c := range []struct {
		writes []*chaosWrite
		left   string // values
		want   string // part of the error
	}{
		{[]*chaosWrite{a}, "a", ""},
		{[]*chaosWrite{a}, "", "lost"},
		{[]*chaosWrite{a}, "a x", "nobody wrote"},
		{[]*chaosWrite{a, b}, "b", ""},
		{[]*chaosWrite{a, b}, "a", "lost"},
		{[]*chaosWrite{a, b}, "a b", "replaced"},
		{[]*chaosWrite{a, b, doubt}, "doubt", ""},
		{[]*chaosWrite{a, b, doubt}, "b", ""},
		{[]*chaosWrite{a, b, doubt}, "b doubt", ""}, // still on its way
		{[]*chaosWrite{a, b, doubt}, "", "lost"},
		{[]*chaosWrite{a, b, doubt, after}, "after", ""},
		{[]*chaosWrite{a, b, doubt, after}, "b after", "replaced"},
		{[]*chaosWrite{a, b, gone}, "", ""},
		{[]*chaosWrite{a, b, refused}, "refused", "refused"},
		{[]*chaosWrite{a, blind}, "blind", ""},
		{[]*chaosWrite{a, blind}, "a blind", ""}, // another coordinator
		{[]*chaosWrite{a, blind}, "a", "lost"},
		{[]*chaosWrite{late, blind}, "blind", "lost"},
	} {
		k := newChaosKey("k", true, true)
		for _, w := range c.writes {
			k.writes = append(k.writes, w)
			k.byName[w.value] = w
		}
		var values [][]byte
		for v := range strings.FieldsSeq(c.left) {
			values = append(values, []byte(v))
		}
		got := ""
		if err := k.check(values); err != nil {
			got = err.Error()
		}
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%d writes, %q left: %q, want %q", len(c.writes), c.left, got, c.want)
		}
	}
}
