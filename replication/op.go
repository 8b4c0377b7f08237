package replication

import (
	"encoding/binary"

	"kvd/lsm"
)

// Op is a request to a cluster.
type Op struct {
	Kind       Kind // KindRead, KindWrite, KindPage, KindExplain or KindRing
	Epoch      uint64
	Level      Level
	Strict     bool // only owners count: no sloppy quorum
	Durability lsm.Durability
	Tombstone  bool // write: delete
	HasContext bool // write: Context says what was seen; without it what the coordinator has
	Context    []byte
	Key        []byte
	Value      []byte
	Part       Partition // page
	Lower      []byte
	Upper      []byte
	Limit      uint64
}

const (
	opStrict    = 1 << 0
	opTombstone = 1 << 1
	opContext   = 1 << 2
	opFlags     = 1<<3 - 1
)

// bytes is what AppendTo appends, or a little more.
func (o *Op) bytes() int {
	return len(o.Context) + len(o.Key) + len(o.Value) + len(o.Lower) + len(o.Upper) + 64
}

// AppendTo appends the request as it travels.
func (o *Op) AppendTo(dst []byte) []byte {
	dst = append(dst, byte(o.Kind))
	dst = binary.AppendUvarint(dst, o.Epoch)
	flags := byte(0)
	if o.Strict {
		flags |= opStrict
	}
	if o.Tombstone {
		flags |= opTombstone
	}
	if o.HasContext {
		flags |= opContext
	}
	switch o.Kind {
	case KindRead:
		dst = append(dst, flags, byte(o.Level))
		dst = appendField(dst, o.Key)
	case KindWrite:
		dst = append(dst, flags, byte(o.Level), byte(o.Durability))
		if o.HasContext {
			dst = appendField(dst, o.Context)
		}
		dst = appendField(dst, o.Key)
		if !o.Tombstone {
			dst = appendField(dst, o.Value)
		}
	case KindPage:
		dst = append(dst, flags, byte(o.Level))
		dst = binary.LittleEndian.AppendUint16(dst, uint16(o.Part))
		dst = appendField(dst, o.Lower)
		dst = appendField(dst, o.Upper)
		dst = binary.AppendUvarint(dst, o.Limit)
	case KindExplain:
		dst = appendField(dst, o.Key)
	}
	return dst
}

// DecodeOp takes a request apart without copying: the slices are parts of msg.
func DecodeOp(msg []byte) (o Op, err error) {
	d := decoder{rest: msg}
	o.Kind = Kind(d.byte())
	o.Epoch = d.uvarint()
	switch o.Kind {
	case KindRead:
		d.opFlags(&o, opStrict)
		o.Level = Level(d.byte())
		o.Key = d.field()
	case KindWrite:
		d.opFlags(&o, opFlags)
		o.Level = Level(d.byte())
		o.Durability = d.durability()
		if o.HasContext {
			o.Context = d.field()
		}
		o.Key = d.field()
		if !o.Tombstone {
			o.Value = d.field()
		}
	case KindPage:
		d.opFlags(&o, opStrict)
		o.Level = Level(d.byte())
		o.Part = d.partition()
		o.Lower, o.Upper = d.field(), d.field()
		o.Limit = d.uvarint()
	case KindExplain:
		o.Key = d.field()
	case KindRing:
	default:
		d.fail("unknown kind")
	}
	if d.reason == "" && len(d.rest) > 0 {
		d.fail("trailing bytes")
	}
	if d.reason != "" {
		return Op{}, &MessageError{Kind: o.Kind, Reason: d.reason}
	}
	return o, nil
}

func (d *decoder) opFlags(o *Op, allowed byte) {
	flags := d.byte()
	if flags&^allowed != 0 {
		d.fail("unknown flags")
	}
	o.Strict = flags&opStrict != 0
	o.Tombstone = flags&opTombstone != 0
	o.HasContext = flags&opContext != 0
}

// check refuses what no node could do.
func (o *Op) check() error {
	switch o.Kind {
	case KindRead, KindWrite, KindExplain:
		if len(o.Key) == 0 || len(o.Key) > MaxObjectKeyBytes {
			return &lsm.KeySizeError{Bytes: len(o.Key), Max: MaxObjectKeyBytes}
		}
	}
	if len(o.Value) > MaxObjectValueBytes {
		return &lsm.ValueSizeError{Bytes: len(o.Value), Max: MaxObjectValueBytes}
	}
	return nil
}

// MaxObjectValueBytes bounds a value in a cluster: what three owners have written at once, and what
// goes with it, has to fit one value of the engine and one message. See shareBytes.
const MaxObjectValueBytes = 2 << 20

// The answer to a read, after the status byte: the values that there are, none for a key that was
// deleted or never written, then the context to write with, then the nodes whose answers counted.
//
//	n uvarint | n values | context | m uvarint | m node numbers u32
//
// The answer to a write: the context of what it wrote, then the nodes that hold it.
func appendReadAnswer(dst []byte, o *Object, cluster uint64, key []byte,
	nodes []NodeID) []byte {
	values := o.Values()
	dst = append(dst, byte(statusOK))
	dst = binary.AppendUvarint(dst, uint64(len(values)))
	for _, s := range values {
		dst = appendField(dst, s.Value)
	}
	return appendHolders(dst, o.Clock, o.MaxStamp(), cluster, key, nodes)
}

func appendWriteAnswer(dst []byte, seen Clock, newest Stamp, cluster uint64, key []byte,
	nodes []NodeID) []byte {
	return appendHolders(append(dst, byte(statusOK)), seen, newest, cluster, key, nodes)
}

func appendHolders(dst []byte, seen Clock, newest Stamp, cluster uint64, key []byte,
	nodes []NodeID) []byte {
	dst = appendField(dst, EncodeContext(seen, newest, cluster, key))
	dst = binary.AppendUvarint(dst, uint64(len(nodes)))
	for _, id := range nodes {
		dst = binary.LittleEndian.AppendUint32(dst, id.Number())
	}
	return dst
}

// answered is an answer to a read or a write, taken apart. Slices alias the message.
type answered struct {
	values  [][]byte
	context []byte
	nodes   []uint32
}

const nodeBytes = 4 // of the number of a node

// values reads the values of a key and appends them to dst.
func (d *decoder) values(dst [][]byte) [][]byte {
	n := d.uvarint()
	if n > min(uint64(len(d.rest)), mergedSiblingsMax) {
		d.fail("more values than there can be")
		return nil
	}
	for range n {
		dst = append(dst, d.field())
	}
	return dst
}

func decodeOpAnswer(body []byte, read bool) (a answered, err error) {
	d := decoder{rest: body}
	if read {
		a.values = d.values(nil)
	}
	a.context = d.field()
	n := d.uvarint()
	if n > uint64(len(d.rest)/nodeBytes) {
		d.fail("more nodes than bytes")
		n = 0
	}
	for range n {
		a.nodes = append(a.nodes, d.fixed32())
	}
	if d.reason == "" && len(d.rest) > 0 {
		d.fail("trailing bytes")
	}
	if d.reason != "" {
		return answered{}, &MessageError{Kind: KindRead, Reason: d.reason}
	}
	return a, nil
}
