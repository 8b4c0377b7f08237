package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

const museumPage = "docs/museum.md"

// exhibit is a seeded bug.
type exhibit struct {
	name  string
	story string // what goes wrong, and who shipped the like if it is known
	edits []edit
	pkg   string // where the tests are that must catch it
	run   string // regular expression of them
	// budget is how long tests that search go on; 0 is their everyday form within exhibitBudget.
	budget time.Duration
	hangs  bool // the tests catch it by never ending
}

// edit replaces a piece of a source file that occurs in it exactly once.
type edit struct {
	file, old, new string
}

// exhibitBudget is enough for most: the everyday form of a test on a busy machine.
const exhibitBudget = time.Minute

// searchBudget is for bugs that show only now and then: the tests go on with fresh seeds.
const searchBudget = 2 * time.Minute

func exhibits() []exhibit {
	var all []exhibit
	for _, room := range [][]exhibit{logExhibits, engineExhibits, tableExhibits, nodeExhibits,
		clusterExhibits} {
		all = append(all, room...)
	}
	return all
}

// catch is what became of one exhibit.
type catch struct {
	exhibit
	caught bool
	by     string // the first test that failed
	took   time.Duration
}

func runMuseum(ctx context.Context, s settings, temp string) error {
	all := exhibits()
	var names []string
	for _, x := range all {
		names = append(names, x.name)
	}
	if err := s.checkOnly(names); err != nil {
		return err
	}
	var catches []catch
	var missed []string
	for _, x := range all {
		if !s.wanted(x.name) {
			continue
		}
		if s.list {
			fmt.Printf("%-34s %s %s\n", x.name, x.pkg, x.run)
			continue
		}
		c, err := x.show(ctx, temp)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			fmt.Printf("%-34s %v\n", x.name, err)
			missed = append(missed, x.name)
			continue
		}
		verdict := "caught by " + c.by
		if !c.caught {
			verdict = "NOT CAUGHT by " + x.run
			missed = append(missed, x.name)
		}
		fmt.Printf("%-34s %5.1f s  %s\n", x.name, c.took.Seconds(), verdict)
		catches = append(catches, c)
	}
	if s.list {
		return nil
	}
	fmt.Printf("%d not caught\n", len(missed))
	if s.record && s.only == "" {
		if err := os.WriteFile(moduleFile(museumPage), renderMuseum(catches), 0o644); err != nil {
			return err
		}
	}
	if len(missed) > 0 {
		return fmt.Errorf("holes in the tests: %s", strings.Join(missed, ", "))
	}
	return nil
}

// apply returns the edited source files by name.
func (x *exhibit) apply() (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, e := range x.edits {
		text, ok := files[e.file]
		if !ok {
			var err error
			if text, err = os.ReadFile(moduleFile(e.file)); err != nil {
				return nil, err
			}
		}
		if n := bytes.Count(text, []byte(e.old)); n != 1 {
			return nil, fmt.Errorf("%s has this %d times, not once:\n%s", e.file, n, e.old)
		}
		files[e.file] = bytes.Replace(text, []byte(e.old), []byte(e.new), 1)
	}
	return files, nil
}

// overlay writes files to dir, and the description that the go command wants.
func overlay(dir string, files map[string][]byte) (string, error) {
	replace := map[string]string{}
	for name, text := range files {
		full, err := filepath.Abs(moduleFile(name))
		if err != nil {
			return "", err
		}
		to := filepath.Join(dir, strings.ReplaceAll(name, "/", "_"))
		if err := os.WriteFile(to, text, 0o644); err != nil {
			return "", err
		}
		replace[full] = to
	}
	data, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	to := filepath.Join(dir, "overlay.json")
	return to, os.WriteFile(to, data, 0o644)
}

// show builds the tests with the bug in and runs them.
func (x *exhibit) show(ctx context.Context, temp string) (catch, error) {
	c := catch{exhibit: *x}
	dir, err := os.MkdirTemp(temp, "exhibit")
	if err != nil {
		return c, err
	}
	defer os.RemoveAll(dir)
	files, err := x.apply()
	if err != nil {
		return c, err
	}
	description, err := overlay(dir, files)
	if err != nil {
		return c, err
	}
	binary := filepath.Join(dir, "with.test")
	out, err := goCommand(ctx, "test", "-overlay", description, "-c", "-o", binary, x.pkg)
	if err != nil {
		return c, fmt.Errorf("does not compile: %w\n%s", err, out)
	}
	return c, c.judge(ctx, binary)
}

// judge runs the tests within the budget. Running out of it is no catch, unless hanging is the bug.
func (c *catch) judge(ctx context.Context, binary string) error {
	budget := c.budget
	args := []string{"-test.run", c.run, "-test.failfast", "-test.v"}
	if budget == 0 {
		budget = exhibitBudget
	} else {
		args = append(args, "-budget", budget.String())
	}
	ctx, cancel := context.WithTimeout(ctx, budget+budget/2)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir = moduleFile(c.pkg)
	cmd.WaitDelay = 5 * time.Second
	began := time.Now()
	out, err := cmd.CombinedOutput()
	c.took = time.Since(began)
	if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed &&
		!errors.Is(err, exec.ErrWaitDelay) {
		return err
	}
	if ctx.Err() != nil && !c.hangs {
		return nil
	}
	if err == nil {
		if !bytes.Contains(out, []byte("--- PASS")) {
			return fmt.Errorf("no test is called %s", c.run)
		}
		return nil
	}
	c.caught = true
	c.by = failedTest(out, ctx.Err() != nil)
	return nil
}

var (
	failLine  = regexp.MustCompile(`(?m)^\s*--- FAIL: ([^\s/]+)`)
	panicLine = regexp.MustCompile(`(?m)^(?:panic|fatal error): (.*)$`)
	runLine   = regexp.MustCompile(`(?m)^=== (?:RUN|CONT) +([^\s/]+)`)
)

// failedTest finds the name of the test that failed in its output.
func failedTest(out []byte, hung bool) string {
	if m := failLine.FindSubmatch(out); m != nil {
		return string(m[1])
	}
	name := "?"
	if m := runLine.FindAllSubmatch(out, -1); m != nil {
		name = string(m[len(m)-1][1])
	}
	switch {
	case hung:
		return name + " (it hangs)"
	case panicLine.Match(out):
		return name + " (panic)"
	}
	return name
}

func renderMuseum(catches []catch) []byte {
	var b bytes.Buffer
	b.WriteString("# The bug museum\n\n" +
		"Each line is a bug that was put into the source on purpose, and the test that found it. " +
		"Made by\n`go run ./cmd/kvprove -museum -record`; the edits are in " +
		"[cmd/kvprove](../cmd/kvprove). A bug that is not caught\n" +
		"within its budget fails the run. " +
		"The times are of one run on two cores, without compiling.\n\n" +
		"| bug | what it does | caught by | after | budget |\n|---|---|---|---:|---:|\n")
	caught := 0
	for _, c := range catches {
		by := "**not caught**"
		if c.caught {
			caught++
			by = fmt.Sprintf("%s `%s`", strings.TrimPrefix(c.pkg, "./"), c.by)
		}
		budget := c.budget
		if budget == 0 {
			budget = exhibitBudget
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %.1f s | %.0f s |\n", c.name, c.story, by,
			c.took.Seconds(), budget.Seconds())
	}
	fmt.Fprintf(&b, "\n%d of %d are caught.\n", caught, len(catches))
	return b.Bytes()
}
