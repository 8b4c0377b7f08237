package main

import "testing"

// Nodes whose --buckets say the same are of one cluster, however they are written.
func TestBucketsThatSayTheSame(t *testing.T) {
	if _, _, err := parseBuckets("a/b=lww"); err == nil {
		t.Error("no key is in the bucket a/b")
	}
	digest := func(list string) uint64 {
		_, d, err := parseBuckets(list)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if d := digest(""); d != 0 || digest("a=siblings") != 0 {
		t.Errorf("siblings everywhere: %x, and %x", d, digest("a=siblings"))
	}
	if digest("a=lww,b=lww") != digest("b=lww, c=siblings, a=lww") {
		t.Error("the order changes what it means")
	}
	if digest("a=lww") == digest("b=lww") || digest("a=lww") == digest("a=lww,b=lww") {
		t.Error("two that differ are taken for the same")
	}
}
