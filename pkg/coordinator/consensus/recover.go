package consensus

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// recoverPeers takes the members from <data-dir>/raft/peers.json if an operator has put one there, because a quorum is lost
// for good: a JSON list of {"id": name, "address": host:port}. The same file goes to every node that is left, while all are
// stopped. All that is in a node's log counts as committed then. The file is used once and renamed.
func (n *Node) recoverPeers(cfg *raft.Config, store raft.LogStore) error {
	path := filepath.Join(n.cfg.DataDir, "raft", "peers.json")
	members, err := raft.ReadConfigJSON(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	n.log.Error("MEMBERS ARE TAKEN FROM peers.json: whatever the lost nodes alone have committed is gone", "file", path, "members", members.Servers)
	// The state that this works on is thrown away.
	err = raft.RecoverCluster(cfg, newFSM(func([]ledger.Digest) {}), store, n.journal, n.snapshots, n.transport, members)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.Rename(path, path+".used")
}
