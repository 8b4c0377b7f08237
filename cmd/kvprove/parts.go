package main

// part is a share of the programme.
type part struct {
	name  string
	pkg   string // "" runs every fuzz target there is
	run   string // regular expression of the tests
	share int    // of the budget, relative to the other parts
	tests int    // that search, one after the other: each gets its part of the share
	what  string
}

// parts are in the order in which they run.
var parts = []part{
	{"metamorphic", "./lsm/metamorphic", "^TestMetamorphic$", 12, 1,
		"one history under many option sets, equal to each other and to a map"},
	{"faults", "./lsm", "^TestEveryOperationFails$", 12, 1,
		"each file system operation fails, in every way, once and for ever"},
	{"crash", "./lsm", "^TestCrash(AtEveryOperation|DuringRecovery)$", 28, 2,
		"the power fails at each file system operation, and again in the recovery"},
	{"damage", "./lsm", "^TestDamageMatrix$|^TestEveryByteFlipped$|^TestLogFlipped", 5, 1,
		"each unit of each file is flipped, zeroed, stale, swapped, cut, missing, unreadable"},
	{"salvage", "./lsm", "^TestSalvage(Faults|Crashes)?$", 3, 2,
		"what a damaged database still holds is written to a new one"},
	{"scrub", "./lsm", "^TestScrub", 2, 2,
		"damage under an open database is found, and no undamaged file accused"},
	{"processes", "./cmd/kvd", "^TestProcess", 18, 2,
		"a real node under load is killed, terminated, stopped, and its disk fills up"},
	{"cluster", "./replication", "^Test(Simulation|Register)$", 20, 1,
		"whole clusters in a simulation: crashes, partitions, lost disks, wrong clocks"},
	{"chaos", "./cmd/kvd", "^TestClusterChaos$", 12, 1,
		"real clusters: nodes are killed, stopped, cut off, and lose their disk"},
	{"fuzz", "", "", 20, 1,
		"every decoder meets bytes that nobody wrote"},
}
