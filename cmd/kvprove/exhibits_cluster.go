package main

// The bugs of clusters. Most are found by the simulation, which draws hundreds of clusters and what
// they have to live through; some need a story of their own.

const (
	simTests      = "^TestSimulation$"
	registerTests = "^TestRegister$"
)

var clusterExhibits = []exhibit{
	{
		name:  "counter-reused-after-restart",
		story: "a node that restarts gives out dots of the life before (riak_kv#679)",
		edits: []edit{{"replication/store.go", "return max(last+1, seconds)",
			"return max(last, seconds/1e9)"}},
		pkg: "./replication", run: simTests,
	},
	{
		name:  "sibling-dropped-on-merge",
		story: "of two values that had not seen each other a merge keeps one",
		edits: []edit{{"replication/object.go", "if !a.Clock.Covers(y[0].Dot) {",
			"if len(x) == 0 && !a.Clock.Covers(y[0].Dot) && len(o.Siblings) == 0 {"}},
		pkg: "./replication", run: simTests + "|^TestMergeLaws$",
	},
	{
		name:  "received-object-replaces",
		story: "a replica takes what it is sent instead of merging it with what it has",
		edits: []edit{{"replication/replica.go",
			"next := Merge(old, w.Object, r.policy(w.Key))", "next := w.Object"}},
		pkg: "./replication", run: simTests,
	},
	{
		name:  "one-node-counts-twice",
		story: "W counts a node for each owner that it stands in for, and for itself",
		edits: []edit{{"replication/put.go", "nodes = append(nodes, p.targets[i].node)",
			"nodes = append(nodes, p.targets[i].node, p.targets[i].node)"}},
		pkg: "./replication", run: simTests,
	},
	{
		name:  "acknowledged-before-durable",
		story: "a replica acknowledges a write when it is visible",
		edits: []edit{{"replication/core.go",
			"\tif w.Result.Err == nil && !w.Result.Durable {\n\t\treturn\n\t}\n\tif " +
				"w.Result.Err == nil && w.Result.Changed {",
			"\tif w.Result.Err == nil && w.Result.Changed {"}},
		pkg: "./replication", run: simTests,
	},
	{
		name:  "strict-counts-stand-ins",
		story: "a strict quorum is filled up with nodes that are no owners",
		edits: []edit{{"replication/put.go",
			"sloppy := !op.Strict && !c.cfg.off.sloppy", "sloppy := !c.cfg.off.sloppy"}},
		pkg: "./replication", run: simTests,
	},
	{
		name:  "hints-lost-on-restart",
		story: "a node that restarts does not know of the hints in its store",
		edits: []edit{{"replication/hint.go", "h.count[m.ID.Number()] = n",
			"h.count[m.ID.Number()] = n * 0"}},
		pkg: "./replication", run: simTests,
	},
	{
		name:  "hint-forgotten-when-sent",
		story: "a hint goes when its object is sent, not when it has arrived",
		edits: []edit{{"replication/handoff.go",
			"\t\tc.Counts.HintsSent++\n", "\t\tc.Counts.HintsSent++\n" +
				"\t\th.forget(c, handed{part: e.part, key: e.key, digest: e.digest})\n"}},
		pkg: "./replication", run: "^TestHintsSurviveLoss$",
	},
	{
		name:  "handoff-forgets-newer-write",
		story: "a stand-in drops a key when an older state of it was handed over",
		edits: []edit{{"replication/hint.go", "if o.Digest() != w.Digest {",
			"if len(o.Clock) == 0 {"}},
		pkg: "./replication", run: "^TestHandoffKeepsWhatIsNewer$",
	},
	{
		name: "tombstone-collected-beside-hints",
		story: "a tombstone is forgotten while somebody keeps an old value for a node (" +
			"scylladb#23712)",
		edits: []edit{{"replication/collect.go", "if m.ack != ackOK || m.flags&flagAny != 0 {",
			"if m.ack != ackOK {"}},
		pkg: "./replication", run: "^TestTombstonesStayBesideHints$",
	},
	{
		name:  "tombstone-collected-by-some",
		story: "a tombstone is forgotten when one owner has it, not all",
		edits: []edit{{"replication/collect.go", "r.agreed[string(e.key)] == len(owners) {",
			"r.agreed[string(e.key)] >= 1 {"},
			{"replication/collect.go", "\tif len(r.waiting) > 0 {\n\t\treturn\n\t}\n", ""},
			{"replication/collect.go", "if !c.allReachable() {", "if false {"},
			{"replication/core.go", "\t\tc.collect.someoneLeft()\n", ""}},
		pkg: "./replication", run: simTests + "|^TestTombstonesStayWhileANodeIsAway$",
		budget: searchBudget,
	},
	{
		name:  "tombstones-not-in-trees",
		story: "the trees leave deleted keys out: a missed delete is not found",
		edits: []edit{{"replication/replica.go", "\tif len(o.Clock) == 0 {\n\t\treturn 0\n" +
			"\t}\n\treturn EntryHash",
			"\tif len(o.Clock) == 0 || o.Deleted() {\n\t\treturn 0\n\t}\n\treturn EntryHash"}},
		pkg: "./replication", run: "^TestTreesCompareTombstones$",
	},
	{
		name:  "passed-on-twice",
		story: "a write that another node passed on is done again when the message comes twice",
		edits: []edit{{"replication/request.go", "if c.served[o] {", "if false {"}},
		pkg:   "./replication", run: simTests,
	},
	{
		name:  "context-ignored",
		story: "a write replaces nothing although it has seen it: siblings explode (riak_kv#746)",
		edits: []edit{{"replication/replica.go", "\tseen := w.Seen\n", "\tseen := Clock(nil)\n"}},
		pkg:   "./replication", run: "^TestSiblingsStayUntilTheyAreSeen$",
	},
	{
		name:  "read-joins-a-running-one",
		story: "a read uses answers that were asked for before a write that it must see",
		edits: []edit{{"replication/get.go", "g.next = append(g.next, waiter{from, deadline})",
			"g.waiters = append(g.waiters, waiter{from, deadline})"}},
		pkg: "./replication", run: registerTests + "|^TestEqualReadsShareAnswers$",
	},
	{
		name:  "differing-digest-ignored",
		story: "a read answers with the first object although another replica has another",
		edits: []edit{{"replication/get.go", "a.state != askedAnswered || full && a.digest " +
			"== digest {",
			"a.state != askedAnswered || full {"}},
		pkg: "./replication", run: registerTests,
	},
	{
		name:  "read-goes-back",
		story: "a read answers before the replicas that are behind have what it found",
		edits: []edit{{"replication/get.go", "\tif g.need == 1 {\n\t\tg.end(c, g.success(" +
			"c)) // nothing",
			"\tif g.need >= 1 {\n\t\tg.end(c, g.success(c)) // nothing"}},
		pkg: "./replication", run: registerTests, budget: 0,
	},
	{
		name:  "stamp-below-what-was-seen",
		story: "by a slow clock a write gets a stamp below that of a value that it replaces",
		edits: []edit{{"replication/replica.go", "max(old.MaxStamp(), w.Newest))", "0)"},
			{"replication/replica.go", "own := max(uint64(wallMillis)<<16, last+1)",
				"own := uint64(wallMillis) << 16"},
			{"replication/replica.go", "next := max(own, uint64(seen)+1)", "next := own"}},
		pkg: "./replication", run: simTests, budget: searchBudget,
	},
	{
		name:  "stand-in-counts-on",
		story: "a node that has forgotten its own writes of a key says that it has seen them",
		edits: []edit{{"replication/replica.go", "if p.forgot == r.incarnation.Load() {",
			"if false {"}},
		pkg: "./replication", run: "^TestStandInDoesNotCoverWhatItForgot$",
	},
	{
		name:  "write-without-end",
		story: "a write that is never acknowledged is never answered",
		edits: []edit{{"replication/put.go", "case !waiting || c.now.Since >= p.deadline:",
			"case !waiting:"}},
		pkg: "./replication", run: simTests,
	},
	{
		name:  "differing-page-ignored",
		story: "a scan answers with the page it has although another replica's is another",
		edits: []edit{{"replication/scanop.go", "if !slices.Contains(here, p.digest) {",
			"if len(here) == 0 {"}},
		pkg: "./replication", run: "^TestScanFetchesPagesThatDiffer$",
	},
	{
		name:  "tried-write-taken-for-done",
		story: "a write that would have to wait is acknowledged without having been done",
		edits: []edit{{"replication/trydo.go",
			"if !done {\n\t\treturn errWouldWait\n\t}\n\treturn err",
			"if !done {\n\t\treturn nil\n\t}\n\treturn err"}},
		pkg: "./replication", run: simTests,
	},
	{
		name:  "lost-disk-is-a-witness",
		story: "reads of a node that has lost its disk count before it has back what it had",
		edits: []edit{{"replication/behind.go",
			"left := c.behind[part]\n\tif len(left) == 0 {",
			"left := c.behind[part]\n\tif len(left) >= 0 {"}},
		pkg: "./replication", run: "^TestEmptyDiskIsNoWitness$",
	},
	{
		name:  "empty-disk-forgotten-on-restart",
		story: "a node that stops before it knows which life it is in does not ask the next time",
		edits: []edit{{"replication/life.go", "\t\tb.Put(freshKey, nil)\n", ""}},
		pkg:   "./replication", run: "^TestEmptyDiskIsRememberedAcrossARestart$",
	},
	{
		name:  "lives-of-others-not-stored",
		story: "after a restart of all nobody knows in which life a node had written",
		edits: []edit{{"replication/life.go",
			"\t\t\tb.Put(binary.BigEndian.AppendUint32(key, n), nil)\n",
			"\t\t\t_ = key\n"}},
		pkg: "./replication", run: "^TestLivesAreKnownAfterARestartOfAll$",
	},
	{
		name:  "owners-take-too-much",
		story: "owners take of one key what fits no object when they meet",
		edits: []edit{{"replication/object.go",
			"return (lsm.MaxValueBytes - clockRoomBytes) / max(n, 3)",
			"return lsm.MaxValueBytes - clockRoomBytes"}},
		pkg: "./replication", run: "^TestValuesTakenApartFitTogether$",
	},
	{
		name:  "hint-in-doubt-not-counted",
		story: "a hint that is visible and not yet logged is owed to nobody",
		edits: []edit{{"replication/hint.go",
			"if errors.Is(err, lsm.ErrInDoubt) { // visible\n\t\t\tr.hints.add(fresh, 1)\n\t\t}",
			"if errors.Is(err, lsm.ErrInDoubt) { // visible\n\t\t}"}},
		pkg: "./replication", run: "^TestHintInDoubtIsCounted$",
	},
}
