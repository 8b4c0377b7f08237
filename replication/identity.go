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
// can make sense of. It changes nothing. Damage where the answer would be is not told: it keeps
// nobody from the rest.
func CheckUnowned(db *lsm.DB) error {
	id, err := db.Get(identityKey)
	var incarnation []byte
	if err == nil {
		// A user of a node by itself may have a key of the other name. A node of a cluster has made
		// its incarnation durable before it writes anything of its users.
		incarnation, err = db.Get(incarnationKey)
	}
	_, damaged := errors.AsType[*lsm.CorruptError](err)
	switch {
	case errors.Is(err, lsm.ErrNotFound), damaged:
		return nil
	case err != nil:
		return err
	case len(incarnation) != incarnationBytes:
		return nil
	}
	return &OwnedError{NodeID(id)}
}

const incarnationBytes = 4
