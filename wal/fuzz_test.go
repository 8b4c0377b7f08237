package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/cespare/xxhash/v2"
)

// forge makes body into a segment. With sums set it gives every frame that follows the one before
// its right checksum, so that a fuzzer gets past it.
func forge(number, nonce uint64, body []byte, sums bool) []byte {
	data := make([]byte, HeaderBytes, HeaderBytes+len(body))
	putHeader(data, Header{Segment: number, Nonce: nonce})
	putHeader(data[headerTwin:], Header{Segment: number, Nonce: nonce})
	data = append(data, body...)
	for off := int64(HeaderBytes); sums && off+frameHeaderBytes <= int64(len(data)); {
		h := parseFrameHead(data[off:])
		if h.bytes() > int64(len(data))-off {
			break
		}
		h.sum = 0
		frame := make([]byte, contextBytes, contextBytes+h.bytes())
		frame = append(frame, data[off:off+h.bytes()]...)
		putFrameHead(frame, nonce, off, h)
		binary.LittleEndian.PutUint32(data[off+frameSumAt:], uint32(xxhash.Sum64(frame)))
		off += h.bytes()
	}
	return data
}

// FuzzReader: a frame that is accepted is the one the writer would write there.
func FuzzReader(f *testing.F) {
	golden := goldenLog(f)[HeaderBytes : HeaderBytes+200]
	f.Add(golden, uint64(0x0123456789abcdef), false)
	f.Add(golden, uint64(0), true)
	f.Add(golden[40:], uint64(7), true)
	f.Fuzz(func(t *testing.T, body []byte, nonce uint64, sums bool) {
		data := forge(1, nonce, body, sums)
		r, err := NewReader(segmentOf(1, data))
		if err != nil {
			t.Fatal(err)
		}
		at := int64(HeaderBytes)
		for r.Next() || r.Resync() {
			fr := r.Frame()
			if fr.Offset < at || r.Offset() <= fr.Offset || fr.Durable > fr.Pos {
				t.Fatalf("%+v at %d", fr, at)
			}
			at = r.Offset()
			buf := append(make([]byte, frameHeadroom), fr.Payload...)
			buf = sealFrame(buf, nonce, fr.Offset, fr.Pos, fr.Durable)[contextBytes:]
			if !bytes.Equal(buf, data[fr.Offset:at]) {
				t.Fatalf("the frame at %d does not re-encode", fr.Offset)
			}
			for p := fr.Payload; len(p) > 0; {
				rec, rest, ok := NextRecord(p)
				if !ok {
					break
				}
				if len(p)-len(rest) != recordBytes(len(rec)) {
					t.Fatalf("the record %q does not re-encode", rec)
				}
				p = rest
			}
		}
		if r.Err() != nil || r.Stop() == "" {
			t.Fatalf("stop %q, %v", r.Stop(), r.Err())
		}
		if cap(r.win)+cap(r.large) > 4*len(data)+4096 {
			t.Fatalf("%d bytes held for a file of %d", cap(r.win)+cap(r.large), len(data))
		}
	})
}

// FuzzRecover: the end is where the replayed records say, and errors are damage.
func FuzzRecover(f *testing.F) {
	golden := goldenLog(f)[HeaderBytes : HeaderBytes+200]
	f.Add(golden, golden[40:], uint64(0), false)
	f.Add(golden[:40], golden[40:], uint64(0), true)
	f.Add(golden[:40], golden[80:], uint64(NoPos), true)
	f.Add([]byte{}, golden[40:], uint64(NoPos), true)
	f.Fuzz(func(t *testing.T, a, b []byte, start uint64, sums bool) {
		segs := []Segment{
			segmentOf(1, forge(1, 5, a, sums)),
			segmentOf(2, forge(2, 6, b, sums)),
		}
		var size Pos
		count := func(rec []byte) error {
			size += Pos(recordBytes(len(rec)))
			return nil
		}
		res, err := Recover(segs, Pos(start), count)
		if err != nil {
			if _, ok := errors.AsType[*CorruptError](err); !ok {
				t.Fatal(err)
			}
			return
		}
		if Pos(start) != NoPos && res.End != Pos(start)+size {
			t.Fatalf("%+v from %d with %d bytes", res, start, size)
		}
		if res.Segments == 0 && res.Records > 0 || res.Dropped > 0 != res.Torn {
			t.Fatalf("%+v", res)
		}
		if again, err := Recover(segs, Pos(start), count); again != res || err != nil {
			t.Fatalf("%+v, then %+v, %v", res, again, err)
		}
	})
}
