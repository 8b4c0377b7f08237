package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// figures are sums by name.
type figures map[string]int64

func (f figures) add(other figures) {
	for name, n := range other {
		f[name] += n
	}
}

// result is what became of one part.
type result struct {
	part    string
	figures figures
	took    time.Duration
	failure string // the end of its output; "" when it passed
}

// runParts runs the parts that are wanted one after the other, each with every processor.
func runParts(ctx context.Context, s settings, temp string) error {
	var names []string
	total := 0
	for _, p := range parts {
		names = append(names, p.name)
		if s.wanted(p.name) {
			total += p.share
		}
	}
	if err := s.checkOnly(names); err != nil {
		return err
	}
	if s.list {
		return listParts()
	}
	began := time.Now()
	var results []result
	for _, p := range parts {
		if !s.wanted(p.name) {
			continue
		}
		budget := s.budget * time.Duration(p.share) / time.Duration(total)
		fmt.Printf("%s  %-12s %v: %s\n", time.Now().Format("15:04:05"), p.name,
			budget.Round(time.Second), p.what)
		r, err := p.runFor(ctx, budget, temp)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		results = append(results, r)
		r.print(os.Stdout)
	}
	return conclude(s, results, time.Since(began))
}

func listParts() error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, p := range parts {
		fmt.Fprintf(w, "%s\t%s %s\t%s\n", p.name, p.pkg, p.run, p.what)
	}
	return w.Flush()
}

// conclude prints the sums and keeps them when asked to.
func conclude(s settings, results []result, took time.Duration) error {
	e := entry{
		Date:    time.Now().UTC().Format("2006-01-02"),
		Commit:  commit(),
		Seconds: int64(took.Seconds()),
		Figures: figures{},
	}
	for _, r := range results {
		e.Parts = append(e.Parts, r.part)
		e.Figures.add(r.figures)
		if r.failure != "" {
			e.Failed = append(e.Failed, r.part)
		}
	}
	fmt.Printf("\nAll parts, %v at %s\n", took.Round(time.Second), e.Commit)
	printFigures(os.Stdout, e.Figures)
	if s.record {
		if err := record(e); err != nil {
			return err
		}
	}
	if len(e.Failed) > 0 {
		return fmt.Errorf("failed: %s", strings.Join(e.Failed, ", "))
	}
	fmt.Println("passed: nothing acknowledged was lost, nothing was silently wrong, nothing hung")
	return nil
}

func (r *result) print(w io.Writer) {
	verdict := "passed"
	if r.failure != "" {
		verdict = "FAILED"
	}
	fmt.Fprintf(w, "          %-12s %s in %v\n", r.part, verdict, r.took.Round(time.Second))
	printFigures(w, r.figures)
	if r.failure != "" {
		fmt.Fprintln(w, r.failure)
	}
}

func printFigures(w io.Writer, f figures) {
	for _, name := range sortedNames(f) {
		fmt.Fprintf(w, "%24s %s\n", grouped(f[name]), name)
	}
}

func sortedNames(f figures) []string {
	names := make([]string, 0, len(f))
	for name := range f {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// grouped writes a number with spaces between thousands.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}

// slack is what a part may take beyond its budget, for the seed that it is in and for compiling.
const slack = 10 * time.Minute

func (p *part) runFor(ctx context.Context, budget time.Duration, temp string) (result, error) {
	if p.pkg == "" {
		return fuzzAll(ctx, p.name, budget)
	}
	binary := filepath.Join(temp, p.name+".test")
	if out, err := goCommand(ctx, "test", "-c", "-o", binary, p.pkg); err != nil {
		return result{}, fmt.Errorf("%w\n%s", err, out)
	}
	return p.runBinary(ctx, binary, budget)
}

// runBinary runs a test binary as go test does, in the directory of its package.
func (p *part) runBinary(ctx context.Context, binary string, budget time.Duration) (result, error) {
	began := time.Now()
	cmd := exec.CommandContext(ctx, binary, "-test.run", p.run, "-test.v", "-test.timeout",
		(budget + slack).String(), "-budget", (budget / time.Duration(max(p.tests, 1))).String())
	cmd.Dir = moduleFile(p.pkg)
	out := &scanner{figures: figures{}}
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run()
	r := result{part: p.name, figures: out.figures, took: time.Since(began)}
	switch {
	case err != nil:
		r.failure = fmt.Sprintf("%s\n%v", out.tail(), err)
	case out.passed == 0:
		r.failure = "no test ran: " + p.run
	}
	return r, nil
}

func goCommand(ctx context.Context, args ...string) ([]byte, error) {
	return exec.CommandContext(ctx, "go", args...).CombinedOutput()
}

// commit names the source that is run.
func commit() string {
	out, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	name := strings.TrimSpace(string(out))
	if status, err := exec.Command("git", "status", "--porcelain").Output(); err == nil &&
		len(bytes.TrimSpace(status)) > 0 {
		name += "+"
	}
	return name
}

var (
	figureLine = regexp.MustCompile(`proof: (.+) (\d+)$`)
	passLine   = regexp.MustCompile(`^--- PASS`)
)

// scanner reads the output of a test as it comes.
type scanner struct {
	figures figures
	passed  int
	part    []byte // of a line
	last    []string
}

// tailLines is how much of the output of a failed test is shown.
const tailLines = 60

// Write implements io.Writer.
func (s *scanner) Write(p []byte) (int, error) {
	s.part = append(s.part, p...)
	for {
		line, rest, ok := bytes.Cut(s.part, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		s.line(strings.TrimRight(string(line), "\r"))
		s.part = append(s.part[:0], rest...)
	}
}

func (s *scanner) line(line string) {
	if m := figureLine.FindStringSubmatch(line); m != nil {
		if n, err := strconv.ParseInt(m[2], 10, 64); err == nil {
			s.figures[m[1]] += n
		}
	}
	if passLine.MatchString(line) {
		s.passed++
	}
	if s.last = append(s.last, line); len(s.last) > tailLines {
		s.last = s.last[1:]
	}
}

func (s *scanner) tail() string { return strings.Join(s.last, "\n") }

// lines calls fn with each line of text.
func lines(text []byte, fn func(string)) {
	for in := bufio.NewScanner(bytes.NewReader(text)); in.Scan(); {
		fn(in.Text())
	}
}
