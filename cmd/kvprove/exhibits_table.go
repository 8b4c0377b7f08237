package main

// tableExhibits are bugs of tables, their filters and their cache.
var tableExhibits = []exhibit{
	{
		name:  "block-checksum-not-verified",
		story: "a block is served whatever its checksum",
		edits: []edit{{"sstable/reader.go",
			"if binary.LittleEndian.Uint32(stored[n:]) != sum {",
			"if binary.LittleEndian.Uint32(stored[n:]) != sum && false {"}},
		pkg: "./lsm", run: damageTests,
	},
	{
		name:  "checksum-without-place",
		story: "checksums do not know table and offset: stale and misplaced blocks verify",
		edits: []edit{{"sstable/format.go",
			"{ return uid ^ offset*0x9e3779b97f4a7c15 }",
			"{ return 0 }"}},
		pkg: "./lsm", run: damageTests, budget: searchBudget,
	},
	{
		name:  "filter-false-negative",
		story: "the filter does not know the last key of a table",
		edits: []edit{{"sstable/bloom.go",
			"for _, h := range hashes {",
			"for _, h := range hashes[:max(len(hashes)-1, 0)] {"}},
		pkg: "./lsm/metamorphic", run: metaTests,
	},
	{
		name:  "filter-probes-differ",
		story: "the filter is asked for a bit more than was set",
		edits: []edit{{"sstable/bloom.go",
			"for range f.probes {",
			"for range f.probes + 1 {"}},
		pkg: "./sstable", run: "^TestFilter|^TestTableAgainstModel$",
	},
	{
		name:  "separator-after-next",
		story: "the separator of two blocks may be the first key of the second",
		edits: []edit{{"sstable/index.go",
			"if last[c]+1 < next[c] {",
			"if last[c] < next[c] {"}},
		pkg: "./sstable", run: "^TestSeparator$|^TestTableAgainstModel$",
	},
	{
		name:  "versions-cut-at-block",
		story: "a Get does not look into the next block for older versions of its key",
		edits: []edit{{"sstable/reader.go",
			"if !past || !r.index.isSeparator(i, user) {",
			"if !past || r.index.isSeparator(i, user) || true {"}},
		pkg: "./lsm/metamorphic", run: metaTests,
	},
	{
		name:  "key-head-signed",
		story: "keys that differ above 0x7f in their first bytes are in the wrong order",
		edits: []edit{{"sstable/index.go",
			"if heads[lo+half] < h {",
			"if int64(heads[lo+half]) < int64(h) {"}},
		pkg: "./lsm/metamorphic", run: metaTests,
	},
	{
		name:  "value-aliases-cache",
		story: "an append to a value overwrites the next entry in the cached block",
		edits: []edit{{"sstable/block.go",
			"e := b.data[start:end:end]",
			"e := b.data[start:end]"}},
		pkg: "./sstable", run: "^TestAppendToValue",
	},
	{
		name:  "pinned-block-overwritten",
		story: "the cache overwrites an evicted block that an iterator is on",
		edits: []edit{{"sstable/cachelog.go", "case f.pins.Load() != 0:", "case false:"}},
		pkg:   "./sstable", run: "^TestPinnedBlocksAreIslands$|^TestEvictionStorm$",
	},
	{
		name:  "evicted-under-its-reader",
		story: "the cache overwrites an evicted block at once, while a Get reads it",
		edits: []edit{{"sstable/cache.go",
			"c.log.retire(c.readers.Mark())", "c.log.retire(0)"}},
		pkg: "./sstable", run: "^TestSlowReaderKeepsWhatItSees$",
	},
}

// nodeExhibits are bugs of the daemon.
var nodeExhibits = []exhibit{
	{
		name:  "node-forgets-durability",
		story: "the node takes every put for one without sync",
		edits: []edit{{"replication/node.go",
			"n.db.ApplyContext(ctx, b, r.durability)",
			"n.db.ApplyContext(ctx, b, lsm.NoSync)"}},
		pkg: "./cmd/kvd", run: "^TestProcess", budget: searchBudget,
	},
	{
		name:  "node-exits-without-close",
		story: "SIGTERM ends the node without closing the database",
		edits: []edit{{"cmd/kvd/serve.go",
			"defer func() { err = errors.Join(err, db.Close()) }()",
			"defer func() { err = errors.Join(err, nil) }()"}},
		pkg: "./cmd/kvd", run: "^TestProcess", budget: searchBudget,
	},
}
