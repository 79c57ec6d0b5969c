package transport

import (
	"fmt"
	"testing"
)

// links are the ways to reach a server that the benchmarks compare.
func links(b *testing.B, run func(b *testing.B, asker, server *Conn)) {
	s := startServer(b, ServerOptions{Listen: "127.0.0.1:0"})
	for _, l := range []struct {
		name    string
		options Options
	}{{"process", Options{Server: s}}, {"tcp", Options{URL: s.URL()}}} {
		b.Run(l.name, func(b *testing.B) { run(b, dial(b, l.options), dial(b, l.options)) })
	}
}

// BenchmarkRoundTrip is a request of 64 bytes, a bare header, and its answer.
func BenchmarkRoundTrip(b *testing.B) {
	links(b, func(b *testing.B, asker, server *Conn) {
		serve(b, server, "x", ServeOptions{Handler: echo})
		for b.Loop() {
			if _, err := asker.Request(b.Context(), "x", Message{Header: Header{Type: TypeHeartbeat}}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkPull(b *testing.B) {
	for _, megabytes := range []int{1, 64} {
		b.Run(fmt.Sprintf("%dMB", megabytes), func(b *testing.B) {
			links(b, func(b *testing.B, asker, server *Conn) {
				giver := NewGiver()
				serve(b, server, "x", ServeOptions{Handler: giver.Handle})
				put(b, giver, someKey, randomBytes(megabytes<<20))
				b.SetBytes(int64(megabytes) << 20)
				for b.Loop() {
					if _, err := asker.Pull(b.Context(), Pull{Subject: "x", Key: someKey, Max: 1 << 30}); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	data := mustAppend(Message{Header{Type: TypeChunk, Chunks: 1}, randomBytes(MaxPayload)})
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := Decode(data); err != nil {
			b.Fatal(err)
		}
	}
}
