package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kvd/bench"
)

func kvbench(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestUsageErrors(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"", "name at least one workload"},
		{"readrandm", "no workload"},
		{"readrandom --nosuch", "unknown flag"},
		{"readrandom --durability always", "must be sync, async or nosync"},
		{"readrandom --target tcp://x:1", "must be quic://HOST:PORT or embedded:DIR"},
		{"readrandom --target quic://x", "must be quic://HOST:PORT or embedded:DIR"},
		{"readrandom --target embedded:", "must be quic://HOST:PORT or embedded:DIR"},
		{"readrandom --keys 0", "at least 1"},
		{"readrandom --keys many", "must be a whole number"},
		{"readrandom --keys 1.5", "must be a whole number"},
		{"readrandom --keys 1G --key-size 8", "out of bounds"},
		{"readrandom --value-size 9000000", "0 to 8388608"},
		{"readrandom --workers 0", "at least 1"},
		{"readrandom --verify --value-size 10", "20 bytes or more"},
		{"mixed --read-ratio 2", "between 0 and 1"},
	} {
		code, stdout, stderr := kvbench(t, strings.Fields(c.args)...)
		if code != exitUsage || !strings.Contains(stderr, c.want) || stdout != "" {
			t.Errorf("kvbench %s: exit %d, %q, %q", c.args, code, stdout, stderr)
		}
	}
}

func TestHelpListsWorkloads(t *testing.T) {
	code, stdout, _ := kvbench(t, "--help")
	if code != exitDone {
		t.Errorf("exit %d", code)
	}
	for _, w := range bench.Workloads() {
		if !strings.Contains(stdout, w.Name) || !strings.Contains(stdout, w.About) {
			t.Errorf("help lacks %s", w.Name)
		}
	}
}

func TestEmbeddedSession(t *testing.T) {
	dir := t.TempDir()
	file, page := filepath.Join(dir, "r.json"), filepath.Join(dir, "r.html")
	code, stdout, stderr := kvbench(t, "readrandom", "ycsb-a", "scan",
		"--target", "embedded:"+filepath.Join(dir, "db"),
		"--keys", "2k", "--ops", "3k",
		"--workers", "2", "--durability", "nosync", "--verify", "--json", file, "--html", page)
	if code != exitDone {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	if !strings.Contains(stderr, "loading 2k of them first") {
		t.Errorf("loading was not told: %q", stderr)
	}
	for _, want := range []string{"readrandom", "update", "pairs read", "verified", "log"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("table lacks %q:\n%s", want, stdout)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var report bench.Report
	if err := json.Unmarshal(text, &report); err != nil || len(report.Results) != 3 {
		t.Errorf("%v, %d results", err, len(report.Results))
	}
	for _, r := range report.Results {
		if r.Ops() != 3000 || !r.Verified {
			t.Errorf("%s: %d operations", r.Workload, r.Ops())
		}
	}
	if text, err := os.ReadFile(page); err != nil || !bytes.Contains(text, []byte("ycsb-a")) {
		t.Errorf("page: %v", err)
	}
	// The keys are there now: nothing is loaded, and JSON alone goes to stdout.
	code, stdout, stderr = kvbench(t, "readmissing",
		"--target", "embedded:"+filepath.Join(dir, "db"),
		"--keys", "2k", "--ops", "100", "--json", "-")
	if code != exitDone || strings.Contains(stderr, "loading") || !json.Valid([]byte(stdout)) {
		t.Errorf("exit %d, stderr %q, stdout %q", code, stderr, stdout)
	}
}

func TestFailures(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"fillseq", "--target", "embedded:" + file, "--keys", "10"},
		{"ping", "--target", "embedded:" + filepath.Join(dir, "db"), "--keys", "10"},
		{"fillseq", "--target", "embedded:" + filepath.Join(dir, "db"), "--keys", "10",
			"--json", filepath.Join(dir, "no", "such", "dir")},
	} {
		if code, _, stderr := kvbench(t, args...); code != exitFailed || stderr == "" {
			t.Errorf("%q: exit %d, %q", args, code, stderr)
		}
	}
}

func TestCountFlag(t *testing.T) {
	for text, want := range map[string]uint64{
		"0": 0, "7": 7, "500k": 500e3, "10M": 10e6, "1e6": 1e6, "1.5M": 1.5e6, "2G": 2e9,
	} {
		var c countFlag
		if err := c.Set(text); err != nil || uint64(c) != want {
			t.Errorf("%q is %d, %v", text, c, err)
		}
	}
}
