package bench

// loadProbes is how many keys Loaded looks for.
const loadProbes = 64

// Loaded reports whether t seems to hold the loaded keys of s: the first, the last, and some
// between them are there. If they are, the ledger of s, if it has one, counts a loaded key that is
// missing from then on as lost. No run may be under way.
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
	newest := uint64(0)
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
		if version, err := CheckValue(space.Loaded(at), value); err == nil {
			newest = max(newest, version) // a damaged one is for a read to find
		}
	}
	if s.Ledger != nil {
		s.Ledger.present(newest)
	}
	return true, nil
}
