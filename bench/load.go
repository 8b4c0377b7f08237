package bench

// loadProbes is how many keys Loaded looks for.
const loadProbes = 64

// Loaded reports whether t seems to hold the loaded keys of s: the first, the last, and some
// between them are there.
func Loaded(t Target, s Spec) (bool, error) {
	s, _, err := s.resolve()
	if err != nil {
		return false, err
	}
	space, err := NewKeyspace(s.Keys, s.KeyBytes, s.Seed)
	if err != nil {
		return false, err
	}
	var key, value []byte
	for i := range uint64(loadProbes) {
		at := s.Keys - 1
		if i < loadProbes-1 {
			at = mix(i) % s.Keys
		}
		if i == 0 {
			at = 0
		}
		key = space.AppendKey(key[:0], space.Loaded(at))
		var found bool
		if value, found, err = t.Get(value[:0], key); err != nil || !found {
			return false, err
		}
	}
	return true, nil
}
