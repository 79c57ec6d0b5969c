package consensus

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func TestPeerPortRefusesStrangers(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "a", "b") // b never comes: a is empty and waits
	c.start("a")
	refused := func(first string) {
		t.Helper()
		conn, err := net.Dial("tcp", c.cfg["a"].Peer.Listen)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(conn, first); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(make([]byte, 1)); n > 0 || errors.Is(err, io.ErrNoProgress) || isTimeout(err) {
			t.Errorf("%q is let in: %d bytes, %v", first, n, err)
		}
	}
	refused("X")
	refused("R") // raft, while the node does not know what it is
	if st, err := c.nodes["a"].statusOf(within(t), c.cfg["a"].Peer.Listen); err != nil || !st.Empty || st.Seen {
		t.Errorf("status %+v, %v", st, err)
	}
	if err := c.nodes["a"].Ready(); err == nil {
		t.Error("ready without a leader")
	}
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// FuzzDecodeSnapshot: no bytes make it panic, and what it takes is what encodeSnapshot writes.
func FuzzDecodeSnapshot(f *testing.F) {
	whole, err := encodeSnapshot(raft.SnapshotMeta{ID: "1-2", Index: 1, Term: 2}, []byte("state"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte(snapshotMagic))
	f.Fuzz(func(t *testing.T, file []byte) {
		meta, data, err := decodeSnapshot(file)
		if err != nil {
			return
		}
		again, err := encodeSnapshot(*meta, data)
		if _, back, err2 := decodeSnapshot(again); err != nil || err2 != nil || !bytes.Equal(back, data) {
			t.Errorf("taken and not written back: %v, %v", err, err2)
		}
	})
}
