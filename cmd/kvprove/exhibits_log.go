package main

// The tests that look for crashes, faults and damage of the whole engine.
const (
	crashTests  = "^TestCrash(AtEveryOperation|DuringRecovery)$"
	faultTests  = "^TestEveryOperationFails$"
	damageTests = "^TestDamageMatrix$"
	metaTests   = "^TestMetamorphic$"
	partTests   = "^TestRun(Parts|Model)$"
)

// logExhibits are bugs of the commit log, its recovery and its files.
var logExhibits = []exhibit{
	{
		name:  "ack-before-sync",
		story: "a synced write is acknowledged once the operating system has it",
		edits: []edit{{"wal/flush.go",
			"if err := g.seg.sync(g); err != nil {\n\t\treturn err\n\t}\n\tw.durable",
			"w.durable"}},
		pkg: "./lsm", run: crashTests,
	},
	{
		name:  "sync-error-ignored",
		story: "a failed fsync of the log is taken for a success (fsyncgate)",
		edits: []edit{{"wal/flush.go",
			"if err := s.file.Sync(); err != nil {",
			"if err := s.file.Sync(); err != nil && s.dirty == false {"}},
		pkg: "./lsm", run: faultTests,
	},
	{
		name:  "sync-error-retried",
		story: "after a failed fsync of the log the database heals as if the disk had been full",
		edits: []edit{{"lsm/commit.go",
			"return db.refuse(doing, err, diskFull(err))",
			"return db.refuse(doing, err, true)"}},
		pkg: "./lsm", run: faultTests + "|^TestVerdictOnEachFailure$",
	},
	{
		name:  "rotated-segment-not-synced",
		story: "a sync covers only the segment in use, not the one just rotated away",
		edits: []edit{{"wal/flush.go",
			"if err := s.sync(g); err != nil {\n\t\t\t\treturn err\n\t\t\t}",
			""}},
		pkg: "./lsm", run: crashTests,
	},
	{
		name:  "segment-directory-not-synced",
		story: "a new log segment takes records before its name is durable (rocksdb#5287)",
		edits: []edit{{"lsm/segment.go",
			"\tif err == nil {\n\t\terr = s.names.sync(mark)\n\t}\n",
			"\t_ = mark\n"}},
		pkg: "./lsm", run: crashTests,
	},
	{
		name:  "segment-header-not-synced",
		story: "a segment gets its name before its header is durable",
		edits: []edit{{"wal/header.go",
			"if err := f.Sync(); err != nil {",
			"if err := error(nil); err != nil {"}},
		pkg: "./lsm", run: crashTests,
	},
	{
		name:  "stale-frame-accepted",
		story: "a recycled segment has no nonce and positions are not compared (rocksdb#6351)",
		edits: []edit{
			{"lsm/segment.go", "Nonce: randomUint64()", "Nonce: 1"},
			{"wal/reader.go", "case r.pos != NoPos && h.pos != r.pos:", "case false:"},
		},
		pkg: "./lsm", run: crashTests,
	},
	{
		name:  "damage-taken-for-torn-tail",
		story: "damage in the middle of the log ends the replay without a word",
		edits: []edit{{"wal/recover.go",
			"if !w.any || c.x != NoPos",
			"if true || !w.any || c.x != NoPos"}},
		pkg: "./lsm", run: damageTests,
	},
	{
		name:  "frame-checksum-not-verified",
		story: "a log frame is replayed whatever its checksum",
		edits: []edit{{"wal/reader.go",
			"return uint32(r.digest.Sum64()) == sum, nil",
			"return uint32(r.digest.Sum64()) == sum || true, nil"}},
		pkg: "./lsm", run: crashTests,
	},
	{
		name:  "read-error-ends-replay",
		story: "EIO while the log is read is taken for zeros, the end of it (rocksdb#6288)",
		edits: []edit{{"wal/reader.go",
			"\tif err == nil || errors.Is(err, io.EOF) {\n\t\terr = io.ErrUnexpectedEOF\n\t}",
			"\tif err == nil || errors.Is(err, io.EOF) {\n\t\terr = io.ErrUnexpectedEOF\n\t}\n" +
				"\tif n < len(p) {\n\t\tclear(p[n:])\n\t\treturn nil\n\t}"}},
		pkg: "./lsm", run: faultTests,
	},
	{
		name:  "end-of-log-not-vouched",
		story: "a cleanly closed log that lost its last frames opens without a word",
		edits: []edit{{"lsm/replay.go",
			"if err == nil && result.End < db.logEnd {",
			"if err == nil && result.End < db.logEnd && false {"}},
		pkg: "./lsm", run: damageTests,
	},
	{
		name:  "missing-segment-ignored",
		story: "a log whose first segment is gone is replayed from the second (rocksdb#7701)",
		edits: []edit{
			{"lsm/replay.go", "if db.logSegment != 0 && (len(r.segments)",
				"if false && (len(r.segments)"},
			{"lsm/replay.go", "wal.Recover(r.segments, db.logStart, r.apply)",
				"wal.Recover(r.segments, wal.NoPos, r.apply)"},
		},
		pkg: "./lsm", run: damageTests,
	},
	{
		name:  "log-retired-before-flush",
		story: "a log segment is reused while the table that replaces it is not in the manifest",
		edits: []edit{
			{"lsm/flush.go", "\tif err := db.install(e, m); err != nil {",
				"\tdb.retireSegments(m.segment)\n\tif err := db.install(e, m); err != nil {"},
			{"lsm/flush.go", "\tdb.retireSegments(m.segment)\n\treturn nil", "\treturn nil"},
		},
		pkg: "./lsm", run: crashTests, budget: searchBudget,
	},
	{
		name:  "live-log-removed",
		story: "Open removes the log segment in use along with those that are replayed",
		edits: []edit{{"lsm/open.go",
			"case kind == fileLog && num < db.logSegment,",
			"case kind == fileLog && num <= db.logSegment,"}},
		pkg: "./lsm/metamorphic", run: metaTests,
	},
	{
		name:  "close-does-not-sync",
		story: "a clean Close writes the log but does not sync it",
		edits: []edit{
			{"wal/writer.go", "\t\t_ = w.Sync(NoPos)", "\t\t_ = w.Write(NoPos)"},
			{"wal/writer.go", "|| w.end == Pos(w.durable.Load()) && len(w.parts) == 0 {",
				"|| w.end == Pos(w.written.Load()) && len(w.parts) == 0 {"},
			{"wal/flush.go",
				"\tif err := s.sync(&g); err != nil {\n\t\treturn err\n\t}\n\tw.mu.Lock()",
				"\tw.mu.Lock()"},
		},
		pkg: "./lsm", run: crashTests,
	},
	{
		name:  "sequence-restarts",
		story: "after recovery sequence numbers go on from the last flush: old hides new",
		edits: []edit{{"lsm/replay.go",
			"\tdb.commit.lastSeq = r.last\n\tdb.published.init(r.last)",
			"\tdb.commit.lastSeq = db.lastSeq\n\tdb.published.init(db.lastSeq)"}},
		pkg: "./lsm/metamorphic", run: metaTests,
	},
	{
		name:  "sequence-not-in-manifest",
		story: "a flush does not tell the manifest its last sequence number (rocksdb#1458)",
		edits: []edit{{"lsm/flush.go",
			"logStart: m.next.start, lastSeq: m.lastSeq}",
			"logStart: m.next.start}"}},
		pkg: "./lsm/metamorphic", run: metaTests,
	},
	{
		name:  "full-disk-never-heals",
		story: "writes stay refused when the full disk has room again",
		edits: []edit{{"lsm/flush.go",
			"if f != nil && f.passes || f == nil && len(db.frozen) > 0 {",
			"if f == nil && len(db.frozen) > 0 {"}},
		pkg: "./lsm", run: "^TestFullDisk$",
	},
}
