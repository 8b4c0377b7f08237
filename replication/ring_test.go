package replication

import (
	"fmt"
	"testing"
)

// TestPartitionOf: the values are for ever, data is stored by them.
func TestPartitionOf(t *testing.T) {
	for _, c := range []struct {
		key       string
		partition Partition
		leaf      int
	}{
		{"", 957, 27}, // 0xef46db3751d8e999
		{"a", 841, 59},
		{"apple", 354, 38},
		{"{cart7}", 616, 64},
		{"{cart7}a", 616, 4},
		{"cart7", 616, 144},
		{"{}a", 120, 122},
	} {
		key := []byte(c.key)
		part, leaf := PartitionOf(key), LeafOf(KeyHash(key))
		if part != c.partition || leaf != c.leaf {
			t.Errorf("%q is in partition %d, leaf %d; want %d, %d", c.key, part, leaf,
				c.partition, c.leaf)
		}
		if byHash := Partition(KeyHash(key) >> 54); byHash != part {
			t.Errorf("%q is in partition %d by its hash, in %d by itself", c.key, byHash, part)
		}
	}
}

func TestHashTag(t *testing.T) {
	for key, want := range map[string]string{
		"":            "",
		"plain":       "plain",
		"{user}":      "user",
		"a{user}b":    "user",
		"a{user}{b}":  "user",
		"a{{user}}b":  "{user",
		"a{}b{user}":  "a{}b{user}",
		"a{user":      "a{user",
		"a}user{":     "a}user{",
		"a}b{user}":   "user",
		"{\x00}\xff}": "\x00",
	} {
		if got := string(hashTag([]byte(key))); got != want {
			t.Errorf("tag of %q is %q, want %q", key, got, want)
		}
	}
}

// TestKeysSpread: keys that differ little are spread evenly over partitions and leaves, and keys
// of one tag over the leaves of their partition.
func TestKeysSpread(t *testing.T) {
	const each = 100
	var partitions [Partitions]int
	var leaves, tagged [Leaves]int
	for i := range each * Partitions {
		key := fmt.Appendf(nil, "key%08d", i)
		partitions[PartitionOf(key)]++
		leaves[LeafOf(KeyHash(key))]++
	}
	for i := range each * Leaves {
		key := fmt.Appendf(nil, "{tag}%08d", i)
		if PartitionOf(key) != PartitionOf([]byte("tag")) {
			t.Fatalf("%s is not in the partition of its tag", key)
		}
		tagged[LeafOf(KeyHash(key))]++
	}
	check := func(what string, counts []int, mean int) {
		chi := 0.0 // has mean len(counts) and variance twice that
		for _, n := range counts {
			chi += float64((n-mean)*(n-mean)) / float64(mean)
		}
		if chi > 1.3*float64(len(counts)) {
			t.Errorf("%s: chi squared is %.0f of %d", what, chi, len(counts))
		}
	}
	check("partitions", partitions[:], each)
	check("leaves", leaves[:], each*Partitions/Leaves)
	check("leaves of a tag", tagged[:], each)
}
