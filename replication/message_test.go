package replication

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"kvd/lsm"
)

// goldens are the worked bytes of docs/protocol.md. They are the wire format: a change here breaks
// every client there is.
var goldens = []struct {
	name string
	r    request
	hex  string
}{
	{"ping", request{kind: KindPing}, "01"},
	{"get", request{kind: KindGet, key: []byte("k")}, "02 01 6b"},
	{"put", request{kind: KindPut, durability: lsm.Sync, key: []byte("k"), value: []byte("v")},
		"03 00 01 6b 01 76"},
	{"put nosync empty", request{kind: KindPut, durability: lsm.NoSync, key: []byte("key")},
		"03 02 03 6b 65 79 00"},
	{"delete", request{kind: KindDelete, durability: lsm.Async, key: []byte("k")}, "04 01 01 6b"},
	{"apply", request{kind: KindApply, durability: lsm.Sync,
		ops: []byte("\x01\x01k\x01v\x00\x01j")}, "05 00 01 01 6b 01 76 00 01 6a"},
	{"scan", request{kind: KindScan, lower: []byte("a"), upper: []byte("b"), entries: 300},
		"06 00 01 61 01 62 ac 02 00"},
	{"scan keys", request{kind: KindScan, keysOnly: true, bytes: 128}, "06 01 00 00 00 80 01"},
	{"status", request{kind: KindStatus}, "07"},
	{"flush", request{kind: KindFlush}, "08"},
	{"compact", request{kind: KindCompact, lower: []byte("a")}, "09 01 61 00"},
	{"checkpoint", request{kind: KindCheckpoint, dir: []byte("/c")}, "0a 02 2f 63"},
	{"scrub", request{kind: KindScrub}, "0b"},
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// same compares requests; no bytes and nil are the same field.
func same(a, b request) bool {
	for _, r := range []*request{&a, &b} {
		for _, f := range []*[]byte{&r.key, &r.value, &r.ops, &r.lower, &r.upper, &r.dir} {
			if len(*f) == 0 {
				*f = nil
			}
		}
	}
	return reflect.DeepEqual(a, b)
}

func TestGoldenRequests(t *testing.T) {
	for _, g := range goldens {
		want := unhex(t, g.hex)
		if got := g.r.appendTo(nil); !bytes.Equal(got, want) {
			t.Errorf("%s: encodes to % x, want % x", g.name, got, want)
		}
		got, err := decodeRequest(want)
		if err != nil || !same(got, g.r) {
			t.Errorf("%s: decodes to %+v, %v; want %+v", g.name, got, err, g.r)
		}
	}
}

func TestMalformedRequests(t *testing.T) {
	for name, h := range map[string]string{
		"empty":                   "",
		"kind zero":               "00",
		"kind of the future":      "0c",
		"ping with a tail":        "01 00",
		"get without a key":       "02",
		"get cut in the key":      "02 02 6b",
		"get with a tail":         "02 01 6b 00",
		"get with a huge length":  "02 ff ff ff ff ff ff ff ff 7f 6b",
		"get with a long varint":  "02 81 00 6b",
		"get with an endless one": "02 ff ff ff ff ff ff ff ff ff ff 01",
		"put durability":          "03 03 01 6b 01 76",
		"put without a value":     "03 00 01 6b",
		"apply operation":         "05 00 02 01 6b",
		"apply cut":               "05 00 01 01 6b",
		"scan flags":              "06 02 00 00 00 00",
		"scan cut":                "06 00 00 00 00",
		"checkpoint path":         "0a 81 20" + strings.Repeat("2f", 4097),
	} {
		_, err := decodeRequest(unhex(t, h))
		if _, ok := errors.AsType[*MessageError](err); !ok {
			t.Errorf("%s: got %v, want a *MessageError", name, err)
		}
	}
}

func TestAnswers(t *testing.T) {
	disk := errors.Join(lsm.ErrDiskFull)
	for _, c := range []struct {
		err   error
		write bool
		hex   string
		is    error
	}{
		{lsm.ErrNotFound, false, "01", lsm.ErrNotFound},
		{&lsm.KeySizeError{Bytes: 300}, true, "02 ac 02", nil},
		{&lsm.ValueSizeError{Bytes: 1}, true, "03 01", nil},
		{&lsm.BatchSizeError{Bytes: 1}, true, "04 01", nil},
		{disk, true, "05 0e 6c 73 6d 3a 20 64 69 73 6b 20 66 75 6c 6c", lsm.ErrDiskFull},
		{lsm.ErrReadOnly, true, "06 0e 6c 73 6d 3a 20 72 65 61 64 20 6f 6e 6c 79", lsm.ErrReadOnly},
		{&lsm.CorruptError{File: "f", Offset: -1, Reason: "r"}, false, "07 01 66 01 01 72", nil},
		{lsm.ErrClosed, false, "08 0b 6c 73 6d 3a 20 63 6c 6f 73 65 64", lsm.ErrClosed},
		{errors.New("x"), false, "0c 01 78", nil},
	} {
		want := unhex(t, c.hex)
		if got := appendError(nil, c.err, c.write); !bytes.Equal(got, want) {
			t.Errorf("%v: encodes to % x, want % x", c.err, got, want)
		}
		_, err := decodeAnswer(want)
		if err == nil || (c.is != nil && !errors.Is(err, c.is)) {
			t.Errorf("%v: decodes to %v", c.err, err)
		}
		if again := appendError(nil, err, c.write); c.is == nil && want[0] < 0x0b &&
			!bytes.Equal(again, want) {
			t.Errorf("%v: comes back as %v", c.err, err)
		}
	}
	for s, sentinel := range map[status]error{statusDraining: ErrDraining,
		statusInDoubt: ErrInDoubt} {
		_, err := decodeAnswer(appendText(nil, s, sentinel))
		if !errors.Is(err, sentinel) {
			t.Errorf("status %d decodes to %v", s, err)
		}
	}
	_, err := decodeAnswer(appendError(nil, errors.New("io"), true))
	if !errors.Is(err, ErrInDoubt) {
		t.Errorf("an unknown failure of a write is %v, want in doubt", err)
	}
	for _, h := range []string{"", "0d", "02", "02 81 00", "01 00", "07 01 66 01", "0c 02 78"} {
		_, err := decodeAnswer(unhex(t, h))
		if _, ok := errors.AsType[*MessageError](err); !ok {
			t.Errorf("answer %q: got %v, want a *MessageError", h, err)
		}
	}
}

func TestRandomRequestsRoundTrip(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	random := func(limit int) []byte {
		b := make([]byte, r.IntN(limit))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	for range 2000 {
		want := request{kind: Kind(1 + r.IntN(int(KindScrub)))}
		switch want.kind {
		case KindGet:
			want.key = random(200)
		case KindPut, KindDelete:
			want.durability, want.key = lsm.Durability(r.IntN(3)), random(200)
			if want.kind == KindPut {
				want.value = random(1000)
			}
		case KindScan:
			want.keysOnly, want.entries, want.bytes = r.IntN(2) == 0, r.Uint64(), r.Uint64()
			want.lower, want.upper = random(20), random(20)
		case KindCompact:
			want.lower, want.upper = random(20), random(20)
		case KindCheckpoint:
			want.dir = random(100)
		case KindApply:
			var b lsm.Batch
			for range r.IntN(5) {
				b.Put(append(random(9), 1), random(30))
				b.Delete(append(random(9), 1))
			}
			want.ops = appendOperations(nil, &b)
			var back lsm.Batch
			fillBatch(&back, want.ops)
			if !bytes.Equal(appendOperations(nil, &back), want.ops) {
				t.Fatalf("seed %d: operations change on their way", seed)
			}
		}
		got, err := decodeRequest(want.appendTo(nil))
		if err != nil || !same(got, want) {
			t.Fatalf("seed %d: %+v came back as %+v, %v", seed, want, got, err)
		}
	}
}

func FuzzRequest(f *testing.F) {
	for _, g := range goldens {
		f.Add(unhex(f, g.hex))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		r, err := decodeRequest(msg)
		if err != nil {
			if _, ok := errors.AsType[*MessageError](err); !ok {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if again := r.appendTo(nil); !bytes.Equal(again, msg) {
			t.Fatalf("% x re-encodes to % x", msg, again)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	for _, h := range []string{"00", "01", "02ac02", "0701660101 72", "0501 78", "0c0178"} {
		f.Add(unhex(f, h))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		body, err := decodeAnswer(msg)
		if (err == nil) != (len(msg) > 0 && msg[0] == 0) || len(body) > len(msg) {
			t.Fatalf("% x: body % x, %v", msg, body, err)
		}
	})
}

func FuzzPage(f *testing.F) {
	f.Add(appendPageEnd(appendEntry(nil, []byte("a"), []byte("1"), false), []byte("b")), false)
	f.Add(appendPageEnd(appendEntry(nil, []byte("a"), nil, true), nil), true)
	f.Fuzz(func(t *testing.T, body []byte, keysOnly bool) {
		p := pageReader{d: decoder{rest: body}, keysOnly: keysOnly}
		var again []byte
		for p.next() {
			again = appendEntry(again, p.key, p.value, keysOnly)
		}
		if p.err() == nil && !bytes.Equal(appendPageEnd(again, p.following), body) {
			t.Fatalf("% x is not canonical", body)
		}
		if _, following, err := measurePage(body, keysOnly, nil); err == nil && p.err() != nil {
			t.Fatalf("measured, next %q, though %v", following, p.err())
		}
	})
}
