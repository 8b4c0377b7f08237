package compaction

import (
	"errors"
	"fmt"
	"testing"

	"kvd/sstable"
)

// reduceAll runs a reducer over entries and returns what it keeps.
func reduceAll(t testing.TB, r *reducer, in []entry) (out []entry, shadow, drop int) {
	t.Helper()
	for _, e := range in {
		trailer, v, _, err := r.step(e.key)
		if err != nil {
			t.Fatal(err)
		}
		switch v {
		case keep:
			k := sstable.Key{User: e.key.User, Trailer: trailer}
			out = append(out, entry{k, e.value})
		case shadowed:
			shadow++
		case dropped:
			drop++
		}
	}
	return out, shadow, drop
}

// TestReduceExhaustive tries every history of up to five versions of one key, every set of
// snapshots and both answers to "may an older version be below", and compares what readers see.
// The job holds the newest versions, the rest is below.
func TestReduceExhaustive(t *testing.T) {
	cases := 0
	for n := 1; n <= 5; n++ {
		for kinds := range 1 << n {
			for inJob := 1; inJob <= n; inJob++ {
				for snapshots := range 1 << (n + 1) {
					for _, claim := range []bool{false, true} {
						if n > inJob && !claim {
							continue // something is below, and the table says so
						}
						cases++
						reduceCase(t, n, kinds, inJob, snapshots, claim)
					}
				}
			}
		}
	}
	t.Logf("%d cases", cases)
}

// reduceCase has versions 1..n; bit i of kinds makes version i+1 a put, bit i of
// snapshots takes a snapshot at i.
func reduceCase(t *testing.T, n, kinds, inJob, snapshots int, below bool) {
	var all []entry // newest first
	for s := n; s >= 1; s-- {
		kind := sstable.Kind(kinds >> (s - 1) & 1)
		all = append(all, entry{sstable.MakeKey([]byte("k"), sstable.Seq(s), kind),
			fmt.Append(nil, "v", s)})
	}
	readers := []sstable.Seq{sstable.Seq(n), sstable.SeqMax}
	var live []sstable.Seq
	for s := range n + 1 {
		if snapshots>>s&1 == 1 {
			live = append(live, sstable.Seq(s))
		}
	}
	readers = append(readers, live...)
	var runs [][]*sstable.Meta
	if below {
		k := sstable.MakeKey([]byte("k"), 0, sstable.KindPut)
		runs = [][]*sstable.Meta{nil, {{Num: 1, Smallest: k, Largest: k}}}
	}
	r := makeReducer(live, runs)
	out, shadow, drop := reduceAll(t, &r, all[:inJob])
	name := fmt.Sprintf("%v, %d in job, snapshots %v, below %v: %v", all, inJob, live, below, out)
	if len(out)+shadow+drop != inJob {
		t.Fatalf("%s: %d shadowed and %d dropped", name, shadow, drop)
	}
	for i := 1; i < len(out); i++ {
		if sstable.Compare(out[i-1].key, out[i].key) >= 0 {
			t.Fatalf("%s: out of order", name)
		}
	}
	after := append(out[:len(out):len(out)], all[inJob:]...)
	for _, at := range readers {
		if was, is := readVersions(all, at), readVersions(after, at); was != is {
			t.Fatalf("%s: at %d a reader saw %q and now sees %q", name, at, was, is)
		}
	}
	// As little as possible is left: one version per stripe, and alone at the bottom no tombstone
	// and no sequence number.
	if len(out) > len(live)+1 {
		t.Fatalf("%s: more versions than stripes", name)
	}
	if last := len(out) - 1; !below && len(live) == 0 && last >= 0 &&
		(out[last].key.Kind() != sstable.KindPut || out[last].key.Seq() != 0) {
		t.Fatalf("%s: the last version at the bottom should be a put at 0", name)
	}
}

func readVersions(newestFirst []entry, at sstable.Seq) string {
	for _, e := range newestFirst {
		if e.key.Seq() <= at {
			if e.key.Kind() == sstable.KindPut {
				return string(e.value)
			}
			return ""
		}
	}
	return ""
}

func TestReduceOrder(t *testing.T) {
	for _, pair := range [][2]string{
		{"b.PUT.1", "a.PUT.2"},
		{"a.PUT.1", "a.PUT.2"},
		{"a.DEL.1", "a.PUT.1"},
	} {
		r := makeReducer(nil, nil)
		if _, _, _, err := r.step(parseEntry(pair[0]).key); err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := r.step(parseEntry(pair[1]).key); !errors.Is(err, errOrder) {
			t.Errorf("%v: %v", pair, err)
		}
	}
}

func TestReduceAllocs(t *testing.T) {
	key := func(n int) []byte { return fmt.Appendf(nil, "key%09d", n) }
	var runs [][]*sstable.Meta
	for n := range 4 {
		runs = append(runs, []*sstable.Meta{{
			Smallest: sstable.MakeKey(key(n*1000), 1, sstable.KindPut),
			Largest:  sstable.MakeKey(key(n*1000+500), 1, sstable.KindPut),
		}})
	}
	var keys []sstable.Key
	for n := range 4000 {
		keys = append(keys, sstable.MakeKey(key(n/2), sstable.Seq(9000-n), sstable.KindPut))
	}
	r := makeReducer([]sstable.Seq{100, 5000, 8000}, runs)
	c := cutter{tableBytes: 1 << 20, next: runs[1]}
	n := 0
	allocs := testing.AllocsPerRun(len(keys)-1, func() {
		if _, _, fresh, _ := r.step(keys[n]); fresh {
			c.before(keys[n].User, 0)
		}
		n++
	})
	if allocs != 0 {
		t.Errorf("%v allocations per entry", allocs)
	}
}
