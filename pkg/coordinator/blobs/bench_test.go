package blobs

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// BenchmarkPutQuorum puts new blobs on two of three stores that share this machine's disk, as fast as it goes. What the
// third one writes meanwhile is part of what there is to do.
func BenchmarkPutQuorum(b *testing.B) {
	for _, megabytes := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("%dMB", megabytes), func(b *testing.B) {
			transport := &http.Transport{ExpectContinueTimeout: time.Second}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport}
			var peers []Peer
			for _, name := range []string{"b", "c"} {
				server := httptest.NewServer(openStore(b, Config{Dir: b.TempDir(), Rate: 1 << 40}).Handler())
				defer server.Close()
				peers = append(peers, Peer{Name: name, URL: server.URL, Voter: true, Client: client})
			}
			r := newReplicator(ReplicatorConfig{Store: openStore(b, Config{Dir: b.TempDir(), Rate: 1 << 40}), Peers: func() []Peer { return peers }})
			defer r.Close()
			data := someBytes(1, megabytes<<20)
			b.SetBytes(int64(len(data)))
			var n uint64
			for b.Loop() {
				b.StopTimer()
				binary.LittleEndian.PutUint64(data, n)
				n++
				d := digestOf(data)
				open := reader(data)
				b.StartTimer()
				if err := r.PutQuorum(b.Context(), d, int64(len(data)), open); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRead reads and verifies a blob that the system has in memory.
func BenchmarkRead(b *testing.B) {
	s := openStore(b, Config{Dir: b.TempDir()})
	d := putBytes(b, s, someBytes(1, 8<<20))
	b.SetBytes(8 << 20)
	for b.Loop() {
		if _, err := s.Read(d); err != nil {
			b.Fatal(err)
		}
	}
}
