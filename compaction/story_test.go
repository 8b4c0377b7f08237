package compaction

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"kvd/sstable"
)

// story is the state of one file in testdata. Its commands:
//
//	levels [base=N] [table=N] [trigger=N]   set the tree; a line per level, "L5 3:a-f#1-9,100"
//	                                        is table 3 of 100 bytes, "100/7" has 7 tombstones
//	targets                                 base level, target sizes, scores, debt, pressure
//	pick [busy=(N,...)] [apply] [idle]      the next job, or that for when nobody writes; apply
//	                                        installs one table as its output
//	manual [lo=K] [hi=K] [busy=(N,...)]     all jobs of a manual compaction, applying each
//	show                                    the tree
//	reduce [snapshots=(N,...)] [below=a-f]  what becomes of a list of versions
type story struct {
	config Config
	picker *Picker
	levels Levels
	num    uint64
}

func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &story{picker: NewPicker(Config{})}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "levels":
				return s.set(t, d)
			case "targets":
				return s.targets()
			case "pick":
				return s.pick(d)
			case "manual":
				return s.manual(d)
			case "show":
				return s.show()
			case "reduce":
				return reduceStory(t, d)
			}
			return "unknown command"
		})
	})
}

func (s *story) set(t *testing.T, d *datadriven.TestData) string {
	s.config = Config{BaseBytes: 100, TableBytes: 10}
	s.levels, s.num = Levels{}, 0
	d.MaybeScanArgs(t, "base", &s.config.BaseBytes)
	d.MaybeScanArgs(t, "table", &s.config.TableBytes)
	d.MaybeScanArgs(t, "trigger", &s.config.LevelZeroTrigger)
	s.picker = NewPicker(s.config)
	for line := range strings.Lines(d.Input) {
		fields := strings.Fields(line)
		var level int
		scan(fields[0], "L%d", &level)
		for _, f := range fields[1:] {
			m := parseTable(f)
			s.num = max(s.num, m.Num)
			s.levels[level] = append(s.levels[level], m)
		}
	}
	if err := s.levels.Check(); err != nil {
		return err.Error()
	}
	return "ok"
}

func scan(s, format string, to ...any) {
	if _, err := fmt.Sscanf(s, format, to...); err != nil {
		panic(fmt.Sprintf("%q: %v", s, err))
	}
}

func parseTable(s string) *sstable.Meta {
	m := &sstable.Meta{MinSeq: 1, MaxSeq: 1}
	head, size, _ := strings.Cut(s, ",")
	if dead := strings.IndexByte(size, '/'); dead >= 0 {
		scan(size[dead:], "/%d", &m.Tombstones)
		size = size[:dead]
	}
	scan(size, "%d", &m.Bytes)
	head, seqs, ok := strings.Cut(head, "#")
	if ok {
		scan(seqs, "%d-%d", &m.MinSeq, &m.MaxSeq)
	}
	num, keys, _ := strings.Cut(head, ":")
	scan(num, "%d", &m.Num)
	lo, hi, _ := strings.Cut(keys, "-")
	m.Smallest = sstable.MakeKey([]byte(lo), m.MaxSeq, sstable.KindPut)
	m.Largest = sstable.MakeKey([]byte(hi), m.MinSeq, sstable.KindPut)
	m.Entries = max(m.Bytes, 1)
	return m
}

func (s *story) show() string {
	var b strings.Builder
	for i, level := range s.levels {
		if len(level) > 0 {
			fmt.Fprintf(&b, "L%d", i)
			for _, m := range level {
				fmt.Fprintf(&b, " %d:%s-%s,%d", m.Num, m.Smallest.User, m.Largest.User, m.Bytes)
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

func (s *story) targets() string {
	var b strings.Builder
	sizes := s.levels.Sizes()
	t := s.config.Targets(&sizes)
	scores := s.config.Scores(&sizes, &t, float64(len(s.levels[0])))
	fmt.Fprintf(&b, "base L%d, drain above L%d, debt %d, pressure %.3f\n", t.Base, t.Drain,
		s.config.Debt(&sizes, float64(len(s.levels[0]))), Pressure(&s.levels, s.config, nil))
	for i := range sizes {
		if sizes[i] > 0 || t.Bytes[i] > 0 {
			fmt.Fprintf(&b, "L%d %d of %d, score %.2f\n", i, sizes[i], t.Bytes[i], scores[i])
		}
	}
	return b.String()
}

func busyArg(d *datadriven.TestData) func(uint64) bool {
	for _, arg := range d.CmdArgs {
		if arg.Key == "busy" {
			return func(num uint64) bool {
				for _, v := range arg.Vals {
					if v == fmt.Sprint(num) {
						return true
					}
				}
				return false
			}
		}
	}
	return nil
}

func (s *story) pick(d *datadriven.TestData) string {
	pick := s.picker.Pick
	if d.HasArg("idle") {
		pick = s.picker.PickIdle
	}
	j, ok := pick(&s.levels, busyArg(d))
	if !ok {
		return "nothing"
	}
	if err := j.Check(&s.levels); err != nil {
		return err.Error()
	}
	out := j.String()
	if d.HasArg("apply") {
		s.apply(&j)
		out += "\n" + s.show()
	}
	return out
}

// apply installs one table that spans the inputs and is as large as they are together.
func (s *story) apply(j *Job) {
	lo, hi := j.Range()
	out := sstable.Meta{Bytes: j.InputBytes(), Entries: j.InputBytes(), MinSeq: 1, MaxSeq: 1}
	s.num++
	out.Num = s.num
	out.Smallest = sstable.MakeKey(lo, 1, sstable.KindPut)
	out.Largest = sstable.MakeKey(hi, 1, sstable.KindPut)
	c := j.Change([]sstable.Meta{out})
	next, err := s.levels.Apply(&c)
	if err != nil {
		panic(err)
	}
	s.levels = next
}

func (s *story) manual(d *datadriven.TestData) string {
	var lo, hi []byte
	for _, arg := range d.CmdArgs {
		switch arg.Key {
		case "lo":
			lo = []byte(arg.Vals[0])
		case "hi":
			hi = []byte(arg.Vals[0])
		}
	}
	var b bytes.Buffer
	m := NewManual(&s.levels, lo, hi)
	for {
		j, step := m.Next(&s.levels, s.config, busyArg(d))
		switch step {
		case Blocked:
			return b.String() + "blocked"
		case Done:
			return b.String() + s.show()
		}
		if err := j.Check(&s.levels); err != nil {
			return err.Error()
		}
		fmt.Fprintln(&b, j)
		s.apply(&j)
	}
}

func reduceStory(t *testing.T, d *datadriven.TestData) string {
	var snapshots []sstable.Seq
	var runs [][]*sstable.Meta
	for _, arg := range d.CmdArgs {
		for _, v := range arg.Vals {
			switch arg.Key {
			case "snapshots":
				var s sstable.Seq
				scan(v, "%d", &s)
				snapshots = append(snapshots, s)
			case "below":
				runs = append(runs, []*sstable.Meta{parseTable("1:" + v + ",1")})
			}
		}
	}
	r := makeReducer(snapshots, runs)
	var b strings.Builder
	for line := range strings.Lines(d.Input) {
		in := parseEntry(strings.TrimSpace(line))
		trailer, v, _, err := r.step(in.key)
		if err != nil {
			t.Fatal(err)
		}
		switch v {
		case keep:
			fmt.Fprintf(&b, "%v -> %v\n", in, entry{key: sstable.Key{User: in.key.User,
				Trailer: trailer}})
		case shadowed:
			fmt.Fprintf(&b, "%v    shadowed\n", in)
		case dropped:
			fmt.Fprintf(&b, "%v    dropped\n", in)
		}
	}
	return b.String()
}
