package ledger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"testing"
)

// seal puts the checksum behind the rest of an entry, so that fuzzers get past it.
func seal(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(bytes.Clone(b), crc32.Checksum(b, castagnoli))
}

func FuzzDecode(f *testing.F) {
	rng := rand.New(rand.NewPCG(1, 1))
	s := New()
	for i := range uint64(300) {
		data := encoded(f, someEntry(rng.IntN, s))
		s.Apply(i+1, data)
		f.Add(data[:len(data)-tailBytes])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, data := range [][]byte{b, seal(b)} {
			e, err := Decode(data)
			if err != nil {
				if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrUnsupported) {
					t.Fatalf("error of no kind: %v", err)
				}
				continue
			}
			if again := encoded(t, e); !bytes.Equal(again, data) {
				t.Fatalf("%+v: encoded %x, decoded from %x", e, again, data)
			}
		}
	})
}

// FuzzApply applies what it makes of the bytes: entries as they are, and entries drawn by them.
func FuzzApply(f *testing.F) {
	rng := rand.New(rand.NewPCG(2, 2))
	for range 40 {
		data := make([]byte, 500)
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		f.Add(data)
	}
	s := New()
	var whole []byte
	for i := range uint64(60) {
		data := encoded(f, someEntry(rng.IntN, s))
		s.Apply(i+1, data)
		data = data[:len(data)-tailBytes]
		whole = append(whole, 255)
		whole = binary.LittleEndian.AppendUint16(whole, uint16(len(data)))
		whole = append(whole, data...)
	}
	f.Add(whole)
	f.Fuzz(func(t *testing.T, b []byte) {
		s := New()
		draw := func(n int) int {
			if len(b) == 0 {
				return 0
			}
			v := int(b[0])
			b = b[1:]
			return v % n
		}
		for index := uint64(1); len(b) > 0; index++ {
			var data []byte
			if draw(256) < 250 {
				data = encoded(t, someEntry(draw, s))
			} else {
				size := min(draw(256)+draw(256)<<8, len(b))
				data, b = seal(b[:size]), b[size:]
			}
			s.Apply(index, data)
		}
		sound(t, s)
	})
}

func FuzzRestore(f *testing.F) {
	rng := rand.New(rand.NewPCG(3, 3))
	s := New()
	f.Add(unsealed(s.Snapshot()))
	for i := range uint64(400) {
		s.Apply(i+1, encoded(f, someEntry(rng.IntN, s)))
		if i%40 == 0 {
			f.Add(unsealed(s.Snapshot()))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, data := range [][]byte{b, resealed(b)} {
			s, err := Restore(data)
			if err != nil {
				if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrUnsupported) {
					t.Fatalf("error of no kind: %v", err)
				}
				continue
			}
			if !bytes.Equal(s.Snapshot(), data) {
				t.Fatalf("a snapshot that is not the one of its state was restored: %x", data)
			}
			for i := range uint64(50) {
				if s.index > 1<<60 {
					break
				}
				s.Apply(s.index+1, encoded(t, someEntry(rand.New(rand.NewPCG(uint64(len(data)), i)).IntN, s)))
			}
			sound(t, s)
		}
	})
}

// sound checks a state, and that its snapshot restores to it.
func sound(t *testing.T, s *State) {
	t.Helper()
	if err := s.check(); err != nil {
		t.Fatal(err)
	}
	for _, e := range s.experiments {
		if e.bytes != e.weigh() {
			t.Fatalf("experiment %q weighs %d bytes, want %d", e.Name, e.bytes, e.weigh())
		}
	}
	back, err := Restore(s.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	if back.Digest() != s.Digest() {
		t.Fatal("the restored state is another")
	}
}
