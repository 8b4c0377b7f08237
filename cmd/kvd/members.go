package main

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"kvd/replication"
)

// parseMembers reads the list of a cluster's nodes: id=host:port, with commas between; @zone says
// where a node stands, *weight what share of the data it takes:
//
//	n1=10.0.0.1:7400@east,n2=10.0.0.2:7400@west*2
func parseMembers(list string) (members []replication.Member, err error) {
	for _, item := range strings.Split(list, ",") {
		item = strings.TrimSpace(item)
		id, rest, ok := strings.Cut(item, "=")
		if !ok {
			return nil, usagef("cluster %q: must be id=host:port, with @zone and *weight if wanted",
				item)
		}
		m := replication.Member{ID: replication.NodeID(id)}
		if before, weight, ok := strings.Cut(rest, "*"); ok {
			if m.Weight, err = strconv.Atoi(weight); err != nil || m.Weight < 1 {
				return nil, usagef("cluster %q: the weight must be a number from 1", item)
			}
			rest = before
		}
		m.Addr, m.Zone, _ = strings.Cut(rest, "@")
		if host, _, err := net.SplitHostPort(m.Addr); err != nil || host == "" {
			return nil, usagef("cluster %q: %q must be host:port", item, m.Addr)
		}
		members = append(members, m)
	}
	return members, nil
}

// parseBuckets reads what is to become of concurrent writes: NAME=lww or NAME=siblings, with commas
// between. A key is in the bucket that its name begins with, up to the first slash; others are in
// the bucket without a name. The digest is that of all that say the same.
func parseBuckets(list string) (of func(key []byte) replication.Policy, digest uint64, err error) {
	policies := map[string]replication.Policy{}
	for _, item := range strings.Split(list, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		name, policy, _ := strings.Cut(item, "=")
		if strings.Contains(name, "/") {
			return nil, 0, usagef("buckets %q: a bucket is what is before the first slash of a key",
				item)
		}
		switch policy {
		case replication.KeepSiblings.String():
			policies[name] = replication.KeepSiblings
		case replication.LastWriterWins.String():
			policies[name] = replication.LastWriterWins
		default:
			return nil, 0, usagef("buckets %q: must be NAME=lww or NAME=siblings", item)
		}
	}
	maps.DeleteFunc(policies, func(_ string, p replication.Policy) bool {
		return p == replication.KeepSiblings // as without it
	})
	if len(policies) > 0 {
		names := slices.Sorted(maps.Keys(policies))
		digest = replication.KeyHash([]byte(strings.Join(names, "/"))) // no name has one
	}
	return func(key []byte) replication.Policy {
		name, _, ok := strings.Cut(string(key), "/")
		if !ok {
			name = ""
		}
		return policies[name]
	}, digest, nil
}

// placement turns the flags of a node of a cluster into the placement of all.
func (s *serveSettings) placement() (*replication.Placement, replication.Member, error) {
	var self replication.Member
	members, err := parseMembers(s.cluster)
	if err != nil {
		return nil, self, err
	}
	n := s.replicas
	if n == 0 {
		n = min(3, len(members))
	}
	p, err := replication.NewPlacement(1, members, n)
	if err != nil {
		return nil, self, &usageError{err: err}
	}
	self, ok := p.Member(replication.NodeID(s.id))
	if !ok {
		return nil, self, usagef("--id %q is none of the nodes that --cluster lists", s.id)
	}
	return p, self, nil
}

func describeMembers(p *replication.Placement) string {
	var names []string
	for _, m := range p.Members {
		names = append(names, fmt.Sprintf("%s=%s", m.ID, m.Addr))
	}
	return strings.Join(names, ",")
}
