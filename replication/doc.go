// Package replication answers clients: it is what turns an engine into a node.
//
// # What it promises
//
// A [Node] serves one database. A [Client] asks it, with the verbs of the engine and the engine's
// own errors. What the engine promises holds over the network too: a Put with lsm.Sync that
// returned nil survives a loss of power. A write without an answer is its own outcome,
// [ErrInDoubt], never dressed up as a failure.
//
// # How it works
//
// One request is one message, one answer is one message. Who carries them is not the package's
// business: the node is a handler and the client takes a [Caller], both met by shape.
//
//	Client.Put ─ message.go ─ Caller ··· network ··· Node.TryCall or Node.Call ─ node.go ─ lsm.DB
//
// Requests that need no waiting are answered by TryCall on the goroutine that reads the
// connection: gets and unsynced writes, which allocate nothing there. Everything else goes
// through Call, where the callers of synced writes queue up and share one sync of the log.
//
// A scan travels in pages. Each names the key that the next one starts at, so the node keeps no
// state between them and a scan survives a restart of the node.
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
// docs/protocol.md has every kind and every status. A message holds at most [MaxMessageBytes];
// a length in a message is only ever compared with the bytes that are there, so a message costs
// no more memory than its own size.
package replication
