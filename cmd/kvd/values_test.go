package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"kvd/lsm"
)

func TestByteSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "65536": 65536, "64KiB": 64 << 10, "64MiB": 64 << 20, "2GiB": 2 << 30,
		"1TiB": 1 << 40, "5MB": 5e6, "7B": 7, "3kB": 3000,
	} {
		var s byteSize
		if err := s.Set(text); err != nil || int64(s) != want {
			t.Errorf("%q is %d, %v; want %d", text, s, err, want)
		}
		var again byteSize
		if err := again.Set(s.String()); err != nil || again != s {
			t.Errorf("%q prints as %q, which is %d", text, s.String(), again)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1.5GiB", "64 QiB", "9999999TiB", "1k"} {
		var s byteSize
		if err := s.Set(text); err == nil {
			t.Errorf("%q is %d, want an error", text, s)
		}
	}
}

func TestServes(t *testing.T) {
	for line, want := range map[string]bool{
		"": true, "serve": true, "serve --data d": true, "--data d": true, "-o json": true,
		"get k": false, "demo": false, "put serve v": false,
	} {
		if got := serves(strings.Fields(line)); got != want {
			t.Errorf("kvd %s: serves is %v", line, got)
		}
	}
}

func TestPrefixEnd(t *testing.T) {
	for prefix, want := range map[string]string{
		"a": "b", "az": "a{", "a\xff": "b", "\xff\xff": "", "": "", "a/": "a0",
	} {
		if got := string(prefixEnd([]byte(prefix))); got != want {
			t.Errorf("after all of %q comes %q, want %q", prefix, got, want)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain text, ünïcode": "plain text, ünïcode", "": `""`, "a\tb": `"a\tb"`,
		"\xff": `"\xff"`, `say "hi"`: `"say \"hi\""`, "\x1b[31m": `"\x1b[31m"`,
	} {
		if got := printable([]byte(in)); got != want {
			t.Errorf("%q prints as %s, want %s", in, got, want)
		}
	}
}

func TestDidYouMean(t *testing.T) {
	known := []string{"cache", "listen", "memtable"}
	for name, want := range map[string]string{
		"memtabel": `; did you mean "memtable"?`, "Listen": `; did you mean "listen"?`,
		"wholly-else": "; the keys are cache, listen, memtable",
	} {
		if got := didYouMean(name, known); got != want {
			t.Errorf("%s%s, want %s", name, got, want)
		}
	}
	if d := editDistance("kitten", "sitting"); d != 3 {
		t.Errorf("kitten and sitting differ by %d", d)
	}
}

func TestNotAPath(t *testing.T) {
	for _, key := range []string{"a", "a/b.txt", "a b", ".hidden", "…", "\xff"} {
		if reason := notAPath(key); reason != "" {
			t.Errorf("%q: %s", key, reason)
		}
	}
	for _, key := range []string{"", ".", "..", "/a", "a/", "a//b", "a/../b", "./a", "a\x00b",
		"a/..", strings.Repeat("x", 256)} {
		if notAPath(key) == "" {
			t.Errorf("%q is taken for a path", key)
		}
	}
}

func TestUnits(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB",
		123456789: "123.5 MB", 5e12: "5.0 TB"} {
		if got := megabytes(n); got != want {
			t.Errorf("%d bytes print as %s, want %s", n, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1 000",
		-1234567: "-1 234 567"} {
		if got := grouped(n); got != want {
			t.Errorf("%d prints as %s, want %s", n, got, want)
		}
	}
	for want, n := range map[string]uint64{"entry": 1, "entries": 2, "key": 1, "keys": 0,
		"losses": 3, "loss": 1} {
		thing := map[byte]string{'e': "entry", 'k': "key", 'l': "loss"}[want[0]]
		if got := noun(n, thing); got != want {
			t.Errorf("%d times %s is %s, want %s", n, thing, got, want)
		}
	}
	times := []time.Duration{5, 1, 4, 2, 3}
	if p := percentile(times, 50); p != 3 {
		t.Errorf("the median of 1 to 5 is %d", p)
	}
}

func TestPairJSONRoundTrip(t *testing.T) {
	for _, c := range [][2]string{
		{"k", "v"}, {"k", ""}, {"\xff", "\x00\xfe"}, {"<&>", "\u2028\ufffd"}, {"a\nb", "\"\\"},
	} {
		var out bytes.Buffer
		s := newLineSink(&out, new(bulkReport))
		if err := errors.Join(s.write([]byte(c[0]), []byte(c[1])), s.finish(true)); err != nil {
			t.Fatal(err)
		}
		key, value, err := parsePair(bytes.TrimSpace(out.Bytes()))
		if err != nil || string(key) != c[0] || string(value) != c[1] {
			t.Errorf("%q goes out as %s and comes in as %q %q, %v", c, out.Bytes(), key, value, err)
		}
	}
}

func FuzzParsePair(f *testing.F) {
	f.Add([]byte(`{"key":"k","value":"v"}`))
	f.Add([]byte(`{"key_b64":"/w==","value_b64":""}`))
	f.Add([]byte(`{"key":"k","key_b64":"","value":"v"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		key, value, err := parsePair(line)
		if err != nil || len(key) == 0 {
			return
		}
		var out bytes.Buffer
		s := newLineSink(&out, new(bulkReport))
		if err := errors.Join(s.write(key, value), s.finish(true)); err != nil {
			t.Fatal(err)
		}
		k, v, err := parsePair(bytes.TrimSpace(out.Bytes()))
		if err != nil || !bytes.Equal(k, key) || !bytes.Equal(v, value) {
			t.Fatalf("%q %q comes back as %q %q, %v", key, value, k, v, err)
		}
	})
}

// stubborn is a store that fails its writes after some, or loses them.
type stubborn struct {
	mu sync.Mutex
	offline
	writes, failAt int
	lose           bool
}

func (s *stubborn) Apply(ctx context.Context, b *lsm.Batch, d lsm.Durability) error {
	s.mu.Lock()
	s.writes++
	fail := s.failAt > 0 && s.writes >= s.failAt
	s.mu.Unlock()
	if fail {
		return errors.New("no more")
	}
	if s.lose {
		return nil
	}
	return s.offline.Apply(ctx, b, d)
}

// TestImportNoticesWhatTheStoreDoesWrong is the import's own check, seen to work.
func TestImportNoticesWhatTheStoreDoesWrong(t *testing.T) {
	p := &program{stderr: new(bytes.Buffer), stdout: new(bytes.Buffer)}
	for name, c := range map[string]struct {
		store *stubborn
		want  string
	}{
		"fails": {&stubborn{failAt: 3}, "no more"},
		"loses": {&stubborn{lose: true}, "read k"},
	} {
		db, err := lsm.Open(t.TempDir(), lsm.Options{MemtableBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		c.store.db = db
		show := p.startProgress("import", -1)
		im := importer{store: c.store, report: new(bulkReport), show: show,
			options: importOptions{verify: true},
			load:    func(it item) ([]byte, error) { return it.value, nil }}
		err = im.run(t.Context(), func(_ context.Context, emit func(item) error,
			_ *bulkReport) error {
			for i := range 10_000 {
				it := item{key: []byte("k" + grouped(int64(i))), value: make([]byte, 100)}
				if err := emit(it); err != nil {
					return err
				}
			}
			return nil
		})
		show.stop()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}
