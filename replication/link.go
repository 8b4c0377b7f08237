package replication

import "time"

// link is what a core knows of the way to a peer. The estimate of its answer times is that of TCP
// (RFC 6298): mean and mean deviation, whose sum with weight 4 lies near the 95th percentile of
// what is usual on a network.
type link struct {
	up          bool
	since       time.Duration // when it came up or broke
	mean        time.Duration // of the time to an answer; 0 before the first
	deviation   time.Duration
	equal       time.Duration // when the trees were last found equal, 0: never
	outstanding int           // requests sent and not answered
	lastAnswer  time.Duration // when the last answer came, or the first request went that has none
}

func newLink() *link { return &link{} }

const (
	hedgeFloor   = 1 * time.Millisecond   // sooner is no sign of trouble
	hedgeUnknown = 50 * time.Millisecond  // before anything was measured
	hedgeCeiling = 500 * time.Millisecond // later than this nobody wants to wait
)

// answered takes in how long an answer took.
func (l *link) answered(now, took time.Duration) {
	l.lastAnswer = now
	if l.mean == 0 {
		l.mean, l.deviation = took, took/2
		return
	}
	diff := took - l.mean
	l.mean += diff / 8
	if diff < 0 {
		diff = -diff
	}
	l.deviation += (diff - l.deviation) / 4
}

// patience is how long to wait for an answer before somebody else is asked.
func (l *link) patience() time.Duration {
	if l.mean == 0 {
		return hedgeUnknown
	}
	return min(max(l.mean+4*l.deviation, hedgeFloor), hedgeCeiling)
}

// hintable reports whether an owner makes hints for a node: not when it has been away for long.
func (c *Core) hintable(id NodeID) bool {
	l := c.links[id]
	return !c.cfg.off.hints && l != nil && (l.up || c.now.Since-l.since < c.cfg.HintAge)
}

// silentAfter is when a node that owes answers is asked last.
const silentAfter = 250 * time.Millisecond

// silent reports whether a node owes answers for longer than is usual anywhere.
func (l *link) silent(now time.Duration) bool {
	return l.outstanding > 0 && now-l.lastAnswer > silentAfter
}

// answers reports whether a node can be reached and is not silent.
func (c *Core) answers(id NodeID) bool {
	return c.reachable(id) && (id == c.self || !c.links[id].silent(c.now.Since))
}

// cost orders replicas by how soon they are likely to answer.
func (l *link) cost(now time.Duration) time.Duration {
	if l.silent(now) {
		return time.Hour
	}
	return (l.mean + time.Microsecond) * time.Duration(1+l.outstanding)
}

func (c *Core) sent(to NodeID) {
	if l := c.links[to]; l != nil {
		if l.outstanding == 0 {
			l.lastAnswer = c.now.Since
		}
		l.outstanding++
	}
}

// settled counts a request as answered, after took, or as given up when took is below 0.
func (c *Core) settled(node NodeID, took time.Duration) {
	l := c.links[node]
	if l == nil {
		return
	}
	l.outstanding = max(l.outstanding-1, 0)
	if took >= 0 {
		l.answered(c.now.Since, took)
	}
}

func (c *Core) patience(node NodeID) time.Duration {
	if l := c.links[node]; l != nil {
		return l.patience()
	}
	return hedgeUnknown // this node's own disk
}
