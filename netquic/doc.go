// Package netquic carries bytes over QUIC and knows nothing of what they mean: calls of clients, of
// which a request goes out and an answer comes back by a deadline, and one-way messages between the
// nodes of a cluster.
//
// # What it promises
//
// A call of [Client.Call] ends by its deadline whatever the server or the network does, and its
// outcome is one of three: the answer; an error after which the request certainly had no effect;
// or an error that matches [ErrInDoubt], when it was sent and nothing is known of it. Only the
// second kind is ever sent again, by the client itself, within the deadline. An answer that comes
// late is dropped, never given to another call.
//
// A [Server] answers as many calls at once as its limits say and refuses the rest at once.
// [Server.Shutdown] loses nothing: what runs is finished and its answer delivered, and the client
// is told that whatever is unanswered was never started.
//
// Bad bytes close the connection with a [Reason], counted in [Metrics]. The memory they can take
// is bounded by what has arrived, not by what a length field says.
//
// A message of [Peers.Send] is queued or dropped at once. Queued, it arrives once at most, in order
// with the others of its [Class] and connection, unless that ends before; [Gossip] may get lost and
// be overtaken besides. Two nodes find each other again by themselves after whatever kept them
// apart, and [PeerHandler] is told. A peer that takes nothing costs what its queue may hold.
//
// # How it works
//
// A client holds one connection (or a few) and on it one lane (or a few): a bidirectional QUIC
// stream that lives as long as the connection. Requests and answers are frames on a lane; answers
// come in any order and find their caller by the request's id. Each end of a lane has a goroutine
// that reads, with a buffer large enough to take many frames at a time, and one that writes
// everything queued in one go, while the next group gathers (groupWriter). What an operation costs
// is system calls and goroutine switches, and groups share them.
//
// The server's reading goroutine asks the Handler's TryCall first; answers it gives are queued
// together at the end of the read batch. What only waits for a disk a [Deferrer] does at once as
// well, and one goroutine of the lane waits for all such calls together, and a moment for those it
// has just answered to join them (settler). What a [Starter] takes begins at the end of the batch,
// together, and is answered later from wherever the answer comes. The rest go each to a goroutine
// of a pool, and before they start wait until there is room for their answers (answerGate). Who has
// an answer waits in turn for room in the queue of the lane, small ones not for large ones (room).
//
// A client's call is a slot in its lane's table (call). The id of a request names the slot and how
// often it has been used. Neither end allocates per call.
//
// Between nodes each end opens a connection of its own and sends on that only (peer, peerLink);
// what the others send comes on theirs (peerConn). So there is nothing to agree on when both
// connect at once. The writers are the same; a message that finds too much queued is dropped.
//
// What is left is the price of waking threads. A program that asks or answers much calls
// [KeepMonitorAwake] first, which takes one of them out of it; package procs takes out more. With
// procs.Follow, and a processor to spare, both ends poll for a packet that is expected within half
// a millisecond (pollingSocket): then nobody sleeps between a request and its answer.
//
// # Identity
//
// A server is its key: [EnsureIdentity] makes one at the first start. A client knows the key's
// hash beforehand ([Options].Pin) or remembers it at first contact with a loopback address
// ([Options].KnownServers). The reset key that is kept beside it lets a restarted server disown
// connections of its former life at the first packet.
//
// A cluster is an [Authority] ([CreateAuthority]), which signs who is a node and who is a client
// ([IssueNode], [IssueClient], [LoadCluster]). Nodes show each other their certificates, and who is
// not in the list of peers is refused in the handshake. Clients may know a node by its pin, as
// before, or by its authority ([Options].Authority), and may have to show a certificate themselves
// ([Options].RequireClientCert).
//
// # The format
//
// All integers are little endian. A frame is
//
//	length u32   bytes after this field, at most the frame limit
//	kind   u8    1 request (client to server), 2 answer (server to client)
//	id     u64   chosen by the client, repeated in the answer
//	request: u32 milliseconds the caller still has (0: do not execute), then the request
//	answer:  u8 status, then
//	           0 ok: the answer
//	           1 error of the application: u32 code, then the message
//	           2 overloaded, 3 draining, 4 expired: nothing; not executed
//	           5 answer too large: nothing; executed
//
// A request "hi" with five seconds left on slot 3, its answer "hi", an application's error 7
// "oops", and a refusal:
//
//	0f000000 01 0300100000000000 88130000 6869
//	0c000000 02 0300100000000000 00 6869
//	12000000 02 0300100000000000 01 07000000 6f6f7073
//	0a000000 02 0300100000000000 02
//
// Between nodes a frame has the length, the kind, 3, and the message; the node that was connected
// to says by kind 4 that it has let the other in; a frame of kind 5 is ignored. A message "hi", the
// welcome, and a probe of two bytes:
//
//	03000000 03 6869
//	01000000 04
//	03000000 05 0000
//
// docs/wire.md has the whole protocol.
//
// # Measured
//
// BenchmarkEcho, 150 bytes, both ends in one process on two cores, in thousand calls a second:
//
//	callers       1    16    64   256
//	TryCall      25   212   359   415
//	Call         28   195   305   442
//
// BenchmarkPeerSend, messages of 150 bytes, each sender waiting until its message has arrived, in
// thousand messages a second, and one that does not wait:
//
//	senders       1    16    64   one, not waiting
//	             50   345   460   940
//
// What lost, in processor time per call with 64 callers, where one lane with waiting groups takes
// 2.6 us: groups that do not wait 8.6 us, two lanes 4.8 us, two connections 8.0 us.
package netquic
