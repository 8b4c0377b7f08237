package main

import (
	"kvd/netquic"
	"kvd/replication"
)

// cluster emits what the core of a node of a cluster has counted.
func (e emitter) cluster(r replication.Ring, c replication.CoreCounts) {
	states := map[string]int{"alive": 0, "suspect": 0, "down": 0}
	for _, m := range r.Members {
		states[m.State]++
		if m.ID != r.Self {
			e.gauge("kvd_hints_pending", "Keys that another node is owed.", float64(m.Hints),
				"peer", string(m.ID))
		}
		if m.ID == r.Self {
			e.gauge("kvd_partitions", "Partitions that this node holds.", float64(m.Partitions))
			e.gauge("kvd_incarnation", "Which of its lives this node is in.",
				float64(m.Incarnation))
		}
	}
	for state, n := range states {
		e.gauge("kvd_gossip_members", "Members of the cluster as this node sees them.",
			float64(n), "state", state)
	}
	e.gauge("kvd_placement_epoch", "Epoch of the placement in force.", float64(r.Epoch))
	for _, x := range []struct {
		name, help string
		n          uint64
	}{
		{"kvd_reads_hedged_total", "Reads that asked one more because one was slow.", c.Hedged},
		{"kvd_reads_shared_total", "Reads that shared the answers of an equal one.", c.Shared},
		{"kvd_reads_siblings_total", "Reads answered with several values.", c.Siblings},
		{"kvd_read_repairs_total", "Replicas brought up to date by a read.", c.RepairsSent},
		{"kvd_requests_forwarded_total", "Writes passed on to an owner.", c.Forwarded},
		{"kvd_requests_overloaded_total", "Requests refused because too many were under way.",
			c.Overloaded},
		{"kvd_requests_unavailable_total", "Requests for which too few replicas answered.",
			c.Unavailable},
		{"kvd_requests_in_doubt_total", "Writes that were begun and not confirmed.", c.InDoubt},
		{"kvd_sloppy_writes_total", "Writes sent to nodes that stand in.", c.StoodIn},
		{"kvd_hints_sent_total", "Objects handed over to nodes that were owed them.", c.HintsSent},
		{"kvd_hints_sent_bytes_total", "Keys and objects of these.", c.HintBytesSent},
		{"kvd_hints_dropped_total", "Hints not made beyond the limit: trees make up for them.",
			c.HintsDropped},
		{"kvd_hints_received_total", "Objects that others had kept for it.", c.HintsReceived},
		{"kvd_antientropy_rounds_total", "Comparisons of trees begun.", c.SyncRounds},
		{"kvd_antientropy_equal_total", "Comparisons that found nothing different.", c.SyncEqual},
		{"kvd_antientropy_sent_total", "Objects sent because trees differed.", c.SyncSent},
		{"kvd_antientropy_sent_bytes_total", "Keys and objects of these.", c.SyncBytesSent},
		{"kvd_objects_merged_total", "Writes of other nodes that changed something.", c.Merged},
		{"kvd_tombstones_collected_total", "Tombstones forgotten.", c.Collected},
		{"kvd_store_errors_total", "Reads and writes of the engine that failed.", c.StoreErrors},
	} {
		e.counter(x.name, x.help, x.n)
	}
	const refused = "kvd_peer_messages_refused_total"
	const help = "Messages of other nodes that were not acted on, by reason."
	e.counter(refused, help, c.Malformed, "reason", "malformed")
	e.counter(refused, help, c.Strangers, "reason", "stranger")
	e.counter(refused, help, c.WrongCluster, "reason", "wrong cluster")
	e.counter(refused, help, c.WrongEpoch, "reason", "wrong epoch")
	e.counter(refused, help, c.NotOwned, "reason", "not owned")
}

// peers emits what the transport between nodes has counted.
func (e emitter) peers(m netquic.PeerMetrics) {
	e.gauge("kvd_peers_connected", "Nodes that a message can be sent to.", float64(m.Connected))
	for class, n := range m.Sent {
		e.counter("kvd_peer_messages_sent_total", "Messages to other nodes.", n, "class", class)
	}
	for class, n := range m.Dropped {
		e.counter("kvd_peer_messages_dropped_total", "Messages that found no room or no way.", n,
			"class", class)
	}
	e.counter("kvd_peer_messages_received_total", "Messages of other nodes.", m.Received)
	e.counter("kvd_peer_received_bytes_total", "Bytes of these.", m.BytesIn)
	e.counter("kvd_peer_sent_bytes_total", "Bytes to other nodes.", m.BytesOut)
	for reason, n := range m.Closed {
		e.counter("kvd_peer_connections_closed_total", "Connections of nodes that ended.", n,
			"reason", reason)
	}
}
