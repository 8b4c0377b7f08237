package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

const csvHead = `"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms",` +
	`"p95_latency_ms","p99_latency_ms","max_latency_ms"` + "\n"

func TestParseCSV(t *testing.T) {
	good := csvHead + `"SET","43478.26","0.060","0.016","0.047","0.071","0.135","2.975"` + "\n"
	m, err := parseCSV([]byte(good), "set")
	want := measured{PerSecond: 43478.26, P50: 47 * time.Microsecond, P99: 135 * time.Microsecond}
	if err != nil || m != want {
		t.Errorf("%+v, %v, not %+v", m, err, want)
	}
	for name, bad := range map[string]string{
		"nothing":        "",
		"no figures":     csvHead,
		"other command":  strings.Replace(good, "SET", "GET", 1),
		"no number":      strings.Replace(good, "0.135", "fast", 1),
		"not a time":     strings.Replace(good, "0.047", "-1", 1),
		"missing column": strings.Replace(good, "p99_latency_ms", "p98_latency_ms", 1),
		"of Redis 6":     "\"SET\",\"43478.26\"\n",
		"short line":     csvHead + "\"SET\",\"43478.26\"\n",
	} {
		if m, err := parseCSV([]byte(bad), "set"); err == nil {
			t.Errorf("%s: %+v and no error", name, m)
		}
	}
}

func TestParseStat(t *testing.T) {
	const stat = "4711 (a) b (c) S 1 4711 4711 0 -1 4194560 1 2 3 4 250 50 7 8 20 0 5 0 99 1 2"
	if d, err := parseStat(stat); err != nil || d != 3*time.Second {
		t.Errorf("%v, %v, not 3s", d, err)
	}
	for _, bad := range []string{"", "4711 (a) S 1 2", strings.Replace(stat, "250", "x", 1)} {
		if d, err := parseStat(bad); err == nil {
			t.Errorf("%q: %v and no error", bad, d)
		}
	}
}

func TestParseCallers(t *testing.T) {
	if got, err := parseCallers("1, 16,256"); err != nil || !slices.Equal(got, []int{1, 16, 256}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "0", "1,,2", "-1", "many"} {
		if got, err := parseCallers(bad); err == nil {
			t.Errorf("%q: %v and no error", bad, got)
		}
	}
}

func TestTable(t *testing.T) {
	one := func(perSecond float64) measured {
		return measured{perSecond, 50 * time.Microsecond, time.Millisecond,
			1500 * time.Nanosecond, 2 * time.Microsecond}
	}
	results := [][2][]measured{{{one(30000), one(10000), one(20000)}, {one(40000)}}}
	var b strings.Builder
	if err := printTable(&b, []row{{true, 16}}, results); err != nil {
		t.Fatal(err)
	}
	const want = "| PUT, durable | 16 | 20.0 | 40.0 | 0.50 | 50, 1000 | 50, 1000 " +
		"| 1.5 / 1.5 | 2.0 / 2.0 |\n"
	if !strings.HasSuffix(b.String(), want) {
		t.Errorf("%s\ndoes not end with\n%s", b.String(), want)
	}
}

func TestKeysAndValues(t *testing.T) {
	if key := string(keyOf(15736)); key != "key:000000015736" {
		t.Error(key)
	}
	if n := len(newValue()); n != valueBytes {
		t.Error(n)
	}
	const want = "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"
	if got := string(appendCommand(nil, "GET", "k")); got != want {
		t.Errorf("%q", got)
	}
}
