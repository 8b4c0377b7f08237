package netquic

import (
	"crypto/tls"
	"errors"
	"sync"
)

// refusals are those that the handler has been told of: whoever is refused dials again and again.
// Names come from certificates of the authority or from the peers, so there are not many.
type refusals struct {
	mu   sync.Mutex
	told map[refusal]struct{}
}

type refusal struct {
	name   string
	byPeer bool
	fault  CertFault // unless byPeer
}

// first notes a refusal and reports whether it was not told yet.
func (r *refusals) first(x refusal) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, told := r.told[x]; told {
		return false
	}
	if r.told == nil {
		r.told = map[refusal]struct{}{}
	}
	r.told[x] = struct{}{}
	return true
}

// connected has the next refusal of a peer told again.
func (r *refusals) connected(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for x := range r.told {
		if x.name == name {
			delete(r.told, x)
		}
	}
}

// refuse tells the handler of a certificate that this node has refused.
func (p *Peers) refuse(name string, err error) {
	fault, ok := errors.AsType[*CertError](err)
	if ok && p.refusals.first(refusal{name: name, fault: fault.Fault}) {
		p.h.PeerRefused(name, false, err)
	}
}

// refuseCaller tells of one who has called.
func (p *Peers) refuseCaller(cs tls.ConnectionState, err error) {
	name := ""
	fault, ok := errors.AsType[*CertError](err)
	if ok && (fault.Fault == CertExpired || fault.Fault == CertUnknownName) {
		// The authority has signed the name; with other faults it could be made up.
		_, name, _ = memberOf(cs.PeerCertificates[0])
	}
	p.refuse(name, err)
}

// dialFailed tells of an attempt to connect to a peer that one of the two has refused.
func (p *Peers) dialFailed(name string, err error) {
	if !errors.Is(err, ErrCertRefused) {
		p.refuse(name, err)
	} else if p.refusals.first(refusal{name: name, byPeer: true}) {
		p.h.PeerRefused(name, true, err)
	}
}
