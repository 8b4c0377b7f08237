package netquic

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

const testMaxFrame = 1 << 12

type goldenFrame struct {
	name string
	side side
	hex  string
	f    frame
}

// golden frames: the worked bytes of doc.go and docs/wire.md.
var golden = []goldenFrame{
	{"request", serverSide,
		"0f000000 01 0300100000000000 88130000 6869",
		frame{id: 0x100003, millis: 5000, body: []byte("hi")}},
	{"answer", clientSide,
		"0c000000 02 0300100000000000 00 6869",
		frame{id: 0x100003, status: statusOK, body: []byte("hi")}},
	{"application error", clientSide,
		"12000000 02 0300100000000000 01 07000000 6f6f7073",
		frame{id: 0x100003, status: statusError, body: []byte("\x07\x00\x00\x00oops")}},
	{"overloaded", clientSide, "0a000000 02 0300100000000000 02",
		frame{id: 0x100003, status: statusOverloaded, body: []byte{}}},
	{"draining", clientSide, "0a000000 02 0300100000000000 03",
		frame{id: 0x100003, status: statusDraining, body: []byte{}}},
	{"expired", clientSide, "0a000000 02 0300100000000000 04",
		frame{id: 0x100003, status: statusExpired, body: []byte{}}},
	{"too large", clientSide, "0a000000 02 0300100000000000 05",
		frame{id: 0x100003, status: statusTooLarge, body: []byte{}}},
	{"message", peerSide, "03000000 03 6869", frame{body: []byte("hi")}},
	{"welcome", dialerSide, "01000000 04", frame{body: []byte{}}},
	{"probe", peerSide, "03000000 05 0000", frame{probe: true, body: []byte{0, 0}}},
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// encode is the one canonical form of a parsed frame.
func encode(s side, f frame) []byte {
	switch {
	case s == serverSide:
		return appendRequest(nil, f.id, f.millis, f.body)
	case f.probe:
		return appendMessage(nil, kindProbe, f.body)
	case s == peerSide || s == dialerSide:
		return appendMessage(nil, byte(s), f.body)
	case f.status == statusOK:
		b := append(openResponse(nil, f.id, statusOK), f.body...)
		closeResponse(b, 0)
		return b
	case f.status == statusError:
		return appendError(nil, f.id, binary.LittleEndian.Uint32(f.body),
			string(f.body[errorBytes:]))
	}
	return appendStatus(nil, f.id, f.status)
}

func TestGoldenFrames(t *testing.T) {
	for _, g := range golden {
		want := unhex(t, g.hex)
		if got := encode(g.side, g.f); !bytes.Equal(got, want) {
			t.Errorf("%s: encoded %x, want %x", g.name, got, want)
		}
		f, n, _, err := parseFrame(append(want, 0xff), g.side, testMaxFrame)
		if err != nil || n != len(want) || f.id != g.f.id || f.millis != g.f.millis ||
			f.status != g.f.status || !bytes.Equal(f.body, g.f.body) {
			t.Errorf("%s: parsed %+v, %d bytes, %v", g.name, f, n, err)
		}
		for i := range want {
			_, n, need, err := parseFrame(want[:i], g.side, testMaxFrame)
			if n != 0 || err != nil || need <= i || need > len(want) {
				t.Errorf("%s cut to %d bytes: n %d, need %d, %v", g.name, i, n, need, err)
			}
		}
	}
}

func TestBadFrames(t *testing.T) {
	for _, c := range []struct {
		name   string
		side   side
		hex    string
		reason Reason
	}{
		{"4 GiB", serverSide, "ffffffff", ReasonFrameTooLong},
		{"2 GiB", serverSide, "ffffff7f", ReasonFrameTooLong},
		{"one over the limit", serverSide, "fd0f0000", ReasonFrameTooLong},
		{"too long for an answer", clientSide, "fd0f0000", ReasonFrameTooLong},
		{"kind 0", serverSide, "0f000000 00", ReasonUnknownKind},
		{"kind 3", serverSide, "0f000000 03", ReasonUnknownKind},
		{"4 GiB to a peer", peerSide, "ffffffff", ReasonFrameTooLong},
		{"one over the limit to a peer", peerSide, "fd0f0000 03", ReasonFrameTooLong},
		{"request to a peer", peerSide, "0f000000 01", ReasonUnknownKind},
		{"message to a server", serverSide, "0f000000 03", ReasonUnknownKind},
		{"no kind to a peer", peerSide, "00000000 03", ReasonMalformed},
		{"message for a welcome", dialerSide, "01000000 03", ReasonUnknownKind},
		{"probe for a welcome", dialerSide, "01000000 05", ReasonUnknownKind},
		{"probe to a server", serverSide, "0f000000 05", ReasonUnknownKind},
		{"bytes behind a welcome", dialerSide, "02000000 04 00", ReasonMalformed},
		{"answer to a server", serverSide, "0f000000 02", ReasonUnknownKind},
		{"request to a client", clientSide, "0f000000 01", ReasonUnknownKind},
		{"empty", serverSide, "00000000", ReasonMalformed},
		{"request without deadline", serverSide, "0c000000 01", ReasonMalformed},
		{"answer without status", clientSide, "09000000 02", ReasonMalformed},
		{"status 6", clientSide, "0a000000 02 0300100000000000 06", ReasonMalformed},
		{"short error", clientSide, "0d000000 02 0300100000000000 01 070000",
			ReasonMalformed},
		{"bytes behind a status", clientSide, "0b000000 02 0300100000000000 02 00",
			ReasonMalformed},
	} {
		_, _, _, err := parseFrame(unhex(t, c.hex), c.side, testMaxFrame)
		var fe *FrameError
		if !errors.As(err, &fe) || fe.Reason != c.reason {
			t.Errorf("%s: %v, want %v", c.name, err, c.reason)
		}
	}
}

// FuzzFrame feeds arbitrary bytes in arbitrary pieces: no panic, no frame above the limit, no
// buffer beyond what has arrived, and what is accepted encodes to the very bytes it came from.
func FuzzFrame(f *testing.F) {
	for _, g := range golden[:len(golden)-3] {
		f.Add(unhex(f, g.hex), g.side == serverSide, uint64(1))
	}
	f.Add(unhex(f, "ffffffff01"), true, uint64(2))
	f.Add(unhex(f, "ff0f000001"), true, uint64(3))
	f.Fuzz(func(t *testing.T, data []byte, server bool, seed uint64) {
		s := clientSide
		if server {
			s = serverSide
		}
		readFrames(t, data, s, seed)
	})
}

// FuzzPeerFrame is FuzzFrame for what peers send.
func FuzzPeerFrame(f *testing.F) {
	for _, g := range golden[len(golden)-3:] {
		f.Add(unhex(f, g.hex), g.side == peerSide, uint64(1))
	}
	f.Add(unhex(f, "0300000003686901000000030100000003"), true, uint64(2))
	f.Add(unhex(f, "ffffffff03"), true, uint64(3))
	f.Add(unhex(f, "ff0f000003"), true, uint64(4))
	f.Fuzz(func(t *testing.T, data []byte, message bool, seed uint64) {
		s := dialerSide
		if message {
			s = peerSide
		}
		readFrames(t, data, s, seed)
	})
}

// readFrames reads data in random pieces as one side would, and checks all there is to check.
func readFrames(t *testing.T, data []byte, s side, seed uint64) {
	src := &pieces{data: data, rng: rand.New(rand.NewPCG(seed, 0))}
	r := newFrameReader(src, s, testMaxFrame)
	var accepted []byte
	for {
		n, err := r.fill()
		if err != nil {
			break
		}
		if limit := max(readBufferBytes, 2*n); len(r.buf) > limit {
			t.Fatalf("buffer of %d bytes", len(r.buf))
		}
		for {
			f, ok, err := r.next()
			if err != nil {
				var fe *FrameError
				if !errors.As(err, &fe) || fe.Reason >= reasonCount {
					t.Fatalf("untyped error %v", err)
				}
				return
			}
			if !ok {
				break
			}
			b := encode(s, f)
			if len(b) > testMaxFrame {
				t.Fatalf("frame of %d bytes", len(b))
			}
			accepted = append(accepted, b...)
		}
		if !bytes.HasPrefix(data, accepted) {
			t.Fatalf("accepted %x\n of %x", accepted, data)
		}
	}
	if len(accepted)+r.partial() != len(data) {
		t.Fatalf("%d accepted, %d held, of %d", len(accepted), r.partial(), len(data))
	}
}

// pieces is a reader that returns its data in pieces of random size.
type pieces struct {
	data []byte
	rng  *rand.Rand
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:1+p.rng.IntN(len(b))], p.data)
	p.data = p.data[n:]
	return n, nil
}

// TestReaderMemory declares large frames and sends little of them: the buffer follows what has
// arrived, and is given back after a large frame.
func TestReaderMemory(t *testing.T) {
	const size = 4 << 20
	whole := appendRequest(nil, 1, 1, make([]byte, size))
	small := appendRequest(nil, 2, 1, []byte("x"))
	src := &chunks{}
	r := newFrameReader(src, serverSide, 9<<20)
	arrived := 0
	for b := append(whole, small...); len(b) > 0; {
		n := min(len(b), 1000)
		src.next, b = b[:n], b[n:]
		arrived += n
		for len(src.next) > 0 {
			if _, err := r.fill(); err != nil {
				t.Fatal(err)
			}
			if len(r.buf) > max(readBufferBytes, 2*arrived) {
				t.Fatalf("%d bytes of buffer after %d bytes", len(r.buf), arrived)
			}
			for ok := true; ok; {
				var err error
				if _, ok, err = r.next(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	src.next = small
	if r.fill(); len(r.buf) > retainBufferBytes {
		t.Fatalf("%d bytes of buffer kept", len(r.buf))
	}
}

type chunks struct{ next []byte }

func (c *chunks) Read(b []byte) (int, error) {
	n := copy(b, c.next)
	c.next = c.next[n:]
	return n, nil
}

func BenchmarkParseFrame(b *testing.B) {
	data := appendRequest(nil, 1<<20, 1000, make([]byte, 150))
	b.ReportAllocs()
	for b.Loop() {
		if _, n, _, err := parseFrame(data, serverSide, 9<<20); n == 0 || err != nil {
			b.Fatal(n, err)
		}
	}
}
