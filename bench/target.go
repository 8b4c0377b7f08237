package bench

// Target is a store under load. Its methods are called by all workers at once. How durable a write
// is was decided when the target was made.
type Target interface {
	// Put writes one pair. The slices are the caller's again when it returns.
	Put(key, value []byte) error
	// Get appends the value to dst. A key without value is found == false and no error.
	Get(dst, key []byte) (value []byte, found bool, err error)
	// Scan calls fn for up to n pairs at or after start in key order (all of them when n < 0)
	// until it returns false, and returns how many there were. The slices are valid inside fn only.
	Scan(start []byte, n int, fn func(key, value []byte) bool) (int, error)
	// Settle returns when the store has no background work left that earlier writes caused.
	Settle() error
	Close() error
}

// Pinger is a Target that can answer with nothing at all: the floor under every other latency.
type Pinger interface{ Ping() error }

// Reporter is a Target with counters of its own to show after a run. Stats says what was counted
// since it was last called; the runner calls it before measuring and after.
type Reporter interface{ Stats() []Stat }

// Stat is one line of what a target tells about itself.
type Stat struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}
