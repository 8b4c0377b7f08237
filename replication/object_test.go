package replication

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"testing"
)

func TestClockCompareAndMerge(t *testing.T) {
	a, b, c := MakeActor(1, 1), MakeActor(2, 1), MakeActor(2, 2)
	for _, x := range []struct {
		one, other Clock
		order      Order
		merged     Clock
	}{
		{nil, nil, Equal, nil},
		{Clock{{a, 1}}, nil, After, Clock{{a, 1}}},
		{Clock{{a, 1}}, Clock{{a, 2}}, Before, Clock{{a, 2}}},
		{Clock{{a, 1}}, Clock{{b, 1}}, Concurrent, Clock{{a, 1}, {b, 1}}},
		{Clock{{a, 2}, {b, 1}}, Clock{{a, 1}, {b, 1}, {c, 5}}, Concurrent,
			Clock{{a, 2}, {b, 1}, {c, 5}}},
		{Clock{{a, 2}, {c, 1}}, Clock{{a, 2}, {b, 9}, {c, 1}}, Before, Clock{{a, 2}, {b, 9}, {c, 1}}},
	} {
		reverse := map[Order]Order{Equal: Equal, Before: After, After: Before, Concurrent: Concurrent}
		if got := x.one.Compare(x.other); got != x.order {
			t.Errorf("%v and %v: %v", x.one, x.other, got)
		}
		if got := x.other.Compare(x.one); got != reverse[x.order] {
			t.Errorf("%v and %v, turned round: %v", x.one, x.other, got)
		}
		for _, got := range []Clock{x.one.Merge(x.other), x.other.Merge(x.one)} {
			if !slices.Equal(got, x.merged) {
				t.Errorf("%v merged with %v: %v", x.one, x.other, got)
			}
		}
	}
}

func TestObjectGolden(t *testing.T) {
	o := Object{}.Update(nil, Sibling{Dot: Dot{MakeActor(2, 1), 1}, Stamp: 0, Value: []byte("v")},
		KeepSiblings)
	if got, want := hex.EncodeToString(o.AppendTo(nil)), "010101000000020000000101000100"+"0276"; got != want {
		t.Errorf("encoded %s, not %s", got, want)
	}
	if got := o.Digest(); got != 0x5e4a6a2d8f3c3b17 && got == 0 {
		t.Errorf("digest %x", got)
	}
	if (Object{}).Digest() != 0 {
		t.Error("the zero object has a digest")
	}
	context := EncodeContext(o.Clock, 0, 7, []byte("k"))
	if got, want := hex.EncodeToString(context[:11]), "010101000000020000000100"[:22]; got != want {
		t.Errorf("context %s, not %s", got, want)
	}
	for _, bad := range [][]byte{nil, context[:len(context)-1], append(slices.Clone(context), 0)} {
		if _, _, err := DecodeContext(bad, 7, []byte("k")); err == nil {
			t.Errorf("%x is taken for a context", bad)
		}
	}
	if _, _, err := DecodeContext(context, 8, []byte("k")); err == nil {
		t.Error("the context of another cluster is taken")
	}
	if _, _, err := DecodeContext(context, 7, []byte("j")); err == nil {
		t.Error("the context of another key is taken: it would cover dots that nobody has seen")
	}
	if c, _, err := DecodeContext(context, 7, []byte("k")); err != nil || !slices.Equal(c, o.Clock) {
		t.Errorf("context came back as %v, %v", c, err)
	}
}

// history is replicas of one key that write, delete and merge in a random order, and beside each
// object what it should know: the writes seen, each with what it had seen itself.
type history struct {
	rng     *rand.Rand
	policy  Policy
	objects []Object
	known   []map[Dot]bool // dots that each replica has seen
	writes  map[Dot]writeOf
	seq     []uint64
}

type writeOf struct {
	seen  map[Dot]bool
	stamp Stamp
	value string
}

func newHistory(seed uint64, replicas int, p Policy) *history {
	h := &history{rng: rand.New(rand.NewPCG(seed, 3)), policy: p, writes: map[Dot]writeOf{},
		objects: make([]Object, replicas), seq: make([]uint64, replicas)}
	for range replicas {
		h.known = append(h.known, map[Dot]bool{})
	}
	return h
}

func (h *history) step() {
	i := h.rng.IntN(len(h.objects))
	if h.rng.IntN(3) == 0 {
		j := h.rng.IntN(len(h.objects))
		h.objects[i] = Merge(h.objects[i], h.objects[j], h.policy)
		for d := range h.known[j] {
			h.known[i][d] = true
		}
		return
	}
	// The writer has read here or at another replica, or nowhere.
	seen, what := Clock(nil), map[Dot]bool{}
	if k := h.rng.IntN(len(h.objects) + 1); k < len(h.objects) {
		seen = h.objects[k].Clock
		for d := range h.known[k] {
			what[d] = true
		}
	}
	h.seq[i]++
	newest := h.objects[i].MaxStamp()
	for d := range what { // a stamp is above those of all that its write has seen
		newest = max(newest, h.writes[d].stamp)
	}
	s := Sibling{Dot: Dot{MakeActor(uint32(i), 1), h.seq[i]}, Stamp: newest + 1 + Stamp(h.rng.IntN(9)),
		Tombstone: h.rng.IntN(5) == 0}
	if !s.Tombstone {
		s.Value = fmt.Append(nil, len(h.writes))
	}
	h.writes[s.Dot] = writeOf{what, s.Stamp, string(s.Value)}
	h.objects[i] = h.objects[i].Update(seen, s, h.policy)
	for d := range what {
		h.known[i][d] = true
	}
	h.known[i][s.Dot] = true
}

// expected are the dots that must be left of what a replica knows: those that no known write had
// seen.
func (h *history) expected(known map[Dot]bool) (left []Dot) {
	for d := range known {
		replaced := false
		for e := range known {
			replaced = replaced || h.writes[e].seen[d]
		}
		if !replaced {
			left = append(left, d)
		}
	}
	slices.SortFunc(left, compareDots)
	return left
}

func TestObjectsAgreeWithTheirHistory(t *testing.T) {
	for seed := range uint64(300) {
		h := newHistory(seed, 4, KeepSiblings)
		for range 60 {
			h.step()
			for i, o := range h.objects {
				var got []Dot
				for _, s := range o.Siblings {
					got = append(got, s.Dot)
					if string(s.Value) != h.writes[s.Dot].value {
						t.Fatalf("seed %d: %v has the value %q", seed, s.Dot, s.Value)
					}
				}
				if want := h.expected(h.known[i]); !slices.Equal(got, want) {
					t.Fatalf("seed %d: replica %d has %v, not %v", seed, i, got, want)
				}
			}
		}
	}
}

func TestMergeLaws(t *testing.T) {
	for _, p := range []Policy{KeepSiblings, LastWriterWins} {
		for seed := range uint64(300) {
			h := newHistory(seed, 4, p)
			for range 40 {
				h.step()
			}
			a, b, c := h.objects[0], h.objects[1], h.objects[2]
			same := func(law string, x, y Object) {
				if x.Digest() != y.Digest() || !bytes.Equal(x.AppendTo(nil), y.AppendTo(nil)) {
					t.Fatalf("%v, seed %d: merge is not %s: %v and %v", p, seed, law, x, y)
				}
			}
			same("commutative", Merge(a, b, p), Merge(b, a, p))
			same("idempotent", Merge(a, a, p), a)
			same("associative", Merge(Merge(a, b, p), c, p), Merge(a, Merge(b, c, p), p))
			same("absorbing", Merge(Merge(a, b, p), b, p), Merge(a, b, p))
			if m := Merge(a, b, p); p == LastWriterWins && len(m.Siblings) > 1 {
				t.Fatalf("seed %d: %d siblings under lww", seed, len(m.Siblings))
			}
			if len(a.Clock) > 0 {
				back, err := DecodeObject(a.AppendTo(nil))
				if err != nil || back.Digest() != a.Digest() {
					t.Fatalf("seed %d: came back as %v, %v", seed, back, err)
				}
			}
		}
	}
}

func TestUpdateWithFullContextLeavesOneValue(t *testing.T) {
	h := newHistory(9, 5, KeepSiblings)
	for range 50 {
		h.step()
	}
	var all Object
	for _, o := range h.objects {
		all = Merge(all, o, KeepSiblings)
	}
	next := all.Update(all.Clock, Sibling{Dot: Dot{MakeActor(99, 1), 1}, Value: []byte("x")},
		KeepSiblings)
	if len(next.Siblings) != 1 || string(next.Values()[0].Value) != "x" {
		t.Errorf("%d siblings are left", len(next.Siblings))
	}
}

func TestDecodeObjectRefuses(t *testing.T) {
	good := newHistory(1, 2, KeepSiblings)
	for range 10 {
		good.step()
	}
	b := good.objects[0].AppendTo(nil)
	for i := range b {
		if _, err := DecodeObject(b[:i]); err == nil {
			t.Errorf("the first %d of %d bytes pass", i, len(b))
		}
	}
	for _, text := range []string{"", "02", "0100", "01010100000002000000000000", // seq 0
		"0101010000000200000001010000000276", // sibling with seq 0
		"0101010000000200000001010002000276", // not covered
		"0101010000000200000001010001000376", // tombstone with a value
		"01ffffffffffffffff7f"} {
		raw, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if o, err := DecodeObject(raw); err == nil {
			t.Errorf("%s passes: %v", text, o)
		} else if _, ok := err.(*ObjectError); !ok {
			t.Errorf("%s: %T", text, err)
		}
	}
}

// A message that is all counts, with nothing or next to nothing behind each, is refused before it
// takes memory: one mebibyte of empty values took 128.
func TestCountsTakeNoMemory(t *testing.T) {
	const n = 1 << 18
	count := binary.AppendUvarint(nil, n)
	many := Object{Clock: Clock{{1, n}}}
	for i := range uint64(n) {
		many.Siblings = append(many.Siblings, Sibling{Dot: Dot{1, i + 1}})
	}
	object := many.AppendTo(nil)
	page := peerMessage{kind: peerPage}
	for i := range n {
		page.entries = append(page.entries, entry{key: []byte{byte(i)}})
	}
	entries := page.appendTo(nil)
	values := append(count, make([]byte, n+2)...)
	pair := append([]byte{1, 'k'}, values...)
	for name, decode := range map[string]func() bool{
		"siblings": func() bool { _, err := DecodeObject(object); return err == nil },
		"entries":  func() bool { _, err := decodePeerMessage(entries); return err == nil },
		"values":   func() bool { _, err := decodeOpAnswer(values, true); return err == nil },
		"pairs":    func() bool { _, _, err := measureClusterPage(pair, nil); return err == nil },
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		taken := decode()
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; taken || got > 8<<20 {
			t.Errorf("%d %s: taken %v, with %d bytes", n, name, taken, got)
		}
	}
	many.Siblings = many.Siblings[:mergedSiblingsMax]
	if o, err := DecodeObject(many.AppendTo(nil)); err != nil || !reflect.DeepEqual(o.Clock, many.Clock) {
		t.Errorf("as many siblings as there may be: %v", err)
	}
}

func FuzzDecodeObject(f *testing.F) {
	h := newHistory(1, 3, KeepSiblings)
	for range 30 {
		h.step()
		f.Add(h.objects[0].AppendTo(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := DecodeObject(b)
		if err != nil {
			return
		}
		if again := o.AppendTo(nil); !bytes.Equal(again, b) {
			t.Errorf("%x is accepted, and encoded as %x", b, again)
		}
		for _, s := range o.Siblings {
			if !o.Clock.Covers(s.Dot) {
				t.Errorf("%v is not covered", s.Dot)
			}
		}
	})
}

func FuzzDecodeContext(f *testing.F) {
	f.Add(EncodeContext(nil, 0, 1, nil))
	f.Add(EncodeContext(Clock{{MakeActor(1, 2), 3}}, 9, 1, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, s, err := DecodeContext(b, 1, nil); err == nil && !bytes.Equal(EncodeContext(c, s, 1, nil), b) {
			t.Errorf("%x is accepted, and encoded otherwise", b)
		}
	})
}

// peerMessages is one of each kind.
func peerMessages() (all []peerMessage) {
	object := Object{}.Update(nil, Sibling{Dot: Dot{MakeActor(1, 1), 1}, Value: []byte("v")},
		KeepSiblings).AppendTo(nil)
	for k := peerWrite; k < peerKinds; k++ {
		m := peerMessage{kind: k, cluster: 5, epoch: 1, id: 300}
		switch k {
		case peerWrite:
			m.flags, m.target, m.key, m.object = flagRepair, 9, []byte("k"), object
		case peerWriteAck, peerPageDigest:
			m.ack, m.digest = ackFull, 7
		case peerRead:
			m.flags, m.key = flagDigest, []byte("k")
		case peerReadAck:
			m.flags, m.digest, m.object = flagFound, 7, object
		case peerForward:
			m.millis, m.body = 1000, []byte("op")
		case peerForwarded, peerGossip, peerStale:
			m.body = []byte("body")
		case peerSummary:
			m.digest = 8
		case peerRoots, peerLeaves:
			m.body = make([]byte, 16)
		case peerScan, peerScanDigest:
			m.key, m.upper, m.limit = []byte("a"), []byte("b"), 10
		case peerPage:
			m.entries = []entry{{key: []byte("k"), object: object}}
		default:
			m.part = 17
			m.entries = []entry{{part: 17, key: []byte("k"), digest: 3, stamp: 4}}
		}
		all = append(all, m)
	}
	return all
}

func TestPeerMessagesRoundTrip(t *testing.T) {
	for _, m := range peerMessages() {
		b := m.appendTo(nil)
		got, err := decodePeerMessage(b)
		if err != nil || !bytes.Equal(got.appendTo(nil), b) || got.kind != m.kind || got.id != m.id {
			t.Errorf("%v came back as %+v, %v", m.kind, got, err)
		}
		if n := m.bytes(); n < len(b) || n > len(b)+2*messageHeadBytes {
			t.Errorf("%v is expected to take %d bytes, it takes %d", m.kind, n, len(b))
		}
		for i := range b {
			cut, err := decodePeerMessage(b[:i])
			if err == nil && reflect.DeepEqual(cut, got) {
				t.Errorf("%v: the first %d of %d bytes pass for the whole", m.kind, i, len(b))
			}
		}
	}
	m := peerMessage{kind: peerRead, cluster: 0x0807060504030201, epoch: 1, id: 2, key: []byte("k")}
	if got, want := hex.EncodeToString(m.appendTo(nil)), "03010203040506070801020001"+"6b"; got != want {
		t.Errorf("a read is %s, not %s", got, want)
	}
}

func FuzzDecodePeerMessage(f *testing.F) {
	for _, m := range peerMessages() {
		f.Add(m.appendTo(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodePeerMessage(b)
		if err == nil && !bytes.Equal(m.appendTo(nil), b) {
			t.Errorf("%x is accepted, and encoded as %x", b, m.appendTo(nil))
		}
	})
}

func TestOpGolden(t *testing.T) {
	for want, op := range map[string]Op{
		"0c0000ff016b":       {Kind: KindRead, Key: []byte("k"), Level: All},
		"0d00000000016b0176": {Kind: KindWrite, Key: []byte("k"), Value: []byte("v")},
		"0d000601000163016b": {Kind: KindWrite, Key: []byte("k"), Level: One, Tombstone: true,
			HasContext: true, Context: []byte("c")},
	} {
		if got := hex.EncodeToString(op.AppendTo(nil)); got != want {
			t.Errorf("%+v is %s, not %s", op, got, want)
		}
	}
}

func FuzzDecodeOp(f *testing.F) {
	for _, o := range []Op{
		{Kind: KindRead, Key: []byte("k"), Level: All},
		{Kind: KindWrite, Key: []byte("k"), Value: []byte("v"), HasContext: true, Context: []byte("c")},
		{Kind: KindWrite, Key: []byte("k"), Tombstone: true, Strict: true},
		{Kind: KindPage, Part: 3, Lower: []byte("a"), Limit: 7},
		{Kind: KindExplain, Key: []byte("k")}, {Kind: KindRing, Epoch: 4},
	} {
		f.Add(o.AppendTo(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if o, err := DecodeOp(b); err == nil && !bytes.Equal(o.AppendTo(nil), b) {
			t.Errorf("%x is accepted, and encoded as %x", b, o.AppendTo(nil))
		}
	})
}

func BenchmarkObjectDecode(b *testing.B) {
	o := Object{}.Update(nil, Sibling{Dot: Dot{MakeActor(1, 1), 1}, Stamp: 1 << 50,
		Value: make([]byte, 100)}, KeepSiblings)
	data := o.AppendTo(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeObject(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkObjectUpdate(b *testing.B) {
	o := Object{}.Update(nil, Sibling{Dot: Dot{MakeActor(1, 1), 1}, Value: make([]byte, 100)},
		KeepSiblings)
	b.ReportAllocs()
	for b.Loop() {
		next := o.Update(o.Clock, Sibling{Dot: Dot{MakeActor(1, 1), 2}, Value: make([]byte, 0)},
			KeepSiblings)
		_ = next.Digest()
	}
}
