package main_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The rules of the house, as a test: what each package may import, how long a file, a function and
// a line may be, that each package explains itself. A rule that is in the way is changed here, in
// the open.

const (
	fileLinesMax     = 600
	testFileLinesMax = 1000
	functionLinesMax = 70
	lineColumnsMax   = 100
	testColumnsMax   = 120
	tabColumns       = 4
)

// imports lists, for each package, everything outside the standard library that its non-test files
// import. A new dependency needs a line here.
var imports = map[string][]string{
	"wal": {"github.com/cespare/xxhash/v2"},
	"sstable": {
		"github.com/bits-and-blooms/bloom/v3", "github.com/cespare/xxhash/v2",
		"github.com/golang/snappy", "kvd/sstable/offheap", "kvd/sstable/rcu",
	},
	"sstable/offheap": {"golang.org/x/sys/unix"},
	"compaction":      {"golang.org/x/sync/errgroup", "kvd/lsm/procs", "kvd/sstable"},
	"lsm/procs":       {},
	"lsm/vfs":         {"golang.org/x/sys/unix", "kvd/lsm/procs"},
	"lsm": {
		"kvd/compaction", "kvd/lsm/procs", "kvd/lsm/vfs", "kvd/sstable",
		"kvd/sstable/offheap", "kvd/sstable/rcu", "kvd/wal",
	},
	"replication": {"github.com/cespare/xxhash/v2", "kvd/lsm"},
	"netquic": {
		"github.com/quic-go/quic-go", "golang.org/x/net/ipv4", "golang.org/x/sync/semaphore",
		"golang.org/x/sys/unix", "kvd/lsm/procs",
	},
	"bench": {"github.com/HdrHistogram/hdrhistogram-go", "kvd/lsm/procs"},
}

// pure lists the files of decisions: functions of values, without clock or chance.
var pure = []string{
	"compaction/picker.go", "compaction/targets.go", "compaction/reduce.go", "compaction/debt.go",
	"compaction/pace.go", "compaction/manual.go", "compaction/levels.go", "compaction/job.go",
	"compaction/split.go",
	"lsm/edit.go", "lsm/batch.go", "lsm/procs/fit.go",
	"replication/ring.go", "replication/placement.go", "replication/shares.go",
	"replication/assign.go", "replication/merkle.go", "replication/version.go",
	"replication/object.go", "replication/level.go", "replication/detector.go",
	"replication/member.go", "replication/core.go", "replication/request.go",
	"replication/put.go", "replication/get.go", "replication/handoff.go", "replication/sync.go",
	"replication/collect.go", "replication/scanop.go", "replication/explain.go",
}

type source struct {
	path   string // slashes, from the root of the module
	text   string
	file   *ast.File
	fset   *token.FileSet
	isTest bool
}

func (s *source) dir() string { return filepath.ToSlash(filepath.Dir(s.path)) }

// sources parses every Go file of the module; bench/peers is a module of its own, but of this house.
func sources(t *testing.T) []*source {
	t.Helper()
	root := filepath.Join("..", "..")
	var all []*source
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		hidden := strings.HasPrefix(d.Name(), ".") && path != root
		if d.IsDir() && (d.Name() == "testdata" || hidden) {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		s := &source{path: filepath.ToSlash(rel), text: string(text), fset: token.NewFileSet()}
		s.isTest = strings.HasSuffix(path, "_test.go")
		s.file, err = parser.ParseFile(s.fset, path, text, parser.ParseComments)
		all = append(all, s)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 50 {
		t.Fatalf("found only %d Go files", len(all))
	}
	return all
}

func TestTidyImports(t *testing.T) {
	got := map[string]map[string]bool{}
	for _, s := range sources(t) {
		if s.isTest {
			continue
		}
		for _, spec := range s.file.Imports {
			path := strings.Trim(spec.Path.Value, `"`)
			first, _, _ := strings.Cut(path, "/")
			if first != "kvd" && !strings.Contains(first, ".") {
				continue // the standard library
			}
			if got[s.dir()] == nil {
				got[s.dir()] = map[string]bool{}
			}
			got[s.dir()][path] = true
		}
	}
	for dir, want := range imports {
		for path := range got[dir] {
			if !slices.Contains(want, path) {
				t.Errorf("%s imports %s, which is not in its list", dir, path)
			}
		}
		for _, path := range want {
			if !got[dir][path] {
				t.Errorf("%s does not import %s any more: take it off the list", dir, path)
			}
		}
	}
	for dir := range got {
		if imports[dir] == nil && !strings.HasPrefix(dir, "cmd/") && !strings.HasPrefix(dir, "bench/peers") {
			t.Errorf("%s has no list of imports", dir)
		}
	}
}

func TestTidyLengths(t *testing.T) {
	for _, s := range sources(t) {
		lines := strings.Split(s.text, "\n")
		limit, columnsMax := fileLinesMax, lineColumnsMax
		if s.isTest {
			limit, columnsMax = testFileLinesMax, testColumnsMax
		}
		if n := len(lines) - 1; n > limit {
			t.Errorf("%s has %d lines, more than %d: split it by what it is about", s.path, n, limit)
		}
		for i, line := range lines {
			columns := len([]rune(line)) + (tabColumns-1)*strings.Count(line, "\t")
			if columns > columnsMax && !strings.Contains(line, "://") {
				t.Errorf("%s:%d has %d columns, more than %d", s.path, i+1, columns, columnsMax)
			}
		}
		if s.isTest {
			continue
		}
		for _, decl := range s.file.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			from, to := s.fset.Position(fn.Pos()).Line, s.fset.Position(fn.End()).Line
			if n := to - from + 1; n > functionLinesMax {
				t.Errorf("%s:%d: %s has %d lines, more than %d", s.path, from, fn.Name.Name, n,
					functionLinesMax)
			}
		}
	}
}

func TestTidyPackageDocs(t *testing.T) {
	docs, dirs := map[string]string{}, map[string]bool{}
	for _, s := range sources(t) {
		if s.isTest {
			continue
		}
		dirs[s.dir()] = true
		if s.file.Doc != nil {
			docs[s.dir()] += s.file.Doc.Text()
		}
	}
	for dir := range dirs {
		if len(docs[dir]) < 200 {
			t.Errorf("%s does not explain itself: its package comment has %d characters", dir,
				len(docs[dir]))
		}
		switch filepath.Base(dir) {
		case "util", "utils", "common", "base", "helpers", "internal", "pkg", "misc":
			t.Errorf("%s: name the package after what it does", dir)
		}
	}
}

func TestTidyWords(t *testing.T) {
	unfinished := regexp.MustCompile(`\b(` + "TO" + `DO|FIX` + `ME|XX` + `X)\b`)
	for _, s := range sources(t) {
		if at := unfinished.FindString(s.text); at != "" {
			t.Errorf("%s says %s: finish it or leave it out", s.path, at)
		}
		if s.isTest || strings.HasPrefix(s.path, "cmd/") || strings.HasPrefix(s.path, "bench/peers/") {
			continue
		}
		for _, call := range []string{"fmt.Print", "log.Fatal", "os.Exit(", "println("} {
			if strings.Contains(s.text, "\t"+call) {
				t.Errorf("%s calls %s: a library returns errors", s.path, call)
			}
		}
	}
}

func TestTidyPureFiles(t *testing.T) {
	found := 0
	for _, s := range sources(t) {
		if !slices.Contains(pure, s.path) {
			continue
		}
		found++
		for _, call := range []string{"time.Now(", "time.Since(", "rand.Int", "\tgo ", "os.Open"} {
			if strings.Contains(s.text, call) {
				t.Errorf("%s is a file of decisions and has %q", s.path, call)
			}
		}
	}
	if found != len(pure) {
		t.Errorf("%d of %d files of decisions are there: correct the list", found, len(pure))
	}
}

// TestTidyClock: nothing in the engine depends on the time of day, which jumps. Durations come from
// differences of two readings, for which Go has the monotonic clock; whatever strips that, or turns
// a moment into a number that could be stored, is forbidden.
func TestTidyClock(t *testing.T) {
	wall := regexp.MustCompile(`\.(Unix|UnixNano|UnixMicro|UnixMilli|UTC|Local|Round|Truncate|` +
		`MarshalBinary|MarshalText|AppendFormat|Format)\((0|time\.|\))|time\.(Date|Parse|Unix)\w*\(`)
	for _, s := range sources(t) {
		switch s.dir() {
		case "wal", "sstable", "compaction", "lsm", "lsm/procs", "lsm/vfs":
		default:
			continue
		}
		if at := wall.FindString(s.text); at != "" && !s.isTest {
			t.Errorf("%s: %q reads the time of day", s.path, at)
		}
	}
	if !wall.MatchString("now := time.Now().UnixNano()") {
		t.Error("the test looks for the wrong thing")
	}
}

// TestTidyMmap: no file is mapped into memory, where a full or broken disk would be a fault that
// kills the process instead of an error. Memtables and cache are mapped, without a file.
func TestTidyMmap(t *testing.T) {
	mapped := 0
	for _, s := range sources(t) {
		if s.isTest || strings.HasPrefix(s.path, "bench/peers/") {
			continue
		}
		calls := strings.Count(s.text, "Mmap(") + strings.Count(s.text, "MmapPtr(") +
			strings.Count(s.text, "SYS_MMAP")
		mapped += calls
		if calls > 0 && (s.path != "sstable/offheap/memory.go" ||
			calls != strings.Count(s.text, "unix.Mmap(-1, 0, ") ||
			!strings.Contains(s.text, "unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)")) {
			t.Errorf("%s maps memory", s.path)
		}
	}
	if mapped != 1 {
		t.Errorf("%d mappings found, not one", mapped)
	}
}
