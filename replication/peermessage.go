package replication

import (
	"encoding/binary"
	"fmt"

	"kvd/lsm"
)

// peerKind is the first byte of a message between nodes. Wire values: never renumbered.
type peerKind uint8

const (
	peerWrite     peerKind = 1  // merge an object
	peerWriteAck  peerKind = 2  // what became of it
	peerRead      peerKind = 3  // an object, or its digest
	peerReadAck   peerKind = 4  //
	peerForward   peerKind = 5  // a client's request, for a node that holds the key
	peerForwarded peerKind = 6  // its answer
	peerGossip    peerKind = 7  // heartbeats
	peerStale     peerKind = 8  // your placement is older than mine
	peerSummary   peerKind = 9  // one number for the trees of all shared partitions
	peerRoots     peerKind = 10 // the root of each shared partition
	peerLeaves    peerKind = 11 // the leaves of one partition
	peerDigests   peerKind = 12 // keys and digests of the leaves that differ
	peerWant      peerKind = 13 // send me these objects
	peerCollect   peerKind = 14 // may these tombstones be forgotten?
	peerCollected peerKind = 15 // which of them may
	peerForget    peerKind = 16 // all agreed: forget them
	peerScan      peerKind = 17 // a page of a partition
	peerPage      peerKind = 18 //

	peerScanDigest peerKind = 19 // the digest of a page of a partition
	peerPageDigest peerKind = 20 //
	peerKinds               = 21
)

var peerKindNames = [peerKinds]string{"invalid", "write", "write-ack", "read", "read-ack",
	"forward", "forwarded", "gossip", "stale", "summary", "roots", "leaves", "digests", "want",
	"collect", "collected", "forget", "scan", "page", "scan-digest", "page-digest"}

func (k peerKind) String() string {
	if k < peerKinds {
		return peerKindNames[k]
	}
	return fmt.Sprintf("peer-kind(%d)", uint8(k))
}

// ack is what a node says of a request of a peer. Wire values.
type ack uint8

const (
	ackOK         ack = 0
	ackFailed     ack = 1 // the store failed; nothing is promised
	ackFull       ack = 2 // no room: disk or hints
	ackCorrupt    ack = 3 // damage where the answer would be
	ackOverloaded ack = 4
)

const (
	flagDigest  = 1 << 0 // read: the digest will do
	flagRepair  = 1 << 1 // write: brings a replica up to date, nobody wrote it now
	flagFound   = 1 << 2 // read ack: there is an object
	flagMore    = 1 << 3 // page, digests: there is more
	flagHandoff = 1 << 4 // write: what was kept for you
	flagAny     = 1 << 5 // collected: something stands against it
	flagReply   = 1 << 6 // summary, roots: an answer, not a beginning
	flagsKnown  = 1<<7 - 1
)

// PeerMessageError says why bytes are no message of this protocol.
type PeerMessageError struct {
	Kind   peerKind
	Reason string
}

func (e *PeerMessageError) Error() string {
	return fmt.Sprintf("replication: malformed %v message between nodes: %s", e.Kind, e.Reason)
}

// peerMessage is any message between nodes; which fields count depends on the kind:
//
//	kind u8 | cluster u64 little endian | epoch uvarint | id uvarint | fields
//
// Slices of a decoded message alias it.
type peerMessage struct {
	kind    peerKind
	cluster uint64
	epoch   uint64
	id      uint64 // of the request; an answer repeats it

	flags      uint8
	ack        ack
	durability lsm.Durability
	part       Partition
	target     uint32 // write: the node that it is for, when that is not the receiver
	millis     uint64 // forward: what is left of the deadline
	digest     uint64
	limit      uint64
	key        []byte
	upper      []byte
	object     []byte
	body       []byte
	entries    []entry // key, and digest or object
}

// messageHeadBytes is more than the fields of fixed sizes and the lengths of the others take.
const messageHeadBytes = 64

// bytes is what appendTo needs, or a little more.
func (m *peerMessage) bytes() int {
	return messageHeadBytes + len(m.key) + len(m.upper) + len(m.object) + len(m.body) +
		entriesBytes(m.entries)
}

// entriesBytes is what entries take in a message, or a little more.
func entriesBytes(entries []entry) (n int) {
	for i := range entries {
		n += len(entries[i].key) + len(entries[i].object) + 20 // lengths, numbers
	}
	return n
}

func (m *peerMessage) appendTo(dst []byte) []byte {
	dst = append(dst, byte(m.kind))
	dst = binary.LittleEndian.AppendUint64(dst, m.cluster)
	dst = binary.AppendUvarint(dst, m.epoch)
	dst = binary.AppendUvarint(dst, m.id)
	switch m.kind {
	case peerWrite:
		dst = append(dst, m.flags, byte(m.durability))
		dst = binary.LittleEndian.AppendUint32(dst, m.target)
		dst = appendField(dst, m.key)
		dst = appendField(dst, m.object)
	case peerWriteAck, peerPageDigest:
		dst = append(dst, byte(m.ack))
		dst = binary.LittleEndian.AppendUint64(dst, m.digest)
	case peerRead:
		dst = append(dst, m.flags)
		dst = appendField(dst, m.key)
	case peerReadAck:
		dst = append(dst, m.flags, byte(m.ack))
		dst = binary.LittleEndian.AppendUint64(dst, m.digest)
		dst = appendField(dst, m.object)
	case peerForward:
		dst = binary.AppendUvarint(dst, m.millis)
		dst = appendField(dst, m.body)
	case peerForwarded, peerGossip, peerStale:
		dst = appendField(dst, m.body)
	case peerSummary:
		dst = append(dst, m.flags)
		dst = binary.LittleEndian.AppendUint64(dst, m.digest)
	case peerRoots:
		dst = append(dst, m.flags)
		dst = appendField(dst, m.body)
	case peerLeaves:
		dst = binary.LittleEndian.AppendUint16(dst, uint16(m.part))
		dst = appendField(dst, m.key)
		dst = appendField(dst, m.body)
	case peerDigests, peerWant, peerCollect, peerCollected, peerForget, peerPage:
		dst = append(dst, m.flags, byte(m.ack))
		dst = binary.LittleEndian.AppendUint16(dst, uint16(m.part))
		dst = appendField(dst, m.key)
		dst = appendField(dst, m.body)
		dst = m.appendEntries(dst)
	case peerScan, peerScanDigest:
		dst = binary.LittleEndian.AppendUint16(dst, uint16(m.part))
		dst = appendField(dst, m.key)
		dst = appendField(dst, m.upper)
		dst = binary.AppendUvarint(dst, m.limit)
	}
	return dst
}

// Entries go to the end of the message: key, and the object in pages, else digest and stamp.
func (m *peerMessage) appendEntries(dst []byte) []byte {
	for _, e := range m.entries {
		dst = appendField(dst, e.key)
		if m.kind == peerPage {
			dst = appendField(dst, e.object)
			continue
		}
		dst = binary.LittleEndian.AppendUint64(dst, e.digest)
		dst = binary.LittleEndian.AppendUint64(dst, uint64(e.stamp))
	}
	return dst
}

func decodePeerMessage(msg []byte) (m peerMessage, err error) {
	d := decoder{rest: msg}
	m.kind = peerKind(d.byte())
	m.cluster = d.fixed64()
	m.epoch = d.uvarint()
	m.id = d.uvarint()
	switch m.kind {
	case peerWrite:
		m.flags, m.durability = d.flags(), d.durability()
		m.target = d.fixed32()
		m.key, m.object = d.objectKey(), d.field()
	case peerWriteAck, peerPageDigest:
		m.ack = d.ack()
		m.digest = d.fixed64()
	case peerRead:
		m.flags = d.flags()
		m.key = d.objectKey()
	case peerReadAck:
		m.flags, m.ack = d.flags(), d.ack()
		m.digest = d.fixed64()
		m.object = d.field()
	case peerForward:
		m.millis = d.uvarint()
		m.body = d.field()
	case peerForwarded, peerGossip, peerStale:
		m.body = d.field()
		if m.kind == peerForwarded && len(m.body) == 0 {
			d.fail("no answer")
		}
	case peerSummary:
		m.flags = d.flags()
		m.digest = d.fixed64()
	case peerRoots:
		m.flags = d.flags()
		m.body = d.field()
	case peerLeaves:
		m.part = d.partition()
		m.key, m.body = d.field(), d.field()
	case peerDigests, peerWant, peerCollect, peerCollected, peerForget, peerPage:
		m.flags, m.ack = d.flags(), d.ack()
		m.part = d.partition()
		m.key, m.body = d.field(), d.field()
		m.entries = d.entries(m.kind, m.part)
	case peerScan, peerScanDigest:
		m.part = d.partition()
		m.key, m.upper = d.field(), d.field()
		m.limit = d.uvarint()
	default:
		d.fail("unknown kind")
	}
	if d.reason == "" && len(d.rest) > 0 {
		d.fail("trailing bytes")
	}
	if d.reason != "" {
		return peerMessage{}, &PeerMessageError{m.kind, d.reason}
	}
	return m, nil
}

func (d *decoder) entries(kind peerKind, part Partition) (all []entry) {
	for len(d.rest) > 0 {
		if len(all) == MaxPageEntries {
			d.fail("more entries than there can be")
			return nil
		}
		e := entry{part: part, key: d.objectKey()}
		if kind == peerPage {
			e.object = d.field()
		} else {
			e.digest, e.stamp = d.fixed64(), Stamp(d.fixed64())
		}
		all = append(all, e)
	}
	return all
}

func (d *decoder) objectKey() []byte {
	key := d.field()
	if d.reason == "" && (len(key) == 0 || len(key) > MaxObjectKeyBytes) {
		d.fail("key of an impossible size")
	}
	return key
}

func (d *decoder) flags() uint8 {
	b := d.byte()
	if b&^flagsKnown != 0 {
		d.fail("unknown flags")
	}
	return b
}

func (d *decoder) ack() ack {
	b := ack(d.byte())
	if b > ackOverloaded {
		d.fail("unknown outcome")
	}
	return b
}

func (d *decoder) partition() Partition {
	b := d.take(2)
	if b == nil {
		return 0
	}
	p := binary.LittleEndian.Uint16(b)
	if p >= Partitions {
		d.fail("no such partition")
		return 0
	}
	return Partition(p)
}

func (d *decoder) fixed32() uint32 {
	if b := d.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) fixed64() uint64 {
	if b := d.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) take(n int) []byte {
	if len(d.rest) < n {
		d.fail("cut short")
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}
