package consensus

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// defaults is a running cluster of three with the timeouts and the disk that people have.
func defaults(tb testing.TB) *cluster {
	c := newCluster(tb, "a", "b", "c")
	for name, cfg := range c.cfg {
		cfg.Heartbeat, cfg.SegmentSize, cfg.hooks.vfs = 0, 0, nil
		c.cfg[name] = cfg
	}
	c.startAll()
	return c
}

// entry1K is a command whose entry has about one kilobyte and changes the state each time.
func entry1K(i int) ledger.Command {
	return ledger.NodePut{Name: "bench", Peer: fmt.Sprint("p:", i), API: string(bytes.Repeat([]byte("x"), 450)), NATS: string(bytes.Repeat([]byte("y"), 450))}
}

func report(b *testing.B, what string, times []time.Duration) {
	if len(times) == 0 {
		return
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds())/1000, what+"-p50-ms")
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds())/1000, what+"-p99-ms")
}

func BenchmarkApply1K(b *testing.B) {
	c := defaults(b)
	n := c.leader()
	b.Run("sequential", func(b *testing.B) {
		var times []time.Duration
		for i := range b.N {
			begin := time.Now()
			if _, err := n.Apply(context.Background(), ledger.ID{}, entry1K(i)); err != nil {
				b.Fatal(err)
			}
			times = append(times, time.Since(begin))
		}
		report(b, "apply", times)
	})
	b.Run("parallel", func(b *testing.B) {
		b.SetParallelism(32) // 64 on two cores
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				if _, err := n.Apply(context.Background(), ledger.ID{}, entry1K(i)); err != nil {
					b.Error(err)
					return
				}
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
	})
}

// probe commits small entries until stop is called, which returns how long each took that was committed.
func probe(n *Node) (stop func() []time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan []time.Duration)
	go func() {
		var times []time.Duration
		for i := 0; ctx.Err() == nil; i++ {
			begin := time.Now()
			if _, err := n.Apply(ctx, ledger.ID{}, entry1K(i)); err == nil {
				times = append(times, time.Since(begin))
			}
			time.Sleep(time.Millisecond)
		}
		done <- times
	}()
	return func() []time.Duration {
		cancel()
		return <-done
	}
}

func put(n *Node, digest ledger.Digest, data []byte) error {
	return n.PutBlobFrom(context.Background(), digest, int64(len(data)), func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data)), nil
	})
}

func BenchmarkPutBlob(b *testing.B) {
	c := defaults(b)
	n := c.leader()
	for _, mb := range []int{1, 8, 64, 256} {
		b.Run(fmt.Sprintf("%dMB", mb), func(b *testing.B) {
			data := randomBytes(mb << 20)
			b.SetBytes(int64(len(data)))
			stop := probe(n)
			for b.Loop() {
				b.StopTimer()
				rand.Read(data[:32])
				digest := sha256.Sum256(data)
				b.StartTimer()
				if err := put(n, digest, data); err != nil {
					b.Fatal(err)
				}
				b.StopTimer() // one blob at a time, as cuts come: the last node gets it meanwhile
				for _, other := range c.nodes {
					for !other.blobs.Has(digest) {
						time.Sleep(time.Millisecond)
					}
				}
				b.StartTimer()
			}
			report(b, "probe", stop())
		})
	}
}

// A large blob must not make followers miss the leader: 64 MB here, 256 MB if KELVIN_CHAOS is set.
func TestLargeBlobDoesNotChangeTheTerm(t *testing.T) {
	if testing.Short() {
		t.Skip("writes three large files")
	}
	size := 64 << 20
	if os.Getenv("KELVIN_CHAOS") != "" {
		size = 256 << 20
	}
	data := randomBytes(size)
	digest := ledger.Digest(sha256.Sum256(data))
	c := defaults(t)
	n := c.leader()
	term := n.Stats().Term
	stop := probe(n)
	err := put(n, digest, data)
	times := stop()
	if err != nil || len(times) == 0 {
		t.Fatalf("%v, %d commits meanwhile", err, len(times))
	}
	t.Logf("%d commits meanwhile, the slowest in %v", len(times), slices.Max(times))
	if now := n.Stats().Term; now != term || !n.Leads() {
		t.Errorf("term %d, leads %v, want term %d and the same leader", now, n.Leads(), term)
	}
}
