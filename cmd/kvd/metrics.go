package main

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kvd/lsm"
	"kvd/netquic"
	"kvd/replication"
)

// collector turns the figures of a node into metrics at each scrape. The names are an interface
// to other people's dashboards: a test pins them.
type collector struct {
	db *lsm.DB
	n  *servedNode
}

func newCollector(db *lsm.DB, n *servedNode) *collector { return &collector{db, n} }

// Describe describes nothing: the metrics are made anew at each scrape.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

func (c *collector) Collect(out chan<- prometheus.Metric) {
	e := emitter{out}
	e.requests(c.n.node.Metrics())
	e.engine(c.db.Metrics())
	e.transport(c.n.server.Metrics())
	if c.n.cluster != nil {
		e.cluster(c.n.cluster.Ring(), c.n.cluster.Counts())
		e.peers(c.n.peers.Metrics())
	}
}

type emitter struct{ out chan<- prometheus.Metric }

// emit sends one value. labels are names and values in turn.
func (e emitter) emit(kind prometheus.ValueType, name, help string, v float64, labels ...string) {
	var names, values []string
	for i := 0; i < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, labels[i+1])
	}
	d := prometheus.NewDesc(name, help, names, nil)
	e.out <- prometheus.MustNewConstMetric(d, kind, v, values...)
}

func (e emitter) gauge(name, help string, v float64, labels ...string) {
	e.emit(prometheus.GaugeValue, name, help, v, labels...)
}

func (e emitter) counter(name, help string, v uint64, labels ...string) {
	e.emit(prometheus.CounterValue, name, help, float64(v), labels...)
}

func (e emitter) requests(m replication.Metrics) {
	for _, op := range m.Ops {
		name := op.Kind.String()
		const total, help = "kvd_requests_total", "Requests answered, by kind and result."
		e.counter(total, help, op.OK, "op", name, "result", "ok")
		e.counter(total, help, op.Failed, "op", name, "result", "error")
		e.durations(name, &op.Duration)
	}
	e.counter("kvd_requests_malformed_total", "Messages that are none of the protocol.",
		m.Malformed)
	e.counter("kvd_requests_refused_total", "Requests refused while draining.", m.Refused)
}

func (e emitter) durations(op string, h *replication.DurationHistogram) {
	buckets, below := map[float64]uint64{}, uint64(0)
	for i := range replication.DurationBuckets - 1 {
		below += h.Buckets[i]
		buckets[replication.BucketBound(i).Seconds()] = below
	}
	d := prometheus.NewDesc("kvd_request_duration_seconds",
		"Time from a request's start, a durable write's arrival, to its answer, by kind.",
		[]string{"op"}, nil)
	e.out <- prometheus.MustNewConstHistogram(d, h.Count(), h.Sum.Seconds(), buckets, op)
}

func (e emitter) engine(m lsm.Metrics) {
	for level, l := range m.Levels {
		label := strconv.Itoa(level)
		e.gauge("kvd_engine_level_tables", "Tables of a level.", float64(l.Tables), "level", label)
		e.gauge("kvd_engine_level_bytes", "Size of a level's tables.", float64(l.Bytes),
			"level", label)
		e.gauge("kvd_engine_level_entries",
			"Entries of a level, tombstones and old versions included.",
			float64(l.Entries), "level", label)
	}
	healthy := 0.0
	if m.State == "healthy" {
		healthy = 1
	}
	e.gauge("kvd_engine_healthy", "1 while the engine takes writes.", healthy)
	e.gauge("kvd_engine_memtable_bytes", "Size of the memtable being filled.",
		float64(m.MemtableBytes))
	e.gauge("kvd_engine_memtables_frozen", "Memtables waiting for their flush.",
		float64(m.MemtablesFrozen))
	e.gauge("kvd_engine_snapshots", "Open snapshots.", float64(m.Snapshots))
	e.gauge("kvd_engine_compactions_running", "Compactions under way.",
		float64(m.CompactionsRunning))
	e.gauge("kvd_engine_compaction_debt_bytes", "Estimate of what compactions have left to do.",
		float64(m.CompactionDebtBytes))
	e.gauge("kvd_engine_write_amplification_ratio", "Bytes written to tables per byte flushed.",
		m.WriteAmplification())
	e.counter("kvd_engine_flushed_bytes_total", "Bytes of tables written by flushes.",
		m.FlushedBytes)
	e.counter("kvd_engine_compactions_total", "Compactions finished.", m.Compactions)
	e.counter("kvd_engine_compaction_moves_total", "Tables moved down without being rewritten.",
		m.CompactionMoves)
	e.counter("kvd_engine_compaction_read_bytes_total", "Bytes read by compactions.",
		m.CompactedReadBytes)
	e.counter("kvd_engine_compaction_written_bytes_total", "Bytes written by compactions.",
		m.CompactedWrittenBytes)
	e.counter("kvd_engine_write_stalls_total", "Times a commit waited for a flush.", m.Stalls)
	e.seconds("kvd_engine_write_stall_seconds_total", "Time commits waited for flushes.",
		m.StallTime)
	e.seconds("kvd_engine_write_pace_seconds_total", "Time writers were slowed down smoothly.",
		m.PaceTime)
	e.counter("kvd_engine_corruptions_total",
		"Compactions that met a damaged table, and tables in which a read met damage.",
		m.Corruptions)
	e.gauge("kvd_engine_damaged_tables", "Tables that are damaged, and used by no compaction.",
		float64(m.Damaged))
	e.scrub(m.Scrub)
	e.log(m)
}

func (e emitter) scrub(m lsm.ScrubMetrics) {
	e.counter("kvd_engine_scrub_passes_total", "Passes in which everything on disk was read.",
		m.Passes)
	e.counter("kvd_engine_scrub_bytes_total", "Bytes read by the scrub.", m.Bytes)
	e.counter("kvd_engine_scrub_damages_total",
		"Damaged places found, once in each pass until they are gone.", m.Damages)
	e.counter("kvd_engine_scrub_healed_total", "Of these, healed.", m.Healed)
	e.gauge("kvd_engine_scrub_left_bytes", "What the pass under way has still to read.",
		float64(m.BytesLeft))
	e.gauge("kvd_engine_scrub_last_pass_seconds", "Duration of the last complete pass.",
		m.LastPass.Seconds())
}

func (e emitter) log(m lsm.Metrics) {
	e.counter("kvd_engine_wal_records_total", "Records appended to the log.", m.Log.Records)
	e.counter("kvd_engine_wal_frames_total", "Frames written to the log.", m.Log.Frames)
	e.counter("kvd_engine_wal_bytes_total", "Bytes written to the log.", m.Log.Bytes)
	e.counter("kvd_engine_wal_syncs_total", "Syncs of the log.", m.Log.Syncs)
	e.counter("kvd_engine_cache_hits_total", "Blocks found in the cache.", m.Cache.Hits)
	e.counter("kvd_engine_cache_misses_total", "Blocks read from disk.", m.Cache.Misses)
	e.counter("kvd_engine_cache_evictions_total", "Blocks dropped for others.", m.Cache.Evictions)
	e.gauge("kvd_engine_cache_bytes", "Size of the cached blocks.", float64(m.Cache.UsedBytes))
	e.gauge("kvd_engine_cache_budget_bytes", "Budget of the cache.", float64(m.Cache.BudgetBytes))
	e.gauge("kvd_engine_pinned_bytes", "Filters and indexes of open tables.",
		float64(m.Cache.PinnedBytes))
}

func (e emitter) seconds(name, help string, d time.Duration) {
	e.emit(prometheus.CounterValue, name, help, d.Seconds())
}

func (e emitter) transport(m netquic.Metrics) {
	e.gauge("kvd_quic_connections", "Open connections, handshakes included.",
		float64(m.Connections))
	e.gauge("kvd_quic_handshakes", "Handshakes under way.", float64(m.Handshakes))
	e.gauge("kvd_quic_calls_in_flight", "Calls being executed.", float64(m.InFlight))
	e.counter("kvd_quic_connections_accepted_total", "Connections whose handshake completed.",
		m.Accepted)
	e.counter("kvd_quic_connections_refused_total", "Connections over the limit.", m.Refused)
	e.counter("kvd_quic_handshake_failures_total", "Handshakes that failed, by reason.",
		m.HandshakesFailed-min(m.WrongProtocol, m.HandshakesFailed), "reason", "other")
	e.counter("kvd_quic_handshake_failures_total", "Handshakes that failed, by reason.",
		m.WrongProtocol, "reason", "protocol")
	for reason, n := range m.CertsRefused {
		e.counter("kvd_quic_certificates_refused_total",
			"Certificates of clients and other nodes that were refused, by reason.", n,
			"reason", reason)
	}
	e.counter("kvd_quic_calls_total", "Calls answered.", m.Calls)
	e.counter("kvd_quic_calls_inline_total", "Of these, executed on the reading goroutine.",
		m.Inline)
	const refused, help = "kvd_quic_calls_refused_total", "Calls not executed, by reason."
	e.counter(refused, help, m.Overloaded, "reason", "overloaded")
	e.counter(refused, help, m.Drained, "reason", "draining")
	e.counter(refused, help, m.Expired, "reason", "expired")
	e.counter("kvd_quic_received_bytes_total", "Bytes of frames received.", m.BytesIn)
	e.counter("kvd_quic_sent_bytes_total", "Bytes of frames sent.", m.BytesOut)
	for reason, n := range m.Closed {
		e.counter("kvd_quic_connections_closed_total", "Connections ended, by reason.", n,
			"reason", reason)
	}
}
