package sstable

import (
	"encoding/hex"
	"os"
	"strings"
	"testing"
)

var goldenEntries = []entry{
	{MakeKey([]byte("apple"), 7, KindPut), []byte("red")},
	{MakeKey([]byte("apple"), 3, KindDelete), nil},
	{MakeKey([]byte("apricot"), 5, KindPut), []byte("orange")},
}

func TestGoldenTable(t *testing.T) {
	m := build(t, WriterOptions{Num: 7, UID: testUID}, goldenEntries)
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(strings.TrimSuffix(hex.Dump(m.data), "\n"), "\n") {
		if !strings.Contains(string(doc), "//\t"+line+"\n") {
			t.Errorf("line %d is not in the package comment:\n//\t%s", i, line)
		}
	}
	if err := open(t, m, nil).Verify(); err != nil {
		t.Fatal(err)
	}
}

func TestGoldenHash(t *testing.T) {
	for key, want := range map[string]uint64{
		"":                 0xef46db3751d8e999,
		"a":                0xd24ec4f1a98c6e5b,
		"apple":            0x5889a1c15c94729f,
		"0123456789abcdef": 0x5c5b90c34e376d0b,
	} {
		if got := Hash([]byte(key)); got != want {
			t.Errorf("Hash(%q) = %#x, want %#x", key, got, want)
		}
	}
}
