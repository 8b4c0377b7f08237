package metamorphic

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"kvd/lsm"
)

var (
	seedFlag   = flag.Uint64("metamorphic.seed", 0, "run this seed only")
	opsFlag    = flag.Int("metamorphic.ops", 800, "operations of each seed")
	replayFlag = flag.String("metamorphic.replay", "", "replay the list in this file only")
)

// seedsShort is the work of the everyday form.
const seedsShort = 4

// plansRandom is how many plans are drawn for each seed beside the corners.
const plansRandom = 2

const shrinkTime = time.Minute

// TestMetamorphic replays drawn lists under many options. Every database must answer as the model
// does. What fails is shrunk, saved, and printed with the command that repeats it.
func TestMetamorphic(t *testing.T) {
	if *replayFlag != "" {
		replayFile(t, *replayFlag)
		return
	}
	first, n := uint64(1), uint64(seedsShort)
	if raceDetector {
		n = max(1, n/10)
	}
	if *seedFlag != 0 {
		first, n = *seedFlag, 1
	}
	began := time.Now()
	var all figures
	seeds := int64(0)
	for seed := first; seed < first+n; seed++ {
		runSeed(t, seed, &all)
		seeds++
	}
	fresh := rand.New(rand.NewPCG(uint64(began.UnixNano()), 0))
	for time.Since(began) < *budget && *seedFlag == 0 {
		runSeed(t, fresh.Uint64()>>16, &all)
		seeds++
	}
	count(t, "operations", all.operations)
	count(t, "recoveries", all.recoveries)
	t.Logf("%d seeds; %d losses of power, after %d of them there was less than before", seeds,
		all.crashes, all.lost)
	if *seedFlag == 0 {
		checkCoverage(t, &all)
	}
}

// checkCoverage fails when the plans are not the corners that they are meant to be.
func checkCoverage(t *testing.T, f *figures) {
	const every = 1<<7 - 1
	if got := f.levels["deep"]; got != every {
		t.Errorf("the deep tree used the levels %07b", got)
	}
	if got := f.levels["flat"]; got&^(1|1<<6) != 0 {
		t.Errorf("the flat tree used the levels %07b", got)
	}
	if f.lost == 0 && !raceDetector {
		t.Error("no loss of power lost anything")
	}
}

func plansOf(seed uint64) []plan {
	plans := corners()
	r := rand.New(rand.NewPCG(seed, 2))
	for i := range plansRandom {
		plans = append(plans, randomPlan(r, fmt.Sprint("drawn", i)))
	}
	return plans
}

// runSeed replays one list under all plans, some at a time.
func runSeed(t *testing.T, seed uint64, f *figures) {
	t.Helper()
	ops, plans := generate(seed, *opsFlag), plansOf(seed)
	repeat := fmt.Sprintf("-metamorphic.seed=%d -metamorphic.ops=%d", seed, *opsFlag)
	if m := runPlans(ops, plans, repeat, f); m != nil {
		report(t, ops, m, nil, repeat)
	}
}

// runPlans returns the first mismatch of any plan.
func runPlans(ops []op, plans []plan, repeat string, f *figures) *mismatch {
	watchdog := time.AfterFunc(5*time.Minute, func() {
		buf := make([]byte, 1<<20)
		panic(fmt.Sprintf("a replay hangs: %s\n%s", repeat, buf[:runtime.Stack(buf, true)]))
	})
	defer watchdog.Stop()
	trace := runModel(ops)
	var mu sync.Mutex
	var found *mismatch
	var running sync.WaitGroup
	turn := make(chan struct{}, 2*runtime.GOMAXPROCS(0)) // replays also wait
	for _, p := range plans {
		turn <- struct{}{}
		running.Go(func() {
			defer func() { <-turn }()
			var mine figures
			m := replay(ops, trace, p, nil, &mine)
			mu.Lock()
			defer mu.Unlock()
			f.add(&mine)
			if m != nil && found == nil {
				found = m
			}
		})
	}
	running.Wait()
	return found
}

// report shrinks a list that fails, saves it and tells how to repeat it.
func report(t *testing.T, ops []op, m *mismatch, wrap func(*lsm.DB) database, repeat string) {
	t.Helper()
	short, p := shrinkFailure(ops, m, wrap, shrinkTime)
	last := failure(short, p, wrap, triesOnce)
	if last == nil {
		last = m // it does not fail every time
	}
	var list strings.Builder
	fmt.Fprintln(&list, p)
	for _, o := range short {
		fmt.Fprintln(&list, o)
	}
	file := filepath.Join(t.ArtifactDir(), "metamorphic.txt")
	if err := os.WriteFile(file, []byte(list.String()), 0o600); err != nil {
		t.Error(err)
	}
	if dir, err := os.MkdirTemp("", "metamorphic"); err == nil { // outlives the test
		kept := filepath.Join(dir, "list.txt")
		if os.WriteFile(kept, []byte(list.String()), 0o600) == nil {
			file = kept
		}
	}
	t.Fatalf("%v\nshrunk from %d ops to %d:\n%s\t%v\nrepeat: go test ./lsm/metamorphic "+
		"-run 'TestMetamorphic$' -metamorphic.replay=%s\nor as it was found: %s",
		m, len(ops), len(short), list.String(), last, file, repeat)
}

// Some failures need luck with what runs in the background.
const triesOnce, triesLucky = 1, 10

func failure(ops []op, p plan, wrap func(*lsm.DB) database, tries int) *mismatch {
	trace := runModel(ops)
	for range tries {
		if m := replay(ops, trace, p, wrap, new(figures)); m != nil {
			return m
		}
	}
	return nil
}

// shrinkFailure returns a short list that fails, and the simplest part of the plan that it needs.
func shrinkFailure(
	ops []op, m *mismatch, wrap func(*lsm.DB) database, within time.Duration,
) ([]op, plan) {
	p, tries := m.plan, triesOnce
	if m.at < len(ops) {
		ops = ops[:m.at+1]
	}
	for range 3 {
		if failure(ops, p, wrap, 1) == nil {
			tries = triesLucky
		}
	}
	for i, s := range p.sets {
		one := plan{fmt.Sprintf("%s.%d", p.name, i), []settings{s}}
		if len(p.sets) > 1 && failure(ops, one, wrap, tries) != nil {
			p = one
			break
		}
	}
	fails := func(ops []op) bool { return failure(ops, p, wrap, tries) != nil }
	return shrink(ops, fails, within), p
}

func replayFile(t *testing.T, name string) {
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	ops, err := parseOps(string(text))
	if err != nil {
		t.Fatal(err)
	}
	plans, err := parsePlans(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if len(plans) == 0 {
		plans = corners()
	}
	for i, result := range runModel(ops).history {
		t.Logf("%4d %s: %s", i+1, ops[i], result)
	}
	for _, p := range plans {
		if m := failure(ops, p, nil, triesLucky); m != nil {
			t.Errorf("%v", m)
		}
	}
}
