package runlog

import (
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
)

// event is what a reader finds in one record of an event file.
type event struct {
	Wall    float64
	Step    int64
	Version string
	Start   bool
	Values  map[string]float32
}

// readEvents is a reader of its own: it checks both checksums of every record and takes the messages apart.
func readEvents(t *testing.T, path string) []event {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var events []event
	for len(data) > 0 {
		if len(data) < 16 {
			t.Fatalf("%d bytes left over", len(data))
		}
		n := binary.LittleEndian.Uint64(data)
		if got, want := binary.LittleEndian.Uint32(data[8:]), maskedCRC(data[:8]); got != want {
			t.Fatalf("checksum of the length %x, want %x", got, want)
		}
		message := data[12 : 12+n]
		if got, want := binary.LittleEndian.Uint32(data[12+n:]), maskedCRC(message); got != want {
			t.Fatalf("checksum of the data %x, want %x", got, want)
		}
		data = data[16+n:]
		e := event{}
		fields(t, message, func(number protowire.Number, bits uint64, raw []byte) {
			switch number {
			case eventWallTime:
				e.Wall = math.Float64frombits(bits)
			case eventStep:
				e.Step = int64(bits)
			case eventFileVersion:
				e.Version = string(raw)
			case eventSessionLog:
				e.Start = cmp.Equal(raw, []byte{sessionStatus << 3, sessionStart})
			case eventSummary:
				e.Values = map[string]float32{}
				fields(t, raw, func(_ protowire.Number, _ uint64, value []byte) {
					var tag string
					fields(t, value, func(number protowire.Number, bits uint64, raw []byte) {
						if number == valueTag {
							tag = string(raw)
						} else {
							e.Values[tag] = math.Float32frombits(uint32(bits))
						}
					})
				})
			}
		})
		events = append(events, e)
	}
	return events
}

func fields(t *testing.T, message []byte, each func(protowire.Number, uint64, []byte)) {
	t.Helper()
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		message = message[n:]
		var bits uint64
		var raw []byte
		switch kind {
		case protowire.VarintType:
			bits, n = protowire.ConsumeVarint(message)
		case protowire.Fixed64Type:
			bits, n = protowire.ConsumeFixed64(message)
		case protowire.Fixed32Type:
			var b uint32
			b, n = protowire.ConsumeFixed32(message)
			bits = uint64(b)
		case protowire.BytesType:
			raw, n = protowire.ConsumeBytes(message)
		}
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		message = message[n:]
		each(number, bits, raw)
	}
}

func TestEventsAreWhatTensorBoardReads(t *testing.T) {
	dir := t.TempDir()
	clock := func() time.Time { return time.Unix(1700000000, 250e6) }
	w, err := open(dir, false, -1, clock)
	if err != nil {
		t.Fatal(err)
	}
	r := Record{Step: 3}
	r.Set("loss", 0.5)
	r.Set("huge", 1e300) // beyond float32
	r.SetList("swap_accept", []float64{0.25, 0.75})
	if err := errors.Join(w.Write(r), w.Write(Record{Step: 4}), w.Close()); err != nil {
		t.Fatal(err)
	}
	w, err = open(dir, true, 3, func() time.Time { return clock().Add(-time.Hour) }) // a clock that went back
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "events.out.tfevents.*")) // sorted by name
	if err != nil {
		t.Fatal(err)
	}
	want := []string{filepath.Join(dir, "events.out.tfevents.1700000000.kelvin"), filepath.Join(dir, "events.out.tfevents.1700000001.kelvin")}
	if diff := cmp.Diff(want, files); diff != "" {
		t.Fatal(diff)
	}
	const wall = 1700000000.25
	if diff := cmp.Diff([]event{
		{Wall: wall, Version: "brain.Event:2"},
		{Wall: wall, Step: 3, Values: map[string]float32{"loss": 0.5, "swap_accept/0": 0.25, "swap_accept/1": 0.75}},
	}, readEvents(t, files[0])); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]event{
		{Wall: wall - 3600, Version: "brain.Event:2"},
		{Wall: wall - 3600, Step: 4, Start: true},
	}, readEvents(t, files[1])); diff != "" {
		t.Error(diff)
	}
}

// The CRC-32C of "123456789" is 0xe3069283 (RFC 3720's polynomial; the usual check value).
func TestMaskedCRC(t *testing.T) {
	crc := uint32(0xe3069283)
	want := (crc>>15 | crc<<17) + 0xa282ead8
	if got := maskedCRC([]byte("123456789")); got != want {
		t.Errorf("%#x, want %#x", got, want)
	}
}
