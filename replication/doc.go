// Package replication makes nodes of engines, and clusters of nodes.
//
// A [Node] serves one database to clients over a network. A [Cluster] is a node of many: keys are
// spread over them, each on several, writes go on while some are down, and the consistency of a
// request is what it asks for. A [Client] asks a node, a [ClusterClient] a cluster.
//
// # What a cluster promises
//
// A write that was acknowledged at W is durable on W nodes. It is lost only with all of them. It
// stays until a write that had seen it replaces it: writes that have not seen each other are both
// kept, or in a bucket that wants it so, the later one. With strict quorums and R + W > N a read
// returns the latest acknowledged write, while those of its W nodes that have lost their disk or
// are down are not all of them. After failures all replicas become equal by themselves.
// docs/cluster.md says what each level means and what a failure looks like.
//
// # The life of a put
//
//	ClusterClient.Put ─ an owner of the key ─ Core.startPut ─ Replica.update: dot, merge, write
//	                                            ├─ to the other owners ─ Replica.merge ─ ack
//	                                            ├─ to who stands in for one that is down
//	                                            └─ W acks: answer; late or none: a hint
//
// # Core and shell
//
// [Core] is the logic of a node as a state machine: [Core.Step] takes an [Event] (a request, a
// message, work done by the store, a connection, time) and returns [Effect]s (messages, work,
// answers). It starts no goroutine, reads no clock and waits for nothing. Cluster is what is around
// it: it gives the core what has come together, does the work on a [Replica], whose reads and
// writes are those of the engine, at once unless it would have to wait, and shares one sync among
// all that gathered during the last.
//
// So whole clusters run in one goroutine, on a simulated network (package simnet) and simulated
// disks, and do the same again for the same seed. sim_test.go draws clusters and what befalls
// them; sim_check_test.go says what must hold.
//
// # Reading order
//
//	version.go, object.go      dots, clocks, siblings, contexts: what is known of a key
//	ring.go, placement.go      which nodes hold it (shares.go, assign.go: how that is decided)
//	store.go, replica.go       the read-merge-write of one node, its trees and hints (trydo.go,
//	                           life.go: which of its lives a node is in)
//	core.go                    events, effects, messages of peers
//	put.go, get.go, level.go   coordinating
//	member.go, detector.go     who is up
//	hint.go, handoff.go        what is owed to nodes that were away
//	merkle.go, sync.go         what differs between replicas (behind.go: after a disk was lost)
//	collect.go                 forgetting what was deleted
//	cluster.go, step.go        around the core (syncer.go: what has to be durable)
//	clusterclient.go
//
// # The messages
//
// A request is a kind byte and what that kind needs; an answer is a status byte, 0 for success,
// and a body. Numbers are unsigned varints in their shortest form; a field is its length as such
// a number and its bytes. Nothing may follow the last part. Put "k" "v" with durability Sync (0),
// and its answer:
//
//	03 00 01 6b 01 76
//	00
//
// Get "k", and the two answers it may have, "v" and not found:
//
//	02 01 6b
//	00 76
//	01
//
// docs/protocol.md has every kind and every status, also of clusters. A message holds at most
// [MaxMessageBytes]; a length in a message is only ever compared with the bytes that are there, and
// counts of what takes more memory than bytes are bounded: so a message costs no more than a few
// times its own size and 2 MiB. Messages between nodes are in peermessage.go.
package replication
