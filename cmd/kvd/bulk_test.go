package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"kvd/lsm"
)

// A file appears whole or not at all, and replaces none.
func TestExportToFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "pairs.jsonl")
	for _, complete := range []bool{false, true} {
		s, err := new(program).openSink(exportOptions{jsonl: name}, new(bulkReport))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.write([]byte("k"), []byte("v")); err != nil {
			t.Fatal(err)
		}
		if err := s.finish(complete); (err == nil) != complete {
			t.Errorf("complete %v: %v", complete, err)
		}
		want := ""
		if complete {
			want = `{"key":"k","value":"v"}` + "\n"
		}
		if got, err := os.ReadFile(name); (err == nil) != complete || string(got) != want {
			t.Errorf("complete %v: the file holds %q, %v; want %q", complete, got, err, want)
		}
	}
	_, err := new(program).openSink(exportOptions{jsonl: name}, new(bulkReport))
	if err == nil || !strings.Contains(err.Error(), "exists: give a new file") {
		t.Errorf("over a file: %v", err)
	}
}

// counting is a store that remembers the largest batch.
type counting struct {
	offline
	pairs atomic.Int64
}

func (c *counting) Apply(_ context.Context, b *lsm.Batch, _ lsm.Durability) error {
	c.pairs.Store(max(c.pairs.Load(), int64(b.Len())))
	return nil
}

func (c *counting) Flush(context.Context) error { return nil }

func TestImportBatchCountsKeys(t *testing.T) {
	const keyBytes = 60 << 10
	p := &program{stderr: new(bytes.Buffer)}
	show := p.startProgress("import", -1)
	defer show.stop()
	c := new(counting)
	im := importer{store: c, report: new(bulkReport), show: show,
		load: func(it item) ([]byte, error) { return it.value, nil }}
	err := im.run(t.Context(), func(_ context.Context, emit func(item) error, _ *bulkReport) error {
		for i := range 200 {
			if err := emit(item{key: fmt.Appendf(nil, "%0*d", keyBytes, i)}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := c.pairs.Load(); n*keyBytes > importBatchBytes {
		t.Errorf("a batch has %d keys of %d bytes", n, keyBytes)
	}
}

// TestImportQueueIsBounded has workers that do not go on: what waits for them stays below the cap.
func TestImportQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &program{stderr: new(bytes.Buffer)}
		show := p.startProgress("import", -1)
		defer show.stop()
		value := make([]byte, lsm.MaxValueBytes)
		hold := make(chan struct{})
		var emitted atomic.Int64
		im := importer{store: new(counting), report: new(bulkReport), show: show,
			load: func(item) ([]byte, error) {
				<-hold
				return nil, errors.New("not wanted")
			}}
		ended := make(chan error, 1)
		const items = 100
		go func() {
			ended <- im.run(t.Context(), func(_ context.Context, emit func(item) error,
				_ *bulkReport) error {
				for i := range items {
					if err := emit(item{key: fmt.Append(nil, i), value: value}); err != nil {
						return err
					}
					emitted.Add(1)
				}
				return nil
			})
		}()
		synctest.Wait()
		const most = importQueueBytes/lsm.MaxValueBytes + importWorkers
		if n := emitted.Load(); n == 0 || n > most {
			t.Errorf("%d items are on their way, want at most %d", n, most)
		}
		close(hold)
		if err := <-ended; err != nil || emitted.Load() != items {
			t.Errorf("%d items went through, %v", emitted.Load(), err)
		}
	})
}

func TestParsePairRefuses(t *testing.T) {
	for line, want := range map[string]string{
		`{"key":"k","value":"v"}}`:           "more than one object",
		`{"key":"k","value":"v"}]`:           "more than one object",
		`{"key":"k","value":"\ud800"}`:       `\ud800 is half a character`,
		`{"key":"k","value":"\\\udc00x"}`:    `\udc00 is half a character`,
		`{"key":"\ud83d\u0041","value":"v"}`: `\ud83d is half a character`,
		`{"key":"\uD83D","value":"v"}`:       `\uD83D is half a character`,
	} {
		_, _, err := parsePair([]byte(line))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
	for line, want := range map[string]string{
		`{"key":"k","value":"\ud83d\ude00"}`: "\U0001F600",
		`{"key":"k","value":"\\ud800"}`:      `\ud800`,
		`{"key":"k","value":"\ufffd"}`:       "\ufffd",
	} {
		_, value, err := parsePair([]byte(line))
		if err != nil || string(value) != want {
			t.Errorf("%s: %q, %v; want %q", line, value, err, want)
		}
	}
}

// TestDirectorySinkTakesAnyName has keys at the place of the temporary file, and bytes that are no
// text; an import finds them again.
func TestDirectorySinkTakesAnyName(t *testing.T) {
	dir := t.TempDir()
	report := new(bulkReport)
	s, err := newDirectorySink(dir, false, report)
	if err != nil {
		t.Fatal(err)
	}
	first := s.temp
	if err := os.WriteFile(filepath.Join(dir, first), []byte("foreign"), 0o644); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{first: "foreign", "a": "1", "d\xff/\xfe": "2"}
	for _, key := range []string{"a", "d\xff/\xfe"} {
		if err := s.write([]byte(key), []byte(want[key])); err != nil {
			t.Fatal(err)
		}
	}
	below := s.temp + "/x"
	want[below] = "3"
	if err := errors.Join(s.write([]byte(below), []byte("3")), s.finish(true)); err != nil {
		t.Fatal(err)
	}
	if report.failed != 0 {
		t.Errorf("left out: %v", report.notes)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	err = walkFiles(t.Context(), root, func(name string, _ os.DirEntry) error {
		got, err := root.ReadFile(name)
		if err != nil || string(got) != want[name] {
			t.Errorf("%q holds %q, %v; want %q", name, got, err, want[name])
		}
		delete(want, name)
		return nil
	}, func(name, reason string, _ bool) { t.Errorf("%q: %s", name, reason) })
	if err != nil || len(want) > 0 {
		t.Errorf("%v; not found: %q", err, want)
	}
}

func TestBulkReportIsHarmlessToTerminals(t *testing.T) {
	var out, errs bytes.Buffer
	p := &program{stdout: &out, stderr: &errs, output: outputTable}
	r := new(bulkReport)
	r.leaveOut("a\x1b[31m", "open a\x1b[31m: no", true)
	if err := r.conclude(p, "kvd import", "imported", nil); err != nil {
		t.Fatal(err)
	}
	want := `kvd import: left out: "a\x1b[31m": open a\x1b[31m: no` + "\n"
	if errs.String() != want {
		t.Errorf("prints %q, want %q", errs.String(), want)
	}
}
