package replication

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestTreeAgainstRebuilt changes the entries of a tree at random and compares it with one built
// from what is there in the end, in another order: the way is forgotten.
func TestTreeAgainstRebuilt(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		digests := map[string]uint64{}
		var tree Tree
		set := func(tree *Tree, key string, before, after uint64) {
			k := []byte(key)
			tree.Update(LeafOf(KeyHash(k)), EntryHash(k, before), EntryHash(k, after))
		}
		for range 3000 {
			key := string(rune('a' + r.IntN(800)))
			after := r.Uint64()
			if r.IntN(3) == 0 {
				after = 0
			}
			set(&tree, key, digests[key], after)
			digests[key] = after
			if after == 0 {
				delete(digests, key)
			}
		}
		keys := make([]string, 0, len(digests))
		for key := range digests {
			keys = append(keys, key)
		}
		slices.Sort(keys)
		r.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
		var rebuilt Tree
		for _, key := range keys {
			set(&rebuilt, key, 0, digests[key])
		}
		if tree != rebuilt || tree.Root() != rebuilt.Root() || tree.Entries() != len(keys) {
			t.Fatalf("seed %d: the tree is not that of its %d entries", seed, len(keys))
		}

		// One key more differs in its leaf alone; one by one the keys lead back to nothing.
		extra := []byte("one more")
		set(&rebuilt, string(extra), 0, 7)
		diff := Diff(tree.Leaves(), rebuilt.Leaves())
		if !slices.Equal(diff, []int{LeafOf(KeyHash(extra))}) || tree.Root() == rebuilt.Root() {
			t.Fatalf("seed %d: one key more differs in leaves %v", seed, diff)
		}
		for _, key := range keys {
			set(&tree, key, digests[key], 0)
		}
		if tree != (Tree{}) || tree.Root() != 0 {
			t.Fatalf("seed %d: without its entries the tree is not empty", seed)
		}
	}
}

// TestTreeCounts: what the exclusive or does not tell apart the count does.
func TestTreeCounts(t *testing.T) {
	var none, twice Tree
	twice.Update(9, 0, 77)
	twice.Update(9, 0, 77)
	if none.Root() == twice.Root() || twice.Root() == 0 {
		t.Error("the same entry twice is nothing")
	}
	if diff := Diff(none.Leaves(), twice.Leaves()); !slices.Equal(diff, []int{9}) {
		t.Errorf("they differ in leaves %v", diff)
	}
	if diff := Diff(nil, twice.Leaves()); !slices.Equal(diff, []int{9}) {
		t.Errorf("without leaves: they differ in leaves %v", diff)
	}
	if diff := Diff(twice.Leaves(), twice.Leaves()); diff != nil {
		t.Errorf("a tree differs from itself in leaves %v", diff)
	}
}

func TestEntryHash(t *testing.T) {
	seen := map[uint64]string{}
	for _, key := range []string{"", "a", "b", "ab"} {
		for _, digest := range []uint64{1, 2, 1 << 63} {
			hash := EntryHash([]byte(key), digest)
			if other, twice := seen[hash]; hash == 0 || twice {
				t.Errorf("%q with digest %d has the hash %x, as %s", key, digest, hash, other)
			}
			seen[hash] = key
		}
		if EntryHash([]byte(key), 0) != 0 {
			t.Errorf("%q without a digest has a hash", key)
		}
	}
	if n := testing.AllocsPerRun(100, func() { EntryHash([]byte("some key"), 7) }); n != 0 {
		t.Errorf("%.0f allocations", n)
	}
}

// TestTreeGolden: nodes of different releases compare these numbers.
func TestTreeGolden(t *testing.T) {
	var tree Tree
	for _, key := range []string{"apple", "pear", "plum"} {
		tree.Update(LeafOf(KeyHash([]byte(key))), 0, EntryHash([]byte(key), uint64(len(key))))
	}
	b := AppendLeaves(nil, tree.Leaves())
	leaf := LeafOf(KeyHash([]byte("apple")))
	apple := Leaves / 8 // behind the bits and the leaves before it
	for _, l := range tree.Leaves()[:leaf] {
		if l.Count > 0 {
			apple += leafSumBytes
		}
	}
	if len(b) != Leaves/8+3*leafSumBytes || b[leaf/8]&(1<<(leaf%8)) == 0 {
		t.Errorf("three leaves are %x", b)
	}
	const (
		wantLeaf    = "e6c97409a9e20eec" + "01000000"
		wantRoot    = 0xf527fe5a5382213e
		wantSummary = 0x7b692a280582cf5b
	)
	if got := hex.EncodeToString(b[apple : apple+leafSumBytes]); got != wantLeaf {
		t.Errorf("the leaf is %s, want %s", got, wantLeaf)
	}
	if got := tree.Root(); got != wantRoot {
		t.Errorf("the root is %#x, want %#x", got, uint64(wantRoot))
	}
	if got := Summary([]PartitionRoot{{3, tree.Root()}, {1023, 0}}); got != wantSummary {
		t.Errorf("the summary is %#x, want %#x", got, uint64(wantSummary))
	}
}

func TestSummary(t *testing.T) {
	a := []PartitionRoot{{1, 10}, {2, 20}, {1000, 30}}
	sum := Summary(a)
	if sum != Summary(slices.Clone(a)) {
		t.Error("equal roots, different summaries")
	}
	for name, b := range map[string][]PartitionRoot{
		"none":              nil,
		"one less":          {{1, 10}, {2, 20}},
		"another root":      {{1, 10}, {2, 21}, {1000, 30}},
		"exchanged":         {{1, 20}, {2, 10}, {1000, 30}},
		"another partition": {{1, 10}, {3, 20}, {1000, 30}},
	} {
		if Summary(b) == sum {
			t.Errorf("%s: the same summary", name)
		}
	}
}

func TestDecodeLeavesRefuses(t *testing.T) {
	good := AppendLeaves(nil, make([]LeafSum, Leaves))
	at := func(leaf int, l LeafSum) []byte {
		b := bytes.Clone(good)
		b[leaf/8] |= 1 << (leaf % 8)
		b = append(b, make([]byte, leafSumBytes)...)
		putLeafSum(b[len(good):], l)
		return b
	}
	for name, c := range map[string]struct {
		bytes []byte
		leaf  int
	}{
		"nothing":                 {nil, -1},
		"cut":                     {good[:len(good)-1], -1},
		"a byte more":             {append(bytes.Clone(good), 0), -1},
		"a hash of no entries":    {at(7, LeafSum{1, 0}), 7},
		"an entry without a hash": {at(255, LeafSum{0, 1}), 255},
		"said to be there":        {at(9, LeafSum{}), 9},
		"half a leaf":             {at(3, LeafSum{1, 1})[:len(good)+5], 3},
	} {
		_, err := DecodeLeaves(c.bytes)
		var typed *LeavesError
		if !errors.As(err, &typed) || typed.Leaf != c.leaf {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, b := range map[string][]byte{
		"two entries that cancel": at(0, LeafSum{0, 2}),
		"one entry":               at(0, LeafSum{1, 1}),
	} {
		if _, err := DecodeLeaves(b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzLeaves: whatever decodes is what the encoder makes of the result.
func FuzzLeaves(f *testing.F) {
	var tree Tree
	f.Add(AppendLeaves(nil, tree.Leaves()))
	for i := range uint64(1000) {
		tree.Update(int(i%Leaves), 0, i*0x9e3779b97f4a7c15+1)
	}
	f.Add(AppendLeaves(nil, tree.Leaves()))
	f.Add([]byte("short"))
	f.Fuzz(func(t *testing.T, b []byte) {
		leaves, err := DecodeLeaves(b)
		if err != nil {
			var typed *LeavesError
			if leaves != nil || !errors.As(err, &typed) {
				t.Fatalf("refused with %v and %d leaves", err, len(leaves))
			}
			return
		}
		if again := AppendLeaves(nil, leaves); !bytes.Equal(again, b) {
			t.Fatalf("%x encodes as %x", b, again)
		}
	})
}

func BenchmarkTree(b *testing.B) {
	var tree Tree
	key := []byte("a key of some length")
	b.Run("update", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			tree.Update(LeafOf(KeyHash(key)), EntryHash(key, uint64(i)), EntryHash(key, uint64(i+1)))
		}
	})
	b.Run("root", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			tree.Root()
		}
	})
}
