package consensus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/blobs"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
	"github.com/kelvin-ebm/kelvin/pkg/internal/atomicfile"
)

// Node is one coordinator's part in the consensus. Its methods are safe for concurrent use. Close it.
type Node struct {
	cfg     Config
	log     *slog.Logger
	opened  time.Time
	address string // of the peer port, as the others know it

	dir        *dirLock
	journal    *journal
	snapshots  *snapshotStore
	blobs      *blobs.Store
	replicator *blobs.Replicator
	peer       *peerPort // nil if the node is alone
	transport  raft.Transport
	raft       *raft.Raft
	fsm        *fsm

	ctx     context.Context // ends with Close
	cancel  context.CancelCauseFunc
	wg      sync.WaitGroup
	waiting sync.WaitGroup // for an answer of raft
	renew   chan struct{}  // the state was replaced: the reign begins anew
	fatal   chan error
	seen    atomic.Bool // see status.Seen
	disk    diskState
	stats   counters

	closing sync.Once
	closed  error

	mu           sync.Mutex
	reign        *reign // nil while this node does not lead
	reignChanged chan struct{}
}

// ErrClosed is the cause of what ends because the node was closed.
var ErrClosed = errors.New("coordinator is closed")

// Open starts a node on what is in its data directory, or on nothing, and does not wait for a leader. ctx bounds the opening
// alone. A disk that is damaged is [ErrCorrupt] if anything of it cannot be made good from what else is there: an operator
// who empties the directory lets the node rejoin with the others' help.
func Open(ctx context.Context, cfg Config) (_ *Node, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("coordinator: %w", err)
	}
	cfg = cfg.withDefaults()
	n := &Node{cfg: cfg, log: cfg.Log.With("node", cfg.Name), opened: time.Now(), renew: make(chan struct{}, 1), fatal: make(chan error, 1), reignChanged: make(chan struct{})}
	n.ctx, n.cancel = context.WithCancelCause(context.Background())
	defer func() {
		if err != nil {
			err = fmt.Errorf("coordinator %s: %w", cfg.Name, errors.Join(err, n.shut()))
		}
	}()
	if err := n.openDisk(); err != nil {
		return nil, err
	}
	if err := n.openPeers(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	if err := n.start(); err != nil {
		return nil, err
	}
	return n, nil
}

// openDisk opens all that is in the data directory.
func (n *Node) openDisk() error {
	logDir, snapDir := filepath.Join(n.cfg.DataDir, "raft", "log"), filepath.Join(n.cfg.DataDir, "raft", "snapshots")
	for _, dir := range []string{logDir, snapDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	var err error
	if n.dir, err = lockDir(n.cfg.DataDir); err != nil {
		return err
	}
	if err := n.claimName(); err != nil {
		return err
	}
	n.journal, err = openJournal(logDir, journalOptions{
		SegmentSize: n.cfg.SegmentSize, VFS: n.cfg.hooks.vfs, Log: n.raftLog(),
		Fatal: func(err error) { n.fail(exitFailed, err) },
	})
	if err != nil {
		return err
	}
	n.snapshots = &snapshotStore{dir: snapDir, retain: 2, note: n.journal.NoteSnapshot}
	if err := n.fitSnapshots(); err != nil {
		return err
	}
	reserve := 0.0 // the default
	if n.cfg.FillDisk {
		reserve = math.SmallestNonzeroFloat64
	}
	n.blobs, err = blobs.Open(blobs.Config{Dir: n.cfg.BlobDir, Rate: n.cfg.BlobRate, Reserve: reserve, Grace: n.cfg.hooks.grace, Log: n.log})
	if err != nil {
		return err
	}
	n.fsm = newFSM(func(d []ledger.Digest) { n.blobs.Require(d...) })
	return n.lookAtDisk()
}

// claimName makes sure that the data directory is this node's.
func (n *Node) claimName() error {
	path := filepath.Join(n.cfg.DataDir, "node.json")
	var is struct {
		Name string `json:"name"`
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		is.Name = n.cfg.Name
		if data, err = json.Marshal(is); err != nil {
			return err
		}
		return atomicfile.WriteFile(path, append(data, '\n'), 0o600)
	}
	if err == nil {
		err = json.Unmarshal(data, &is)
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrCorrupt, path, err)
	}
	if is.Name != n.cfg.Name {
		return fmt.Errorf("%s belongs to %q, want a data directory of %q or a new one", n.cfg.DataDir, is.Name, n.cfg.Name)
	}
	return nil
}

// fitSnapshots puts damaged snapshots aside if those that are left and the log have the whole history.
func (n *Node) fitSnapshots() error {
	newest, bad, err := n.snapshots.survey(func(state []byte) error {
		_, err := ledger.Restore(state)
		return err
	})
	if err != nil {
		return err
	}
	var have uint64
	if newest != nil {
		have = newest.Index
	}
	if err := n.journal.Reaches(have); err != nil {
		return errors.Join(append([]error{err}, slices.Collect(maps.Values(bad))...)...)
	}
	for id, err := range bad {
		n.log.Error("snapshot put aside; an older one and the log have all that was in it", "error", err)
		if err := n.snapshots.putAside(id); err != nil {
			return err
		}
	}
	last, err := n.journal.LastIndex()
	if err == nil && last > 0 && last < have {
		// A snapshot was installed, and the process died before the log was emptied. Raft goes on behind the snapshot, which
		// would leave a gap.
		err = n.journal.Wipe()
	}
	return err
}

// openPeers opens the peer port and, over it, raft.
func (n *Node) openPeers() error {
	n.address = n.cfg.Name
	if n.cfg.alone() {
		_, n.transport = raft.NewInmemTransport(raft.ServerAddress(n.address))
	} else {
		var err error
		if n.peer, err = listenPeers(n.cfg); err != nil {
			return err
		}
		n.address = n.peer.advertise
		n.transport = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: n.peer.raft, MaxPool: 3, Timeout: max(10*n.cfg.Heartbeat, time.Second), Logger: n.raftLog(), MsgpackUseNewTimeFormat: true,
			// No pipelines: in raft v1.8.0 one whose reader has ended on a newer term is still filled by its writer, who then waits for
			// ever, and the end of raft for him. Seen once in 200 histories of the linearizability test.
			MaxRPCsInFlight: 1,
		})
	}
	n.replicator = blobs.NewReplicator(blobs.ReplicatorConfig{Store: n.blobs, Peers: n.peers, Log: n.log})
	return nil
}

// start starts raft and all that runs beside it.
func (n *Node) start() error {
	cfg := raft.DefaultConfig()
	cfg.LocalID = raft.ServerID(n.cfg.Name)
	cfg.HeartbeatTimeout, cfg.ElectionTimeout, cfg.LeaderLeaseTimeout = n.cfg.Heartbeat, n.cfg.Election, n.cfg.Lease
	cfg.CommitTimeout = min(cfg.CommitTimeout, n.cfg.Heartbeat/4)
	cfg.SnapshotThreshold, cfg.TrailingLogs = n.cfg.SnapshotThreshold, n.cfg.Trailing
	cfg.ShutdownOnRemove = false
	cfg.NoLegacyTelemetry = true
	cfg.Logger = n.raftLog()
	store, err := raft.NewLogCache(512, n.journal)
	if err != nil {
		return err
	}
	if err := n.recoverPeers(cfg, store); err != nil {
		return err
	}
	if n.fsm.past, err = n.past(); err != nil {
		return err
	}
	known, err := raft.HasExistingState(store, n.journal, n.snapshots)
	if err != nil {
		return err
	}
	if n.raft, err = raft.NewRaft(cfg, n.fsm, store, n.journal, n.snapshots, n.transport); err != nil {
		return err
	}
	n.wg.Go(n.lead)
	n.wg.Go(n.care)
	n.wg.Go(n.collect)
	n.wg.Go(n.watchDisk)
	n.wg.Go(n.watchInstalls)
	if n.peer != nil {
		if known {
			n.peer.admitRaft()
		}
		n.peer.mux.HandleFunc("GET "+statusPath, n.serveStatus)
		n.peer.mux.HandleFunc("POST "+joinPath, n.serveJoin)
		n.peer.mux.Handle("/blobs/", n.blobs.Handler())
		n.peer.serve()
	}
	if !known {
		n.wg.Go(n.found)
	}
	return nil
}

// past is the end of the log, if it goes on behind the snapshots: raft does not say at once how much of it is committed.
func (n *Node) past() (end position, err error) {
	snapshots, err := n.snapshots.List()
	if err != nil {
		return end, err
	}
	last, err := n.journal.LastIndex()
	if err != nil || last == 0 || len(snapshots) > 0 && last <= snapshots[0].Index {
		return end, err
	}
	var entry raft.Log
	if err := n.journal.GetLog(last, &entry); err != nil {
		return end, err
	}
	return position{entry.Index, entry.Term}, nil
}

// raftLog is for the libraries. A node that is alone holds an election whenever it starts, which is nothing to speak of.
func (n *Node) raftLog() hclog.Logger {
	if n.cfg.alone() {
		return hcLogger(n.log, slog.LevelDebug)
	}
	return hcLogger(n.log, slog.LevelInfo)
}

// Close hands leadership over if this node leads, and stops it. What is under way fails.
func (n *Node) Close() error {
	n.closing.Do(func() {
		if n.raft != nil && n.raft.State() == raft.Leader {
			if err := n.raft.LeadershipTransfer().Error(); err != nil {
				n.log.Debug("leadership is not handed over", "error", err) // there may be nobody
			}
		}
		n.closed = n.shut()
	})
	return n.closed
}

// quiet ends what runs beside raft, which must come before raft is stopped: it takes nothing in any more, and everybody who
// waits for raft has the answer.
func (n *Node) quiet() {
	n.mu.Lock()
	n.cancel(ErrClosed)
	n.mu.Unlock()
	n.waiting.Wait()
}

// shut stops everything that was started, in any state of Open.
func (n *Node) shut() error {
	n.quiet()
	var errs []error
	if n.raft != nil {
		errs = append(errs, n.raft.Shutdown().Error())
	}
	if t, ok := n.transport.(raft.WithClose); ok {
		errs = append(errs, t.Close())
	}
	if n.replicator != nil {
		n.replicator.Close()
	}
	if n.peer != nil {
		errs = append(errs, n.peer.Close())
	}
	n.wg.Wait()
	if n.journal != nil {
		errs = append(errs, n.journal.Close())
	}
	if n.dir != nil {
		errs = append(errs, n.dir.unlock())
	}
	return errors.Join(errs...)
}
