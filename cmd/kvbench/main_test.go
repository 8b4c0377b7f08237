package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"kvd/bench"
	"kvd/lsm"
	"kvd/netquic"
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
		{"readrandom --target tcp://x:1", "must be quic://HOST:PORT, cluster://HOST:PORT or embedded:DIR"},
		{"readrandom --target quic://x", "must be quic://HOST:PORT, cluster://HOST:PORT or embedded:DIR"},
		{"readrandom --target embedded:", "must be quic://HOST:PORT, cluster://HOST:PORT or embedded:DIR"},
		{"readrandom --target cluster://127.0.0.1:1 --cert app", "--cert app needs --tls"},
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
		{"fillseq", "--target", "embedded:" + filepath.Join(dir, "db"), "--keys", "10",
			"--json", filepath.Join(dir, "no", "such", "dir")},
	} {
		if code, _, stderr := kvbench(t, args...); code != exitFailed || stderr == "" {
			t.Errorf("%q: exit %d, %q", args, code, stderr)
		}
	}
}

func isDir(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// Nothing is made when a workload cannot run there.
func TestEmbeddedTargetIsNotPinged(t *testing.T) {
	db := filepath.Join(t.TempDir(), "db")
	code, _, stderr := kvbench(t, "fillseq", "ping", "--target", "embedded:"+db, "--keys", "10")
	if code != exitUsage || !strings.Contains(stderr, "cannot be pinged") || isDir(db) {
		t.Errorf("exit %d, database made: %v, %q", code, isDir(db), stderr)
	}
}

func TestEmbeddedTargetSparesOtherFiles(t *testing.T) {
	for name, want := range map[string]int{
		"letter.txt": exitUsage, "notes.d": exitUsage, "LOCK": exitDone, "CURRENT.tmp": exitDone,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		code, _, stderr := kvbench(t, "fillseq", "--target", "embedded:"+dir, "--keys", "10")
		if code != want || want != exitDone && !strings.Contains(stderr, name) {
			t.Errorf("%s: exit %d, want %d: %q", name, code, want, stderr)
		}
		files, err := os.ReadDir(dir)
		if err != nil || want != exitDone && len(files) != 1 {
			t.Errorf("%s: %d files, %v", name, len(files), err)
		}
	}
}

// A database with a stranger's file in it is still a database.
func TestEmbeddedTargetOpensItsDatabase(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		code, _, stderr := kvbench(t, "fillseq", "--target", "embedded:"+dir, "--keys", "10")
		if code != exitDone {
			t.Fatalf("exit %d: %s", code, stderr)
		}
		if err := os.WriteFile(filepath.Join(dir, "letter.txt"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A second session knows that the keys were there, and tells when nearly all are lost.
func TestSecondSessionVerifies(t *testing.T) {
	target := "embedded:" + t.TempDir()
	for _, args := range [][]string{
		{"fillseq", "--keys", "500"},
		{"readrandom", "fullscan", "--keys", "500"},
		{"ycsb-a", "ycsb-e", "--keys", "500"},
	} {
		args = append(args, "--target", target, "--verify", "--ops", "500", "--workers", "2")
		if code, _, stderr := kvbench(t, args...); code != exitDone {
			t.Errorf("%q: exit %d, %q", args, code, stderr)
		}
	}
	// A database of the keys alone that Loaded looks for.
	dir := t.TempDir()
	db, err := lsm.Open(dir, lsm.Options{})
	if err != nil {
		t.Fatal(err)
	}
	space, err := bench.NewKeyspace(100_000, bench.DefaultKeyBytes, 1)
	if err != nil {
		t.Fatal(err)
	}
	present := recorder{space: space, values: bench.NewValues(100, 1), db: db}
	s := bench.Spec{Workload: "readrandom", Keys: 100_000, Seed: 1}
	if there, err := bench.Loaded(&present, s); !there || err != nil {
		t.Fatal(there, err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"readrandom", "scan", "fullscan"} {
		code, _, stderr := kvbench(t, name, "--target", "embedded:"+dir, "--verify",
			"--keys", "100k", "--ops", "1000")
		if code != exitFailed || !strings.Contains(stderr, "lost") {
			t.Errorf("%s with nearly all keys lost: exit %d, %q", name, code, stderr)
		}
	}
}

// recorder writes each key that is asked for.
type recorder struct {
	bench.Target
	space  *bench.Keyspace
	values *bench.Values
	db     *lsm.DB
}

func (r *recorder) Get(dst, key []byte) ([]byte, bool, error) {
	n, _ := r.space.Parse(key)
	value := r.values.Append(dst, n, 1)
	return value, true, r.db.Put(key, value, lsm.NoSync)
}

func TestEnvironment(t *testing.T) {
	read := func(args ...string) settings {
		var s settings
		f := pflag.NewFlagSet("", pflag.ContinueOnError)
		s.addTo(f)
		if err := f.Parse(args); err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, name := range []string{"KVD_TARGET", "KVD_ADDR", "KVD_KNOWN_NODES"} {
		t.Setenv(name, "")
	}
	if s := read(); s.target != "quic://127.0.0.1:7400" || s.network.knownNodes != "" {
		t.Errorf("without environment: %+v", s)
	}
	t.Setenv("KVD_ADDR", "a:1")
	t.Setenv("KVD_KNOWN_NODES", "nodes")
	if s := read(); s.target != "quic://a:1" || s.network.knownNodes != "nodes" {
		t.Errorf("KVD_ADDR and KVD_KNOWN_NODES: %+v", s)
	}
	t.Setenv("KVD_TARGET", "embedded:db")
	if s := read(); s.target != "embedded:db" {
		t.Errorf("KVD_TARGET: %+v", s)
	}
	s := read("--target", "quic://b:2", "--known-nodes", "others")
	if s.target != "quic://b:2" || s.network.knownNodes != "others" {
		t.Errorf("flags: %+v", s)
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

// With --cert the authority was left out where a file of known nodes was named: a node that was not
// in it was refused, or at a loopback address believed.
func TestCertificatesGoBeforeKnownNodes(t *testing.T) {
	dir := t.TempDir()
	if _, err := netquic.CreateAuthority(dir); err != nil {
		t.Fatal(err)
	}
	if err := netquic.IssueClient(dir, "app"); err != nil {
		t.Fatal(err)
	}
	s := networkSettings{tls: dir, cert: "app", knownNodes: "known", connections: 1, lanes: 1,
		timeout: time.Second}
	o, err := s.options()
	if err != nil || o.Authority == nil || o.ClientCert == nil {
		t.Errorf("%v: authority %v, certificate %v", err, o.Authority, o.ClientCert)
	}
}
