package metamorphic

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	"kvd/lsm"
	"kvd/lsm/vfs"
)

// Names that lists use. A slot that is taken again is closed first.
var (
	copies    = []string{"c0", "c1"}
	snapSlots = []string{"s0", "s1", "s2", "s3"}
	iterSlots = []string{"i0", "i1", "i2", "i3", "i4", "i5"}
)

// generator draws a list from a seed.
type generator struct {
	r    *rand.Rand
	keys []string // texts
	big  int      // 1 in big values is larger than most memtables
	held bool     // there are snapshots
}

func generate(seed uint64, n int) []op {
	g := &generator{r: rand.New(rand.NewPCG(seed, 0))}
	g.big = pick(g.r, 50, 200, 1000)
	g.held = g.r.IntN(3) > 0
	g.drawKeys(pick(g.r, 10, 60, 200, 500))
	var ops []op
	for len(ops) < n {
		ops = append(ops, g.op())
	}
	return ops
}

// drawKeys fills the pool: short ones, runs of the least and the greatest byte, long shared
// prefixes, prefixes of one another, and a few of the greatest length.
func (g *generator) drawKeys(n int) {
	have := map[string]bool{}
	for i := 0; len(g.keys) < n; i++ {
		var text string
		switch g.r.IntN(7) {
		case 0:
			text = keyText(fmt.Sprintf("k%03d", g.r.IntN(1000)))
		case 1:
			text = fmt.Sprintf(`"shared\x20prefix\x20"*%d+%q`, pick(g.r, 3, 6), fmt.Sprint(g.r.IntN(300)))
		case 2:
			text = fmt.Sprintf(`"\x00"*%d`, 1+g.r.IntN(30))
		case 3:
			text = fmt.Sprintf(`"\xff"*%d`, 1+g.r.IntN(30))
		case 4:
			text = fmt.Sprintf(`"\xff"*%d+%s`, 1+g.r.IntN(8), keyText(string([]byte{byte(g.r.Uint32())})))
		case 5:
			text = fmt.Sprintf(`"a"*%d`, 1+g.r.IntN(100))
		case 6:
			b := make([]byte, 1+g.r.IntN(4))
			for i := range b {
				b[i] = pick(g.r, byte(0), 1, 'a', 'z', 0x7f, 0x80, 0xfe, 0xff)
			}
			text = keyText(string(b))
		}
		if i%100 == 99 {
			text = fmt.Sprintf(`"%c"*%d`, 'l'+rune(g.r.IntN(5)), lsm.MaxKeyBytes-g.r.IntN(2))
		}
		if key := string(keyOf(text)); !have[key] {
			have[key] = true
			g.keys = append(g.keys, text)
		}
	}
}

func (g *generator) key() string { return g.keys[g.r.IntN(len(g.keys))] }

func (g *generator) value() string {
	v := value{fill: uint64(g.r.IntN(1 << 16))}
	switch n := g.r.IntN(100); {
	case n < 10:
	case n < 50:
		v.size = 1 + g.r.IntN(30)
	case n < 85:
		v.size = g.r.IntN(200)
	default:
		v.size = g.r.IntN(2000)
	}
	if g.r.IntN(g.big) == 0 {
		v.size = pick(g.r, 4<<10, 8<<10, 8<<10+1, 40<<10, 70<<10, 130<<10, 300<<10)
	}
	return v.String()
}

func (g *generator) durability() string { return pick(g.r, "sync", "async", "nosync", "nosync") }

func (g *generator) bound() string {
	if g.r.IntN(2) == 0 {
		return "-"
	}
	return g.key()
}

// written is the target of a write, view that of a read.
func (g *generator) written() string {
	if g.r.IntN(12) == 0 {
		return pick(g.r, copies...)
	}
	return "db"
}

func (g *generator) view() string {
	switch n := g.r.IntN(10); {
	case n < 6:
		return "db"
	case n < 9:
		return pick(g.r, snapSlots...)
	}
	return pick(g.r, copies...)
}

func (g *generator) op() op {
	n := g.r.IntN(1000)
	for _, w := range []struct {
		weight int
		draw   func() op
	}{
		{260, func() op { return op{"put", g.written(), g.key(), g.value(), g.durability()} }},
		{100, func() op { return op{"delete", g.written(), g.key(), g.durability()} }},
		{80, g.batch},
		{112, func() op { return op{"get", g.view(), g.key()} }},
		{60, func() op {
			return op{"scan", g.view(), g.bound(), g.bound(), pick(g.r, "forward", "reverse", "all")}
		}},
		{50, func() op {
			return op{"iter", pick(g.r, iterSlots...), g.view(), g.bound(), g.bound()}
		}},
		{180, g.move},
		{10, func() op { return op{"close", pick(g.r, iterSlots...)} }},
		{22, g.snapshot},
		{22, func() op { return op{"drop", pick(g.r, snapSlots...)} }},
		{25, func() op { return op{"flush"} }},
		{12, g.compact},
		{8, func() op { return append(op{"compacting"}, g.compact()[1:]...) }},
		{7, func() op {
			return op{"checkpoint", pick(g.r, copies...), pick(g.r, "readonly", "writable", "writable")}
		}},
		{4, func() op { return op{"leave", pick(g.r, copies...)} }},
		{9, func() op { return op{"reopen"} }},
		{3, func() op { return op{"readonly"} }},
		{16, g.crash},
		{12, func() op { return op{"metrics"} }},
		{4, func() op { return op{"scrub"} }},
		{4, g.refused},
	} {
		if n -= w.weight; n < 0 {
			return w.draw()
		}
	}
	panic("the weights sum up to less than 1000")
}

func (g *generator) batch() op {
	o := op{"batch", g.written(), g.durability()}
	n := pick(g.r, 0, 1, 2, 5, 10, 40)
	few := []string{g.key(), g.key(), g.key()}
	for range n {
		key := g.key()
		if g.r.IntN(3) == 0 {
			key = pick(g.r, few...) // again and again
		}
		if g.r.IntN(4) == 0 {
			o = append(o, "delete", key)
		} else {
			o = append(o, "put", key, g.value())
		}
	}
	return o
}

func (g *generator) move() op {
	slot := pick(g.r, iterSlots...)
	switch n := g.r.IntN(12); n {
	case 0, 1:
		return op{pick(g.r, "first", "last"), slot}
	case 2, 3, 4, 5:
		return op{pick(g.r, "seekge", "seeklt"), slot, g.key()}
	}
	return op{pick(g.r, "next", "prev"), slot, strconv.Itoa(1 + g.r.IntN(8))}
}

func (g *generator) compact() op {
	lo, hi := g.bound(), g.bound()
	if lo != "-" && hi != "-" && strings.Compare(string(keyOf(lo)), string(keyOf(hi))) > 0 {
		lo, hi = hi, lo
	}
	return op{"compact", lo, hi}
}

func (g *generator) crash() op {
	mode := vfs.CrashModes[g.r.IntN(len(vfs.CrashModes))]
	o := op{"crash", mode.String(), strconv.Itoa(g.r.IntN(1 << 20)),
		pick(g.r, "sync", "flush", "none", "none")}
	if g.r.IntN(4) == 0 {
		o = append(o, "peek")
	}
	if g.r.IntN(4) == 0 {
		o = append(o, "again")
	}
	return o
}

func (g *generator) snapshot() op {
	if !g.held {
		return op{"compact", "-", "-"}
	}
	return op{"snapshot", pick(g.r, snapSlots...)}
}

// refused draws a write that is out of bounds.
func (g *generator) refused() op {
	long := fmt.Sprintf(`"x"*%d`, lsm.MaxKeyBytes+1)
	huge := value{size: lsm.MaxValueBytes + 1}.String()
	switch g.r.IntN(6) {
	case 0:
		return op{"put", g.written(), long, g.value(), "sync"}
	case 1:
		return op{"put", g.written(), `""`, g.value(), "sync"}
	case 2:
		return op{"delete", g.written(), pick(g.r, `""`, long), "sync"}
	case 3:
		return op{"put", g.written(), g.key(), huge, "sync"}
	case 4:
		return op{"get", g.view(), pick(g.r, `""`, long)}
	}
	return op{"batch", g.written(), "sync", "put", g.key(), g.value(), "put", `""`, g.value(),
		"delete", g.key()}
}
