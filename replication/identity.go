package replication

import (
	"errors"
	"fmt"

	"kvd/lsm"
)

// OwnedError says that a data directory belongs to a node of a cluster: its keys are records of
// the cluster, and not those of its users.
type OwnedError struct{ Node NodeID }

func (e *OwnedError) Error() string {
	return fmt.Sprintf("replication: the data belongs to node %s of a cluster", e.Node)
}

// CheckUnowned fails with *OwnedError for the database of a node of a cluster, which only that node
// can make sense of. It changes nothing.
func CheckUnowned(db *lsm.DB) error {
	id, err := db.Get(identityKey)
	if errors.Is(err, lsm.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	// A user of a node by itself may have a key of this name too. A node of a cluster has made its
	// incarnation durable before it writes anything else.
	n, err := db.Get(incarnationKey)
	if errors.Is(err, lsm.ErrNotFound) || err == nil && len(n) != incarnationBytes {
		return nil
	}
	if err != nil {
		return err
	}
	return &OwnedError{NodeID(id)}
}

const incarnationBytes = 4
