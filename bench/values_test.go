package bench

import (
	"bytes"
	"compress/flate"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

// The worked example of the package comment.
func TestValueGolden(t *testing.T) {
	s, _ := NewKeyspace(10, 16, 1)
	got := hex.EncodeToString(NewValues(28, 1).Append(nil, s.Loaded(1), 7))
	const want = "0000000000000010" + "0000000000000007" + "9193bde3" + "0462845c0462845c"
	if got != want {
		t.Errorf("value is\n%s, want\n%s", got, want)
	}
}

func TestValuesVerify(t *testing.T) {
	for _, size := range []int{ValueHeaderBytes, 21, 100, 101, 600} {
		v := NewValues(size, 5)
		value := v.Append([]byte("before"), 0x30, 9)[len("before"):]
		if len(value) != size {
			t.Fatalf("value of %d bytes has %d", size, len(value))
		}
		if version, err := CheckValue(0x30, value); err != nil || version != 9 {
			t.Fatalf("size %d: right value: version %d, %v", size, version, err)
		}
		for i := range value {
			for _, bit := range []byte{1, 0x80} {
				value[i] ^= bit
				if _, err := CheckValue(0x30, value); err == nil {
					t.Fatalf("size %d: flip in byte %d not seen", size, i)
				}
				value[i] ^= bit
			}
		}
		_, err := CheckValue(0x40, value)
		if err == nil || !strings.Contains(err.Error(), "another key: 0000000000000030") {
			t.Errorf("size %d: value of another key: %v", size, err)
		}
		var wrong *ValueError
		if !errors.As(err, &wrong) || wrong.Number != 0x40 {
			t.Errorf("error is %#v", err)
		}
		if _, err := CheckValue(0x30, value[:len(value)-1]); err == nil {
			t.Errorf("size %d: value cut short not seen", size)
		}
	}
}

func TestValuesCompressToHalf(t *testing.T) {
	for _, size := range []int{100, 150, 170, 1000, 8000} {
		v := NewValues(size, 1)
		var plain []byte
		for n := range Number(100) {
			plain = v.Append(plain, n*16, 1)
		}
		var packed bytes.Buffer
		w, _ := flate.NewWriter(&packed, 6)
		_, _ = w.Write(plain)
		_ = w.Close()
		ratio := float64(packed.Len()) / float64(len(plain))
		t.Logf("values of %d bytes compress to %.3f", size, ratio)
		if ratio < 0.48 || ratio > 0.56 {
			t.Errorf("values of %d bytes compress to %.2f", size, ratio)
		}
	}
}

func TestValuesDiffer(t *testing.T) {
	v := NewValues(100, 1)
	first := v.Append(nil, 16, 1)
	if !bytes.Equal(first, NewValues(100, 1).Append(nil, 16, 1)) {
		t.Error("same seed, key and version give another value")
	}
	for _, other := range [][]byte{
		v.Append(nil, 16, 2), v.Append(nil, 32, 1), NewValues(100, 2).Append(nil, 16, 1),
	} {
		if bytes.Equal(first[ValueHeaderBytes:], other[ValueHeaderBytes:]) {
			t.Error("another seed, key or version gives the same body")
		}
	}
}

func TestLedger(t *testing.T) {
	l := NewLedger(4, 3)
	n := Number(2 * layerCount)
	if l.floor(2) != 0 {
		t.Error("floor of an unknown key")
	}
	one := l.begin(2)
	l.acknowledge(2, one)
	two := l.begin(2) // under way
	floor := l.floor(2)
	for _, c := range []struct {
		version uint64
		want    string
	}{
		{one, ""}, {two, ""}, {one - 1, "stale"}, {2<<32 | 99, "stale"}, {two + 1, "invented"},
		{4<<32 | 1, "invented"},
	} {
		err := l.check(n, floor, c.version)
		if c.want == "" && err != nil || c.want != "" &&
			(err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("version %x: %v, want %q", c.version, err, c.want)
		}
	}
	// A version of an earlier process is fine as long as nothing was acknowledged.
	if err := l.check(0, l.floor(0), 2<<32|7); err != nil {
		t.Error(err)
	}
}

func BenchmarkValue(b *testing.B) {
	v := NewValues(100, 1)
	buf := make([]byte, 0, 100)
	for i := range b.N {
		buf = v.Append(buf[:0], Number(i), 1)
	}
	b.SetBytes(100)
}
