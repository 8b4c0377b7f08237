package metamorphic

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"
)

// shrinker makes a failing list short. fails runs a candidate; it is asked until the deadline.
type shrinker struct {
	fails    func([]op) bool
	deadline time.Time
	ops      []op // the shortest that fails
}

// shrink returns a list that still fails and that loses its failure with any of its ops, or the
// shortest that was found by the deadline. ops fails.
func shrink(ops []op, fails func([]op) bool, within time.Duration) []op {
	s := &shrinker{fails: fails, deadline: time.Now().Add(within), ops: ops}
	for again := true; again; {
		again = s.dropChunks()
		again = s.simplify() || again
	}
	return s.ops
}

// try keeps a candidate that fails.
func (s *shrinker) try(candidate []op) bool {
	if time.Now().After(s.deadline) || !s.fails(candidate) {
		return false
	}
	s.ops = candidate
	return true
}

// dropChunks leaves out halves, then quarters, down to single ops, from the end: what comes after
// the failure goes first.
func (s *shrinker) dropChunks() (shorter bool) {
	for size := max(1, len(s.ops)/2); ; size /= 2 {
		for end := len(s.ops); end > 0; end -= size {
			from := max(0, end-size)
			if s.try(slices.Concat(s.ops[:from], s.ops[min(end, len(s.ops)):])) {
				shorter = true
			}
		}
		if size <= 1 {
			return shorter
		}
	}
}

// simplify makes the words of ops simpler.
func (s *shrinker) simplify() (simpler bool) {
	if s.renameKeys() {
		simpler = true
	}
	for i := 0; i < len(s.ops); i++ {
		for again := true; again; {
			again = false
			for _, o := range simplerOps(s.ops[i]) {
				candidate := slices.Clone(s.ops)
				candidate[i] = o
				if s.try(candidate) {
					simpler, again = true, true
					break
				}
			}
		}
	}
	return simpler
}

// simplerOps returns what an op could be replaced by, boldest first. Every step makes it shorter in
// a way that no other step undoes, so that simplify ends.
func simplerOps(o op) (list []op) {
	with := func(i int, word string) {
		if i < len(o) && o[i] != word {
			c := slices.Clone(o)
			c[i] = word
			list = append(list, c)
		}
	}
	switch o[0] {
	case "batch":
		writes := writesOf(o)
		rebuilt := func(writes []write) {
			c := slices.Clone(o[:3])
			for _, w := range writes {
				if w.put {
					c = append(c, "put", w.key, w.value)
				} else {
					c = append(c, "delete", w.key)
				}
			}
			list = append(list, c)
		}
		if n := len(writes); n > 2 {
			rebuilt(writes[:n/2])
			rebuilt(writes[n/2:])
		}
		if len(writes) == 1 {
			w := writes[0]
			if w.put {
				return append(list, op{"put", o[1], w.key, w.value, o[2]})
			}
			return append(list, op{"delete", o[1], w.key, o[2]})
		}
		for i := range writes {
			rebuilt(slices.Concat(writes[:i], writes[i+1:]))
		}
		for i, w := range writes {
			for _, v := range simplerValues(w.value) {
				changed := slices.Clone(writes)
				changed[i].value = v
				rebuilt(changed)
			}
		}
		with(2, "sync")
	case "put":
		for _, v := range simplerValues(o[3]) {
			with(3, v)
		}
		with(4, "sync")
	case "delete":
		with(3, "sync")
	case "iter":
		with(3, "-")
		with(4, "-")
	case "scan":
		with(2, "-")
		with(3, "-")
		with(4, "forward")
	case "compact":
		with(1, "-")
		with(2, "-")
	case "next", "prev":
		if n, _ := strconv.Atoi(o[2]); n > 1 {
			with(2, "1")
			with(2, strconv.Itoa(n-1))
		}
	case "crash":
		if len(o) > 4 {
			list = append(list, o[:4])
		}
		with(3, "sync")
		with(1, "KeepNone")
		with(2, "0")
	case "checkpoint":
		with(2, "readonly")
	}
	return list
}

func simplerValues(text string) []string {
	v, err := parseValue(text)
	if err != nil || v.size == 0 {
		return nil // a delete, or as simple as can be
	}
	list := []string{value{}.String()}
	if v.fill > 1 || v.size > 1 {
		list = append(list, value{1, 0}.String())
	}
	if v.size > 2 {
		list = append(list, value{v.size / 2, v.fill}.String())
	}
	if v.fill > 1 {
		list = append(list, value{v.size, v.fill % 2}.String())
	}
	return list
}

// renameKeys gives all keys short names in the same order, or as many as leaves the failure.
func (s *shrinker) renameKeys() bool {
	texts := map[string]string{} // key to text
	for _, o := range s.ops {
		for _, i := range keyWords(o) {
			texts[string(keyOf(o[i]))] = o[i]
		}
	}
	simple := func(n int) string { return keyText(fmt.Sprintf("k%0*d", len(fmt.Sprint(len(texts)-1)), n)) }
	names, all := map[string]string{}, true
	for i, key := range slices.Sorted(maps.Keys(texts)) {
		names[texts[key]] = simple(i)
		all = all && texts[key] == simple(i)
	}
	if all {
		return false
	}
	rename := func(names map[string]string) bool {
		candidate := make([]op, len(s.ops))
		for i, o := range s.ops {
			candidate[i] = slices.Clone(o)
			for _, j := range keyWords(o) {
				if name, ok := names[o[j]]; ok {
					candidate[i][j] = name
				}
			}
		}
		return s.try(candidate)
	}
	if rename(names) {
		return true
	}
	some := false
	for _, text := range slices.Sorted(maps.Keys(names)) {
		if len(text) > len(names[text]) && rename(map[string]string{text: names[text]}) {
			some = true
		}
	}
	return some
}

// keyWords returns where the keys of an op are.
func keyWords(o op) (at []int) {
	for i, word := range o {
		if word[0] == '"' {
			at = append(at, i)
		}
	}
	return at
}
