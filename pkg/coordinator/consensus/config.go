package consensus

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft-wal/types"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/blobs"
)

// Config says who a node is and how it finds the others.
type Config struct {
	// Name is this coordinator's for good, unique in the cluster.
	Name string
	// DataDir holds the raft log, snapshots and, unless BlobDir says otherwise, the blobs. It belongs to one node.
	DataDir, BlobDir string

	// Peer is the port of the other coordinators. Without it the node is alone and nobody can join it.
	Peer Peer
	// TLS secures the peer port; nil only while it listens on a loopback address, or with Insecure.
	TLS *TLS
	// Insecure allows any address without TLS, where something else encrypts what goes over the network.
	Insecure bool

	// An empty node begins in one of three ways. With Expect above 1 it waits until that many empty nodes, those of Peers,
	// see each other; the one with the lowest name begins the cluster. With Join it asks a member of a cluster to take it in.
	// With neither it begins a cluster of its own. A node that has state does none of it.
	Expect int
	Peers  []string // host:port of the Expect nodes' peer ports, its own among them or not
	Join   string   // host:port of the peer port of any member
	// Nonvoter keeps a node that joined from becoming a voter by itself: it follows, and has no part in decisions.
	Nonvoter bool

	// Heartbeat and Election are how long a follower does without a leader, a candidate without votes; Lease is how long a
	// leader goes on without a quorum. 0: one second each; much less without a peer port.
	Heartbeat, Election, Lease time.Duration
	// PromoteAfter is how long a node that joined must have kept up before it becomes a voter; 0: ten seconds.
	PromoteAfter time.Duration
	// SegmentSize is what the log allocates at a time, in bytes; 0: 64 MiB, 16 MiB without a peer port.
	SegmentSize int
	// SnapshotThreshold is the number of entries after which the log is cut behind a snapshot, Trailing how many of those
	// before it stay for followers that are behind; 0: 8192 and 10240.
	SnapshotThreshold, Trailing uint64
	// FillDisk lets the node use the disk to the end. Without it blobs are refused while there is still room for the log, and a
	// node whose disk is nearly full does not lead: right where others can.
	FillDisk bool
	// BlobRate bounds what is written to the blob store, in bytes per second; 0: its default.
	BlobRate int64

	// API and NATS are the URLs under which clients reach this coordinator; the cluster tells them to everybody.
	API, NATS string

	Log *slog.Logger // nil: nothing is logged

	hooks hooks
}

// Peer is the port where coordinators reach each other: the first byte of a connection says whether it carries raft ('R') or
// HTTP ('H').
type Peer struct {
	Listen    string // host:port, port 0 for a free one
	Advertise string // host:port for the others, a stable name rather than an address; "": what it listens on
}

// hooks let tests come between a node and the world.
type hooks struct {
	dial         dialFunc                        // nil: TCP
	vfs          types.VFS                       // of the log; nil: the disk
	disk         func(dir string) (bool, error)  // whether a disk is full; nil: asks the system
	feature      func() uint32                   // what it says that it supports; nil: Feature
	readView     func(c Consistency) Consistency // changes what View does
	collectEvery time.Duration                   // of collecting blobs; 0: default
	grace        time.Duration                   // of young blobs; 0: default
}

const (
	walSegment      = 64 << 20
	walSegmentAlone = 16 << 20
)

// withDefaults fills in what is empty.
func (c Config) withDefaults() Config {
	timeout, segment := time.Second, walSegment
	if c.alone() {
		timeout, segment = 10*time.Millisecond, walSegmentAlone
	}
	if c.DataDir != "" {
		c.BlobDir = cmp.Or(c.BlobDir, filepath.Join(c.DataDir, "blobs"))
	}
	c.Heartbeat = cmp.Or(c.Heartbeat, timeout)
	c.Election = cmp.Or(c.Election, c.Heartbeat)
	c.Lease = cmp.Or(c.Lease, c.Heartbeat)
	c.PromoteAfter = cmp.Or(c.PromoteAfter, 10*time.Second)
	c.SegmentSize = cmp.Or(c.SegmentSize, segment)
	c.SnapshotThreshold = cmp.Or(c.SnapshotThreshold, 8192)
	c.Trailing = cmp.Or(c.Trailing, 10240)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.FillDisk {
		c.hooks.disk = func(string) (bool, error) { return false, nil }
	}
	if c.hooks.disk == nil {
		c.hooks.disk = blobs.Full
	}
	if c.hooks.feature == nil {
		c.hooks.feature = func() uint32 { return Feature }
	}
	if c.hooks.dial == nil {
		c.hooks.dial = dialTCP
	}
	c.hooks.collectEvery = cmp.Or(c.hooks.collectEvery, collectEvery)
	return c
}

// alone says that there is no peer port.
func (c Config) alone() bool { return c.Peer.Listen == "" }

// Validate reports all that is wrong.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	wrong := func(format string, v ...any) { errs = append(errs, fmt.Errorf(format, v...)) }
	if !plainName(c.Name) {
		wrong("name: %q, want letters, digits, dots and dashes, at most 63", c.Name)
	}
	if c.DataDir == "" {
		wrong("data dir: empty, want a folder")
	}
	if c.alone() {
		if c.Join != "" || c.Expect > 1 || c.Peer.Advertise != "" {
			wrong("peer port: none, and a cluster of several nodes needs one: set a listen address")
		}
	} else if host, _, err := net.SplitHostPort(c.Peer.Listen); err != nil {
		wrong("peer port: %q, want host:port", c.Peer.Listen)
	} else if ip := net.ParseIP(host); c.TLS == nil && !c.Insecure && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		wrong("peer port: %q without TLS, want TLS or a loopback address", c.Peer.Listen)
	}
	for _, peer := range append(slices.Clone(c.Peers), c.Peer.Advertise, c.Join) {
		if _, _, err := net.SplitHostPort(peer); peer != "" && err != nil {
			wrong("peer %q, want host:port", peer)
		}
	}
	if c.Expect > 1 && c.Join != "" {
		wrong("expect %d nodes and join %s: want one of the two", c.Expect, c.Join)
	}
	if c.Expect > 1 && len(c.Peers) < c.Expect-1 {
		wrong("expect %d nodes, and only %d peers are named", c.Expect, len(c.Peers))
	}
	if c.Lease > c.Heartbeat || c.Heartbeat > c.Election {
		wrong("lease %v, heartbeat %v, election %v: want none above the next", c.Lease, c.Heartbeat, c.Election)
	}
	return errors.Join(errs...)
}

// plainName says whether a name can be part of a URL and of a file's name.
func plainName(s string) bool {
	return s != "" && len(s) <= 63 && s[0] != '.' && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_')
	})
}
