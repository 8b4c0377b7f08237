package replication

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"

	"kvd/lsm"
)

// An object is all that is known of one key: a dotted version vector set (Almeida et al., Scalable
// and Accurate Causality Tracking for Eventually Consistent Stores, 2014). Its clock says which
// writes have been seen, its siblings are those of them that no seen write has replaced. A dot that
// the clock covers and no sibling has belongs to a write that was replaced; that is what a replica
// which still has it learns from a merge.

// Stamp is a time by a hybrid logical clock (Kulkarni et al., 2014): milliseconds since 1970
// shifted by 16 bits, and a counter below. It decides between concurrent writes of a bucket that
// keeps only one, and orders siblings for people; nothing else.
type Stamp uint64

// Sibling is a write that nothing has replaced.
type Sibling struct {
	Dot       Dot
	Stamp     Stamp
	Tombstone bool // a delete; it has no value
	Value     []byte
}

// Object is what a replica knows of a key. The zero Object knows nothing. Siblings are sorted by
// their dots and the clock covers each of them. Objects are never changed in place.
type Object struct {
	Clock    Clock
	Siblings []Sibling
}

// Policy says what becomes of writes that have not seen each other.
type Policy uint8

const (
	KeepSiblings   Policy = iota // all are kept until a write has seen them
	LastWriterWins               // the one with the greatest stamp is kept
)

func (p Policy) String() string {
	if p == LastWriterWins {
		return "lww"
	}
	return "siblings"
}

// MaxSiblings bounds the siblings of a key: a write that would make more is refused.
const MaxSiblings = 100

// What owners took apart has to fit into one object when they meet, because all of it was
// acknowledged. So each takes its share only; see the shares of one value below.
const (
	// mergedSiblingsMax bounds the siblings of an object: MaxSiblings of each of MaxReplicas
	// owners, and more than as many again of others in their places.
	mergedSiblingsMax = 4096
	// clockRoomBytes is left for the clock: 3 600 actors.
	clockRoomBytes = 64 << 10
)

// shareBytes bounds what the siblings of a key may take after a write on one of n replicas. With up
// to three replicas the shares are as large as the largest value; with more, a value by itself may
// be larger than a share, so that what a client may write does not depend on n.
func shareBytes(n int) int { return (lsm.MaxValueBytes - clockRoomBytes) / max(n, 3) }

// siblingsBytes is what the siblings take in an encoding, or a little more.
func (o Object) siblingsBytes() (n int) {
	for i := range o.Siblings {
		n += len(o.Siblings[i].Value) + siblingHeadMost
	}
	return n
}

// fits reports whether the object can be stored and sent. The zero Object and one value always do.
func (o Object) fits() bool {
	return len(o.Siblings) <= mergedSiblingsMax &&
		o.siblingsBytes()+len(o.Clock)*clockEntryMost <= lsm.MaxValueBytes-objectHeadMost
}

// Merge joins what two replicas know: a sibling stays when both have it, or when the other has not
// seen it. It is commutative, associative and idempotent. The result may share memory with both.
func Merge(a, b Object, p Policy) Object {
	switch {
	case len(a.Clock) == 0:
		return b
	case len(b.Clock) == 0:
		return a
	}
	o := Object{Clock: a.Clock.Merge(b.Clock)}
	x, y := a.Siblings, b.Siblings
	for len(x) > 0 || len(y) > 0 {
		switch {
		case len(y) == 0 || len(x) > 0 && compareDots(x[0].Dot, y[0].Dot) < 0:
			if !b.Clock.Covers(x[0].Dot) {
				o.Siblings = append(o.Siblings, x[0])
			}
			x = x[1:]
		case len(x) == 0 || compareDots(y[0].Dot, x[0].Dot) < 0:
			if !a.Clock.Covers(y[0].Dot) {
				o.Siblings = append(o.Siblings, y[0])
			}
			y = y[1:]
		default:
			o.Siblings = append(o.Siblings, x[0])
			x, y = x[1:], y[1:]
		}
	}
	o.settle(p)
	return o
}

// Update is the object after a write that had seen the writes that seen covers: it replaces those
// and stays beside the others. The dot of s must be a new one.
func (o Object) Update(seen Clock, s Sibling, p Policy) Object {
	next := Object{Clock: o.Clock.Merge(seen).With(s.Dot)}
	next.Siblings = make([]Sibling, 0, len(o.Siblings)+1)
	for _, old := range o.Siblings {
		if !seen.Covers(old.Dot) {
			next.Siblings = append(next.Siblings, old)
		}
	}
	at, _ := slices.BinarySearchFunc(next.Siblings, s.Dot, func(x Sibling, d Dot) int {
		return compareDots(x.Dot, d)
	})
	next.Siblings = slices.Insert(next.Siblings, at, s)
	next.settle(p)
	return next
}

// settle keeps one sibling where the policy wants that: the last by stamp, then by dot. The clock
// covers the others, which therefore count as replaced wherever the object comes.
func (o *Object) settle(p Policy) {
	if p != LastWriterWins || len(o.Siblings) < 2 {
		return
	}
	best := 0
	for i := range o.Siblings {
		if o.Siblings[i].Stamp >= o.Siblings[best].Stamp {
			best = i
		}
	}
	o.Siblings = []Sibling{o.Siblings[best]}
}

// Values are the siblings that are no tombstones, the one written last first.
func (o Object) Values() []Sibling {
	var live []Sibling
	for _, s := range o.Siblings {
		if !s.Tombstone {
			live = append(live, s)
		}
	}
	if len(live) > 1 {
		slices.SortStableFunc(live, func(a, b Sibling) int {
			if a.Stamp != b.Stamp {
				return -compareStamps(a.Stamp, b.Stamp)
			}
			return compareDots(a.Dot, b.Dot)
		})
	}
	return live
}

func compareStamps(a, b Stamp) int {
	if a < b {
		return -1
	}
	return 1
}

// Deleted reports whether tombstones are all that is left.
func (o Object) Deleted() bool {
	for _, s := range o.Siblings {
		if !s.Tombstone {
			return false
		}
	}
	return len(o.Siblings) > 0
}

// MaxStamp is the greatest stamp of the siblings.
func (o Object) MaxStamp() (m Stamp) {
	for _, s := range o.Siblings {
		m = max(m, s.Stamp)
	}
	return m
}

// The encoding of an object. Numbers are uvarints in their shortest form, actors 8 bytes little
// endian:
//
//	format u8 = 1 | actors n | n × (actor, seq) | siblings m |
//	m × (index of the actor in the clock, seq, stamp, length × 2 + tombstone, value)
//
// An object with one value "v", written as the first by the actor 0x0000000200000001:
//
//	01 01 0100000002000000 01 01 00 01 00 02 76
//
// There is one encoding of an object, so equal objects have equal digests.
const objectFormat = 1

// AppendTo appends the encoding.
func (o Object) AppendTo(dst []byte) []byte {
	dst = append(dst, objectFormat)
	dst = appendClock(dst, o.Clock)
	dst = binary.AppendUvarint(dst, uint64(len(o.Siblings)))
	for i := range o.Siblings {
		dst = append(o.appendHead(dst, &o.Siblings[i]), o.Siblings[i].Value...)
	}
	return dst
}

// appendHead appends what comes before the value of a sibling.
func (o *Object) appendHead(dst []byte, s *Sibling) []byte {
	at, _ := slices.BinarySearchFunc(o.Clock, s.Dot.Actor, func(x Dot, a Actor) int {
		return compareDots(Dot{Actor: x.Actor}, Dot{Actor: a})
	})
	dst = binary.AppendUvarint(dst, uint64(at))
	dst = binary.AppendUvarint(dst, s.Dot.Seq)
	dst = binary.AppendUvarint(dst, uint64(s.Stamp))
	size := uint64(len(s.Value)) << 1
	if s.Tombstone {
		size |= 1
	}
	return binary.AppendUvarint(dst, size)
}

func appendClock(dst []byte, c Clock) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(c)))
	for _, d := range c {
		dst = binary.LittleEndian.AppendUint64(dst, uint64(d.Actor))
		dst = binary.AppendUvarint(dst, d.Seq)
	}
	return dst
}

// Digest is equal for equal objects, and 0 for the zero Object only.
func (o Object) Digest() uint64 {
	if len(o.Clock) == 0 {
		return 0
	}
	var d xxhash.Digest
	d.Reset()
	var space [128]byte
	b := append(space[:0], objectFormat)
	b = appendClock(b, o.Clock)
	b = binary.AppendUvarint(b, uint64(len(o.Siblings)))
	d.Write(b)
	for i := range o.Siblings {
		d.Write(o.appendHead(space[:0], &o.Siblings[i]))
		d.Write(o.Siblings[i].Value)
	}
	return max(d.Sum64(), 1)
}

// ObjectError says why bytes are no encoding of an object.
type ObjectError struct{ Reason string }

func (e *ObjectError) Error() string { return "replication: not an object: " + e.Reason }

// The fewest bytes that an entry of a clock and a sibling take, which a count is compared with, and
// the most, without a value. An object by itself takes objectHeadMost.
const (
	clockEntryBytes = 9
	siblingBytes    = 4
	clockEntryMost  = 18
	siblingHeadMost = 40
	objectHeadMost  = 21
)

// DecodeObject reads an encoding. Values are parts of b. What it accepts, AppendTo makes again.
func DecodeObject(b []byte) (Object, error) {
	d := decoder{rest: b}
	if d.byte() != objectFormat {
		d.fail("unknown format")
	}
	var o Object
	o.Clock = d.clock()
	n := d.uvarint()
	if n > min(uint64(len(d.rest)/siblingBytes), mergedSiblingsMax) {
		d.fail("more siblings than there can be")
		n = 0
	}
	if n > 0 {
		o.Siblings = make([]Sibling, n)
	}
	for i := range o.Siblings {
		s := &o.Siblings[i]
		at := d.uvarint()
		s.Dot.Seq, s.Stamp = d.uvarint(), Stamp(d.uvarint())
		size := d.uvarint()
		s.Tombstone = size&1 != 0
		if size>>1 > uint64(len(d.rest)) {
			d.fail("value longer than the object")
			break
		}
		s.Value = d.take(int(size >> 1))
		if at >= uint64(len(o.Clock)) {
			d.fail("sibling of an unknown actor")
			break
		}
		s.Dot.Actor = o.Clock[at].Actor
		switch {
		case s.Dot.Seq == 0 || s.Dot.Seq > o.Clock[at].Seq:
			d.fail("sibling that the clock does not cover")
		case i > 0 && compareDots(o.Siblings[i-1].Dot, s.Dot) >= 0:
			d.fail("siblings out of order")
		case s.Tombstone && len(s.Value) > 0:
			d.fail("tombstone with a value")
		}
	}
	if d.reason == "" && len(d.rest) > 0 {
		d.fail("trailing bytes")
	}
	if d.reason == "" && len(o.Clock) == 0 {
		d.fail("empty clock")
	}
	if d.reason != "" {
		return Object{}, &ObjectError{d.reason}
	}
	return o, nil
}

func (d *decoder) clock() Clock {
	n := d.uvarint()
	if n > uint64(len(d.rest)/clockEntryBytes) {
		d.fail("clock longer than its message")
		return nil
	}
	if n == 0 {
		return nil
	}
	c := make(Clock, n)
	for i := range c {
		c[i] = Dot{Actor(d.fixed64()), d.uvarint()}
		if d.reason == "" && (c[i].Seq == 0 || i > 0 && c[i].Actor <= c[i-1].Actor) {
			d.fail("clock out of order")
		}
	}
	return c
}

// A context is what a client gets with a read and gives back with a write, to say what the write
// has seen: the clock of the object, in a form that it cannot make by itself or mix up.
//
//	format u8 = 1 | clock | stamp uvarint | checksum u64 little endian
//
// The stamp is the greatest of what was read: that of the write has to be above it, or where only
// the last write is kept, one could win over another that has seen it, and replicas that merge in
// different orders would end up with different ones. The checksum is the xxhash64 of the identity
// of the cluster, all before it and the key: dots count per partition, so the context of another
// key would claim what nobody has seen. It is refused, as is one of another cluster, or one that
// was cut or changed by accident. Someone who wants to deceive can, and harms only keys that he may
// write anyway.
const contextFormat = 1

// ContextError says why bytes are no context of this cluster.
type ContextError struct{ Reason string }

func (e *ContextError) Error() string { return "replication: context: " + e.Reason }

// EncodeContext makes the context of a clock, which may be empty, and the greatest stamp below it.
func EncodeContext(c Clock, newest Stamp, cluster uint64, key []byte) []byte {
	b := make([]byte, 0, 20+len(c)*(clockEntryBytes+2)+8)
	b = appendClock(append(b, contextFormat), c)
	b = binary.AppendUvarint(b, uint64(newest))
	return binary.LittleEndian.AppendUint64(b, contextSum(b, cluster, key))
}

func contextSum(b []byte, cluster uint64, key []byte) uint64 {
	var d xxhash.Digest
	d.ResetWithSeed(cluster)
	d.Write(b)
	d.Write(key)
	return d.Sum64()
}

// DecodeContext reads what EncodeContext made for the same cluster.
func DecodeContext(b []byte, cluster uint64, key []byte) (c Clock, newest Stamp, err error) {
	if len(b) < 11 {
		return nil, 0, &ContextError{fmt.Sprintf("%d bytes are too few", len(b))}
	}
	body := b[:len(b)-8]
	if binary.LittleEndian.Uint64(b[len(body):]) != contextSum(body, cluster, key) {
		return nil, 0, &ContextError{"checksum does not match: cut, altered, or of another " +
			"key or cluster"}
	}
	d := decoder{rest: body}
	if d.byte() != contextFormat {
		d.fail("unknown format")
	}
	c, newest = d.clock(), Stamp(d.uvarint())
	if d.reason == "" && len(d.rest) > 0 {
		d.fail("trailing bytes")
	}
	if d.reason != "" {
		return nil, 0, &ContextError{d.reason}
	}
	return c, newest, nil
}
