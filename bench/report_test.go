package bench

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// sampleReport is a report with every part in use, the same each time.
func sampleReport() *Report {
	r := rand.New(rand.NewPCG(1, 1))
	made := func(name, about string, rate float64, tails ...float64) *Result {
		var rec recorder
		rec.reset()
		kinds := []Kind{Read, Update}
		for second := range 30 {
			var batch []sample
			for range 2000 - 400*(second/10%2) {
				for i, tail := range tails {
					took := 1000 * (80 + 20*r.NormFloat64() + tail*math.Pow(r.Float64(), 12)*90)
					if second == 17 && i == 0 && r.IntN(100) == 0 {
						took += 3e7
					}
					batch = append(batch, sample{
						end: int64(second)*1e9 + r.Int64N(1e9), took: int64(max(took, 900)),
						bytes: 116, kind: kinds[i],
					})
				}
			}
			rec.merge(batch)
		}
		out := &Result{
			Workload: name, About: about, Target: "quic://127.0.0.1:7400", Durability: "sync",
			Keys: 1_000_000, KeyBytes: 16, ValueBytes: 100, Workers: 16, Rate: rate, Seed: 1,
			Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Seconds: 30, SettledSecs: 1.25,
			ClientBusy: 0.31, ClientLag: 73.2, AllocsPerOp: 0.02,
			TargetStats: []Stat{{"writes per sync", "11.4"}},
		}
		rec.fill(out)
		return out
	}
	p := &Report{Machine: Machine{CPU: "Example CPU 1 GHz", Cores: 8, MaxProcs: 8,
		MemoryBytes: 32 << 30, OS: "linux", Kernel: "6.1.0", Go: "go1.26.0", Arch: "amd64 v1",
		Commit: "0123456789ab"}}
	a := made("ycsb-a", "50 % read, 50 % update, zipfian", 0, 3, 40)
	a.Warnings = []string{"client saturated: its goroutines waited 4.10 ms for a processor at p99"}
	b := made("readrandom", "read keys that exist, at random", 2000, 5)
	b.Hash, b.WarmupSecs, b.Verified = "a69eb0cd06d80eb4", 5, true
	b.Offence = `value of key 0000000000000010: stale <b>&"`
	b.Operations[0].Errors, b.FirstError = 3, "example: no answer"
	c := &Result{Workload: "ping", About: "ask for nothing", Target: "quic://127.0.0.1:7400",
		Operations: []Operation{{Kind: "ping", P50Micros: 52}}, Started: a.Started}
	p.Results = []*Result{a, b, c}
	p.ComparePing()
	return p
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := "testdata/" + name
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; got:\n%s", file, got)
	}
}

func TestTextGolden(t *testing.T) {
	var b bytes.Buffer
	if err := sampleReport().WriteText(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, "report.txt", b.Bytes())
}

func TestJSONGolden(t *testing.T) {
	p := sampleReport()
	var b bytes.Buffer
	if err := p.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(b.Bytes(), &back); err != nil || !reflect.DeepEqual(&back, p) {
		t.Errorf("does not read back as it was: %v", err)
	}
	for _, r := range p.Results { // the file shows the shape, not every point
		r.Series = r.Series[:min(2, len(r.Series))]
		for i := range r.Operations {
			o := &r.Operations[i]
			o.Curve = o.Curve[:min(2, len(o.Curve))]
		}
	}
	b.Reset()
	if err := p.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, "report.json", b.Bytes())
}

func TestHTMLStandsAlone(t *testing.T) {
	var b bytes.Buffer
	if err := sampleReport().WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	if to := os.Getenv("KVBENCH_PAGE"); to != "" {
		_ = os.WriteFile(to, b.Bytes(), 0o644)
	}
	text := b.String()
	for _, bad := range []string{
		"http:", "https:", "<script", "url(", "@import", "NaN", "Inf", "ZgotmplZ", "<b>&",
	} {
		if strings.Contains(text, bad) {
			t.Errorf("the page holds %q", bad)
		}
	}
	if m := regexp.MustCompile(`(src|href)="[^#]`).FindString(text); m != "" {
		t.Errorf("the page loads something: %s", m)
	}
	for _, want := range []string{"ycsb-a", "Example CPU", "0123456789ab", "client saturated",
		"Wrong read", "99.99 %", "writes per sync", "prefers-color-scheme: dark"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if n := strings.Count(text, "<svg viewBox=\"0 0 640 300\""); n != 9 {
		t.Errorf("%d charts, want 9", n)
	}
	d := xml.NewDecoder(strings.NewReader(text))
	d.Entity = xml.HTMLEntity
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("not well formed: %v", err)
		}
	}
}

func TestHTMLOfNothing(t *testing.T) {
	for _, p := range []*Report{{}, {Results: []*Result{{Workload: "empty"}}}} {
		if err := p.WriteHTML(io.Discard); err != nil {
			t.Error(err)
		}
		if err := p.WriteText(io.Discard); err != nil {
			t.Error(err)
		}
	}
}

func TestNumbersForPeople(t *testing.T) {
	for us, want := range map[float64]string{
		0: "0", 0.043: "43 ns", 0.9994: "999 ns", 0.9996: "1.00 µs", 1.234: "1.23 µs",
		99.96: "100 µs", 999.6: "1.00 ms", 45_600: "45.6 ms", 1e6: "1.00 s", 6e7: "60.0 s",
	} {
		if got := duration(us); got != want {
			t.Errorf("%v µs is %q, want %q", us, got, want)
		}
	}
	for v, want := range map[float64]string{
		0: "0", 7: "7", 7.25: "7.2", 999: "999", 1000: "1,000", 1234567.8: "1,234,568",
	} {
		if got := count(v); got != want {
			t.Errorf("%v is %q, want %q", v, got, want)
		}
	}
	for q, want := range map[float64]string{
		0: "0 %", 0.5: "50 %", 0.9: "90 %", 0.99: "99 %", 0.999: "99.9 %", 0.99999: "99.999 %",
		1: "100 %",
	} {
		if got := percent(q); got != want {
			t.Errorf("%v is %q, want %q", q, got, want)
		}
	}
}

func TestScales(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		lo := math.Pow(10, r.Float64()*9-3)
		hi := lo * math.Pow(10, r.Float64()*6)
		s, ticks := logScale(lo, hi, 264, 14)
		if s.lo > lo || s.hi < hi || len(ticks) < 2 || len(ticks) > 14 {
			t.Fatalf("[%v, %v] gets [%v, %v] with %d ticks", lo, hi, s.lo, s.hi, len(ticks))
		}
		e, ticks := evenScale(hi, 264, 14, 5)
		if e.hi < hi*(1-1e-9) || len(ticks) < 2 || len(ticks) > 7 || e.at(e.hi) != 14 {
			t.Fatalf("%v gets %v with %d ticks", hi, e.hi, len(ticks))
		}
	}
}

func TestMachine(t *testing.T) {
	m := ReadMachine()
	if m.Cores < 1 || m.Go == "" || m.CPU == "" {
		t.Errorf("%+v", m)
	}
}
