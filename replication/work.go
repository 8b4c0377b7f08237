package replication

import "kvd/lsm"

// WorkKind is what the core wants done with the store.
type WorkKind uint8

const (
	WorkUpdate      WorkKind = iota + 1 // read, give the write a dot, merge, write
	WorkMerge                           // read, merge an object that came, write
	WorkRead                            // read one object
	WorkHint                            // note that Target is owed Key
	WorkHintScan                        // a page of what Target is owed
	WorkHintDone                        // Target has what Key held
	WorkDigests                         // keys and digests of some leaves of a partition
	WorkObjects                         // objects of some leaves of a partition, or of Entries
	WorkBuild                           // make the tree of a partition
	WorkDeleted                         // find deleted objects of a partition
	WorkCheck                           // which of some deleted objects are still the same
	WorkDrop                            // forget deleted objects that are still the same
	WorkScan                            // a page of a partition, for a client
	WorkScanDigest                      // its digest
	WorkIncarnation                     // settle which incarnation this life has
	WorkCaughtUp                        // the store has what others have
)

// Work is one thing to do with the store, and which part of the core waits for it. The core makes
// it, Replica.Do does it and fills Result in, and the core gets it back.
type Work struct {
	Kind WorkKind
	// Who waits: an operation of the core, or a peer that asked.
	ID   uint64
	From NodeID
	For  purpose

	Part       Partition
	Key        []byte
	Durability lsm.Durability
	WallMillis int64 // time of day, for the stamps of writes

	// Update: the value and what its writer had seen. A blind write has seen what is here.
	Value     []byte
	Seen      Clock
	Newest    Stamp // of what its writer had seen
	Blind     bool
	Tombstone bool

	Object  Object   // merge
	Targets []uint32 // update, merge: nodes that are owed the result; hints
	Target  uint32   // hint scan and done
	Digest  uint64   // hint done: of the object that was handed over
	After   []byte   // pages: start behind this key
	Lower   []byte   // scan
	Upper   []byte
	Limit   int           // entries of a page
	Leaves  *[Leaves]bool // digests, objects
	Entries []entry       // check, drop
	Number  uint32        // incarnation

	hurried bool // must not wait: see Replica.TryDo

	Result Result
}

// bytes is how much the work writes at least.
func (w *Work) bytes() int {
	n := len(w.Value)
	for i := range w.Object.Siblings {
		n += len(w.Object.Siblings[i].Value)
	}
	return n
}

// Result is what came of a Work.
type Result struct {
	Err     error
	Object  Object  // update, merge, read: what is there now
	Encoded []byte  // its encoding, when it was at hand
	Changed bool    // merge: the store changed
	Durable bool    // phase: false when applied, true once as durable as was asked
	Entries []entry // pages
	More    bool    // pages: this was not all
	Any     bool    // check: something stands against forgetting in this partition
	Digest  uint64  // scan digest: see pageSum
}

// entry is one object of a page.
type entry struct {
	part    Partition
	key     []byte
	digest  uint64
	stamp   Stamp
	object  []byte // encoded; nil where only digests are asked for
	damaged bool   // hints: it cannot be read
}

// arena keeps copies of keys and objects in chunks, for a page of them. With it, and answers that
// are made as large as they will be, one caller's scan of three nodes went from 51 to 62 MB/s.
// Whoever keeps one copy keeps its chunk.
type arena struct{ chunk []byte }

const (
	firstChunkBytes = 1 << 10
	lastChunkBytes  = 32 << 10
)

func (a *arena) copy(b []byte) []byte {
	if len(b) > cap(a.chunk)-len(a.chunk) {
		bytes := max(min(2*cap(a.chunk), lastChunkBytes), firstChunkBytes, len(b))
		a.chunk = make([]byte, 0, bytes)
	}
	at := len(a.chunk)
	a.chunk = append(a.chunk, b...)
	return a.chunk[at:len(a.chunk):len(a.chunk)]
}

// purpose tells the core what to do with a Work that is done.
type purpose uint8

const (
	forNothing   purpose = iota
	forPut               // local part of a coordinated write
	forGet               // local part of a coordinated read
	forRepair            // local part of a read repair
	forPeerWrite         // a peer's write
	forPeerRead          // a peer's read
	forHandoff           // hint replay
	forSync              // anti-entropy
	forCollect           // collecting tombstones
	forScan
	forIncarnation
)
