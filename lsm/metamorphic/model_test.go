package metamorphic

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"kvd/lsm"
)

// contents is a sorted list of pairs that is copied before it is changed if anyone else has it.
type contents struct {
	pairs    []pair
	shared   bool
	readOnly bool
}

// freeze returns the pairs of now; nobody changes them.
func (c *contents) freeze() []pair {
	c.shared = true
	return c.pairs
}

func search(pairs []pair, key string) (int, bool) {
	return slices.BinarySearchFunc(pairs, key, func(p pair, k string) int {
		return strings.Compare(p.key, k)
	})
}

func (c *contents) own() {
	if c.shared {
		c.pairs, c.shared = slices.Clone(c.pairs), false
	}
}

func (c *contents) put(key, text string) {
	c.own()
	p := pair{key, digestOf(text), text}
	i, ok := search(c.pairs, key)
	if ok {
		c.pairs[i] = p
		return
	}
	c.pairs = slices.Insert(c.pairs, i, p)
}

func (c *contents) delete(key string) {
	if i, ok := search(c.pairs, key); ok {
		c.own()
		c.pairs = slices.Delete(c.pairs, i, i+1)
	}
}

// within returns the pairs of [lo, hi); "-" is open.
func within(pairs []pair, lo, hi string) []pair {
	if b := boundOf(lo); len(b) > 0 {
		i, _ := search(pairs, string(b))
		pairs = pairs[i:]
	}
	if b := boundOf(hi); len(b) > 0 {
		i, _ := search(pairs, string(b))
		pairs = pairs[:i]
	}
	return pairs
}

// modelIter is an iterator of the model: where it is in what it saw at its creation.
type modelIter struct {
	pairs []pair
	at    int
	on    bool
	of    string // the database
}

// model is the database as the documentation describes it, in a sorted list.
type model struct {
	targets map[string]*contents // db, and the open checkpoints
	snaps   map[string][]pair
	iters   map[string]*modelIter
}

// trace is what the model says of a list.
type trace struct {
	history []string
	after   [][]pair // contents of db before the first op and after each
}

// runModel is the history that every database must have.
func runModel(ops []op) *trace {
	m := &model{
		targets: map[string]*contents{"db": {}},
		snaps:   map[string][]pair{},
		iters:   map[string]*modelIter{},
	}
	t := &trace{after: [][]pair{nil}}
	for _, o := range ops {
		t.history = append(t.history, m.do(o))
		t.after = append(t.after, m.targets["db"].freeze())
	}
	return t
}

const skipped = "skipped" // the op speaks of something that is not open

func (m *model) do(o op) string {
	switch o[0] {
	case "put", "delete", "batch":
		return m.write(o)
	case "get":
		pairs, ok := m.view(o[1])
		if !ok {
			return skipped
		}
		if i, ok := search(pairs, string(keyOf(o[2]))); ok {
			return pairs[i].value
		}
		return "not found"
	case "snapshot":
		m.snaps[o[1]] = m.targets["db"].freeze()
	case "drop":
		if _, ok := m.snaps[o[1]]; !ok {
			return skipped
		}
		delete(m.snaps, o[1]) // iterators over it live on
	case "iter":
		pairs, ok := m.view(o[2])
		if !ok {
			return skipped
		}
		m.iters[o[1]] = &modelIter{pairs: within(pairs, o[3], o[4]), of: ownerOf(o[2])}
	case "first", "last", "seekge", "seeklt", "next", "prev":
		return m.move(o)
	case "close":
		if m.iters[o[1]] == nil {
			return skipped
		}
		delete(m.iters, o[1])
	case "scan":
		pairs, ok := m.view(o[1])
		if !ok {
			return skipped
		}
		pairs = within(pairs, o[2], o[3])
		if o[4] == "reverse" {
			pairs = slices.Clone(pairs)
			slices.Reverse(pairs)
		}
		return listing(pairs)
	case "checkpoint":
		m.closeIters(o[1])
		m.targets[o[1]] = &contents{pairs: m.targets["db"].freeze(), shared: true,
			readOnly: o[2] == "readonly"}
		return listing(m.targets[o[1]].pairs)
	case "leave":
		if m.targets[o[1]] == nil {
			return skipped
		}
		m.closeIters(o[1])
		delete(m.targets, o[1])
	case "reopen", "readonly":
		m.closeIters("db")
		clear(m.snaps)
		return listing(m.targets["db"].pairs)
	case "crash":
		clear(m.iters)
		clear(m.snaps)
		text := listing(m.targets["db"].pairs)
		for _, c := range copies {
			if m.targets[c] != nil {
				text += "; " + listing(m.targets[c].pairs)
			}
		}
		return text
	}
	return "ok"
}

// ownerOf returns the database that an iterator over a target or snapshot belongs to.
func ownerOf(name string) string {
	if slices.Contains(copies, name) {
		return name
	}
	return "db"
}

func (m *model) closeIters(of string) {
	for i, it := range m.iters {
		if it.of == of {
			delete(m.iters, i)
		}
	}
}

// view returns what a target or snapshot holds.
func (m *model) view(name string) ([]pair, bool) {
	if c := m.targets[name]; c != nil {
		return c.freeze(), true
	}
	pairs, ok := m.snaps[name]
	return pairs, ok
}

func (m *model) write(o op) string {
	c := m.targets[o[1]]
	if c == nil {
		return skipped
	}
	writes := writesOf(o)
	for _, w := range writes {
		key := keyOf(w.key)
		if w.put {
			if v, _ := parseValue(w.value); v.size > lsm.MaxValueBytes {
				return fmt.Sprintf("value of %d bytes refused", v.size)
			}
		}
		if len(key) == 0 || len(key) > lsm.MaxKeyBytes {
			return fmt.Sprintf("key of %d bytes refused", len(key))
		}
	}
	if c.readOnly {
		return "read only"
	}
	for _, w := range writes {
		if w.put {
			c.put(string(keyOf(w.key)), w.value)
		} else {
			c.delete(string(keyOf(w.key)))
		}
	}
	return "ok"
}

// write is one write of a put, a delete or a batch.
type write struct {
	put        bool
	key, value string // texts
}

func writesOf(o op) []write {
	switch o[0] {
	case "put":
		return []write{{true, o[2], o[3]}}
	case "delete":
		return []write{{key: o[2]}}
	}
	var writes []write
	for rest := o[3:]; len(rest) > 0; {
		if rest[0] == "put" {
			writes = append(writes, write{true, rest[1], rest[2]})
			rest = rest[3:]
		} else {
			writes = append(writes, write{key: rest[1]})
			rest = rest[2:]
		}
	}
	return writes
}

func (m *model) move(o op) string {
	it := m.iters[o[1]]
	if it == nil {
		return skipped
	}
	n := 1
	switch o[0] {
	case "first":
		it.at, it.on = 0, true
	case "last":
		it.at, it.on = len(it.pairs)-1, true
	case "seekge":
		it.at, _ = search(it.pairs, string(keyOf(o[2])))
		it.on = true
	case "seeklt":
		it.at, _ = search(it.pairs, string(keyOf(o[2])))
		it.at--
		it.on = true
	default:
		n, _ = strconv.Atoi(o[2])
	}
	var b strings.Builder
	for range n {
		if it.on && o[0] == "next" {
			it.at++
		}
		if it.on && o[0] == "prev" {
			it.at--
		}
		it.on = it.on && it.at >= 0 && it.at < len(it.pairs)
		if !it.on {
			b.WriteString(" end")
			break
		}
		p := it.pairs[it.at]
		b.WriteString(" " + shortKey(p.key) + "=" + p.value)
	}
	return "on" + b.String()
}
