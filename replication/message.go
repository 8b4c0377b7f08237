package replication

import (
	"encoding/binary"
	"fmt"

	"kvd/lsm"
)

// Kind is the first byte of a request and says what is asked. The values are part of the wire
// format: they are never renumbered, a retired one is never given away again.
type Kind uint8

const (
	KindPing       Kind = 1  // nothing; answered by nothing
	KindGet        Kind = 2  // key; answered by the value
	KindPut        Kind = 3  // durability, key, value
	KindDelete     Kind = 4  // durability, key
	KindApply      Kind = 5  // durability, operations
	KindScan       Kind = 6  // flags, lower and upper bound, entries and bytes at most; a page
	KindStatus     Kind = 7  // nothing; answered by Status as JSON
	KindFlush      Kind = 8  // nothing
	KindCompact    Kind = 9  // lower and upper bound
	KindCheckpoint Kind = 10 // absolute path of a directory on the node's machine
	KindScrub      Kind = 11 // nothing; answered by lsm.ScrubReport as JSON

	// Requests to a node of a cluster: see Op.
	KindRead    Kind = 12 // values and context of a key
	KindWrite   Kind = 13 // put or delete
	KindPage    Kind = 14 // a page of a partition
	KindExplain Kind = 15 // where a key is and why; answered by Explanation as JSON
	KindRing    Kind = 16 // the cluster as the node sees it; answered by Ring as JSON

	// Kinds is one more than the largest Kind.
	Kinds = 17
)

var kindNames = [Kinds]string{
	"invalid", "ping", "get", "put", "delete", "apply", "scan", "status", "flush", "compact",
	"checkpoint", "scrub", "read", "write", "page", "explain", "ring",
}

func (k Kind) String() string {
	if k < Kinds {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Limits of one message. They are part of the protocol.
const (
	// MaxApplyBytes bounds the operations of one Apply as they are encoded: room for one pair of
	// the largest size.
	MaxApplyBytes = lsm.MaxValueBytes + lsm.MaxKeyBytes + 16
	// MaxPageBytes bounds a page of a scan: a page ends before the entry that would pass it. A
	// page of one entry may be larger. Buffers of netquic that have grown beyond 256 KiB are not
	// kept, and append grows them a quarter beyond what is needed, so 240 KiB are too much. With
	// 1 MiB, and new buffers for each page, eight callers got 130 MB/s instead of 200, one 77
	// instead of 150.
	MaxPageBytes = 192 << 10
	// MaxPageEntries bounds the entries of a page.
	MaxPageEntries = 16 << 10
	// MaxPathBytes bounds the path of a checkpoint.
	MaxPathBytes = 4096
	// MaxMessageBytes bounds every request and every answer: a value of the largest size with the
	// largest key, and what is wrapped around them. A transport must carry this much.
	MaxMessageBytes = lsm.MaxValueBytes + 2*lsm.MaxKeyBytes + 64
)

const (
	flagKeysOnly = 1 << 0 // of a scan: leave the values out

	opDelete = 0 // of an Apply: key
	opPut    = 1 // key, value
)

// MessageError says why a message is not one of this protocol. Nothing of it was executed.
type MessageError struct {
	Kind   Kind // 0 when not even that is known
	Reason string
}

func (e *MessageError) Error() string {
	return fmt.Sprintf("replication: malformed %s message: %s", e.Kind, e.Reason)
}

// request is one request, taken apart. Which fields have a meaning depends on the kind. After
// decodeRequest the slices are parts of the message, valid as long as that is.
//
// The encoding is canonical: a message that decodes is the one that encode makes of the result.
type request struct {
	kind       Kind
	durability lsm.Durability
	keysOnly   bool
	key        []byte // get, put, delete
	value      []byte // put
	ops        []byte // apply: the operations, each checked to be well formed
	lower      []byte // scan, compact: empty = from the first key
	upper      []byte // scan, compact: exclusive, empty = to the last key
	entries    uint64 // scan: at most so many in the page, 0 = as many as the node likes
	bytes      uint64 // scan: likewise, of keys and values
	dir        []byte // checkpoint
}

// appendTo appends the message to dst.
func (r *request) appendTo(dst []byte) []byte {
	dst = append(dst, byte(r.kind))
	switch r.kind {
	case KindGet:
		dst = appendField(dst, r.key)
	case KindPut:
		dst = append(dst, byte(r.durability))
		dst = appendField(dst, r.key)
		dst = appendField(dst, r.value)
	case KindDelete:
		dst = append(dst, byte(r.durability))
		dst = appendField(dst, r.key)
	case KindApply:
		dst = append(dst, byte(r.durability))
		dst = append(dst, r.ops...)
	case KindScan:
		flags := byte(0)
		if r.keysOnly {
			flags |= flagKeysOnly
		}
		dst = append(dst, flags)
		dst = appendField(dst, r.lower)
		dst = appendField(dst, r.upper)
		dst = binary.AppendUvarint(dst, r.entries)
		dst = binary.AppendUvarint(dst, r.bytes)
	case KindCompact:
		dst = appendField(dst, r.lower)
		dst = appendField(dst, r.upper)
	case KindCheckpoint:
		dst = appendField(dst, r.dir)
	}
	return dst
}

// decodeRequest takes a message apart without copying. It accepts keys and values of any length
// that the message really has: whether they are in bounds is for the engine to say, whose error
// names the limit.
func decodeRequest(msg []byte) (r request, err error) {
	if len(msg) == 0 {
		return r, &MessageError{Reason: "empty"}
	}
	r.kind = Kind(msg[0])
	d := decoder{rest: msg[1:]}
	switch r.kind {
	case KindPing, KindStatus, KindFlush, KindScrub:
	case KindGet:
		r.key = d.field()
	case KindPut:
		r.durability = d.durability()
		r.key = d.field()
		r.value = d.field()
	case KindDelete:
		r.durability = d.durability()
		r.key = d.field()
	case KindApply:
		r.durability = d.durability()
		r.ops = d.operations()
	case KindScan:
		flags := d.byte()
		if flags&^flagKeysOnly != 0 {
			d.fail("unknown flags")
		}
		r.keysOnly = flags&flagKeysOnly != 0
		r.lower, r.upper = d.field(), d.field()
		r.entries, r.bytes = d.uvarint(), d.uvarint()
	case KindCompact:
		r.lower, r.upper = d.field(), d.field()
	case KindCheckpoint:
		if r.dir = d.field(); len(r.dir) > MaxPathBytes {
			d.fail("path too long")
		}
	default:
		d.fail("unknown kind")
	}
	if d.reason == "" && len(d.rest) > 0 {
		d.fail("trailing bytes")
	}
	if d.reason != "" {
		return request{}, &MessageError{Kind: r.kind, Reason: d.reason}
	}
	return r, nil
}

// appendOperations appends the writes of b in the form of an Apply.
func appendOperations(dst []byte, b *lsm.Batch) []byte {
	b.Each(func(kind lsm.Kind, key, value []byte) bool {
		if kind == lsm.KindDelete {
			dst = append(dst, opDelete)
			dst = appendField(dst, key)
			return true
		}
		dst = append(dst, opPut)
		dst = appendField(dst, key)
		dst = appendField(dst, value)
		return true
	})
	return dst
}

// fill adds what a request that writes asks for.
func (r *request) fill(b *lsm.Batch) {
	switch r.kind {
	case KindPut:
		b.Put(r.key, r.value)
	case KindDelete:
		b.Delete(r.key)
	default:
		fillBatch(b, r.ops)
	}
}

// fillBatch adds operations that decodeRequest has checked.
func fillBatch(b *lsm.Batch, ops []byte) {
	d := decoder{rest: ops}
	for len(d.rest) > 0 {
		if d.byte() == opDelete {
			b.Delete(d.field())
			continue
		}
		key := d.field()
		b.Put(key, d.field())
	}
}

// A page, after the status byte:
//
//	( uvarint klen >= 1 | key [ | uvarint vlen | value ] )* | 00 | uvarint nextlen | next
//
// next is where the following page starts; empty when there is none.
func appendEntry(dst, key, value []byte, keysOnly bool) []byte {
	dst = appendField(dst, key)
	if !keysOnly {
		dst = appendField(dst, value)
	}
	return dst
}

func appendPageEnd(dst, next []byte) []byte {
	return appendField(append(dst, 0), next)
}

// pageReader walks the entries of a page. Key and value are parts of the page.
type pageReader struct {
	d          decoder
	keysOnly   bool
	key, value []byte
	following  []byte // start of the next page, once next returned false without an error
}

// next moves to the next entry. After it returned false, err tells why.
func (p *pageReader) next() bool {
	p.key = p.d.field()
	if p.d.reason != "" {
		return false
	}
	if len(p.key) == 0 {
		p.following = p.d.field()
		if p.d.reason == "" && len(p.d.rest) > 0 {
			p.d.fail("trailing bytes")
		}
		return false
	}
	if !p.keysOnly {
		p.value = p.d.field()
	}
	return p.d.reason == ""
}

func (p *pageReader) err() error {
	if p.d.reason == "" {
		return nil
	}
	return &MessageError{Kind: KindScan, Reason: p.d.reason}
}

func appendField(dst, field []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(field)))
	return append(dst, field...)
}

// decoder reads a message from its front. The first failure sticks: later reads give zeros.
// Lengths are only ever compared with what is really there.
type decoder struct {
	rest   []byte
	reason string
}

func (d *decoder) fail(reason string) {
	if d.reason == "" {
		d.reason = reason
	}
	d.rest = nil
}

func (d *decoder) byte() byte {
	if len(d.rest) == 0 {
		d.fail("cut short")
		return 0
	}
	b := d.rest[0]
	d.rest = d.rest[1:]
	return b
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.fail("cut short or overlong number")
		return 0
	}
	if n > 1 && d.rest[n-1] == 0 {
		d.fail("number not in its shortest form")
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) field() []byte {
	n := d.uvarint()
	if n > uint64(len(d.rest)) {
		d.fail("field longer than the message")
		return nil
	}
	field := d.rest[:n:n]
	d.rest = d.rest[n:]
	return field
}

func (d *decoder) durability() lsm.Durability {
	b := d.byte()
	if b > byte(lsm.NoSync) {
		d.fail("unknown durability")
		return lsm.Sync
	}
	return lsm.Durability(b)
}

// operations checks every operation up to the end of the message and returns them undivided.
func (d *decoder) operations() []byte {
	all := d.rest
	if len(all) > MaxApplyBytes {
		d.fail("too many bytes of operations")
	}
	for len(d.rest) > 0 {
		switch d.byte() {
		case opDelete:
			d.field()
		case opPut:
			d.field()
			d.field()
		default:
			d.fail("unknown operation")
		}
	}
	return all
}
