package runlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of TensorFlow's event.proto and summary.proto, which TensorBoard reads.
const (
	eventWallTime    = 1 // double, seconds since 1970
	eventStep        = 2 // int64
	eventFileVersion = 3 // string
	eventSummary     = 5 // Summary
	eventSessionLog  = 7 // SessionLog

	summaryValue = 1 // repeated Summary.Value

	valueTag    = 1 // string
	valueSimple = 2 // float

	sessionStatus = 1 // enum
	sessionStart  = 1 // TensorBoard drops what it has read of later steps
)

// eventsPrefix is what TensorBoard recognises an event file by.
const eventsPrefix = "events.out.tfevents."

// eventWriter writes records to one TensorBoard event file. Every start of a run has its own; TensorBoard reads them in the order of their
// names.
type eventWriter struct {
	file *os.File
	size int64
	now  func() time.Time
	buf  []byte // framed records not written yet
	msg  []byte
	sum  []byte
	val  []byte
}

// createEvents starts a file whose name sorts behind those of earlier starts, whatever the clock says. With step ≥ 0 the
// run goes on after that step, and TensorBoard is told to drop later ones.
func createEvents(dir string, step int, now func() time.Time) (*eventWriter, error) {
	stamp := now().Unix()
	earlier, err := filepath.Glob(filepath.Join(dir, eventsPrefix+"*"))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	for _, name := range earlier {
		number, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(name), eventsPrefix), ".")
		if n, err := strconv.ParseInt(number, 10, 64); err == nil {
			stamp = max(stamp, n+1)
		}
	}
	var f *os.File
	for {
		f, err = os.OpenFile(filepath.Join(dir, fmt.Sprintf("%s%010d.kelvin", eventsPrefix, stamp)), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		stamp++
	}
	w := &eventWriter{file: f, now: now}
	w.begin(0, false)
	w.msg = protowire.AppendTag(w.msg, eventFileVersion, protowire.BytesType)
	w.msg = protowire.AppendString(w.msg, "brain.Event:2")
	w.frame()
	if step >= 0 {
		w.begin(step+1, true)
		status := protowire.AppendTag(nil, sessionStatus, protowire.VarintType)
		status = protowire.AppendVarint(status, sessionStart)
		w.msg = protowire.AppendTag(w.msg, eventSessionLog, protowire.BytesType)
		w.msg = protowire.AppendBytes(w.msg, status)
		w.frame()
	}
	if err := w.flush(); err != nil {
		f.Close()
		os.Remove(f.Name())
		return nil, err
	}
	return w, nil
}

// write writes one event with all values of a record; a list becomes one curve for each of its places: swap_accept/0, ….
// Events hold float32: a number beyond its range is left out here and is in the metrics file alone.
func (w *eventWriter) write(r Record) error {
	w.sum = w.sum[:0]
	for _, v := range r.Values {
		if v.List == nil {
			w.value(v.Key, v.Number)
		}
		for i, x := range v.List {
			w.value(v.Key+"/"+strconv.Itoa(i), x)
		}
	}
	if len(w.sum) == 0 {
		return nil
	}
	w.begin(r.Step, true)
	w.msg = protowire.AppendTag(w.msg, eventSummary, protowire.BytesType)
	w.msg = protowire.AppendBytes(w.msg, w.sum)
	w.frame()
	return w.flush()
}

func (w *eventWriter) value(tag string, x float64) {
	if math.Abs(x) > math.MaxFloat32 {
		return
	}
	w.val = protowire.AppendTag(w.val[:0], valueTag, protowire.BytesType)
	w.val = protowire.AppendString(w.val, tag)
	w.val = protowire.AppendTag(w.val, valueSimple, protowire.Fixed32Type)
	w.val = protowire.AppendFixed32(w.val, math.Float32bits(float32(x)))
	w.sum = protowire.AppendTag(w.sum, summaryValue, protowire.BytesType)
	w.sum = protowire.AppendBytes(w.sum, w.val)
}

func (w *eventWriter) begin(step int, withStep bool) {
	seconds := float64(w.now().UnixMicro()) / 1e6
	w.msg = protowire.AppendTag(w.msg[:0], eventWallTime, protowire.Fixed64Type)
	w.msg = protowire.AppendFixed64(w.msg, math.Float64bits(seconds))
	if withStep {
		w.msg = protowire.AppendTag(w.msg, eventStep, protowire.VarintType)
		w.msg = protowire.AppendVarint(w.msg, uint64(step))
	}
}

// frame appends the message to the buffer as a TFRecord: length and data, each followed by its masked checksum.
func (w *eventWriter) frame() {
	start := len(w.buf)
	w.buf = binary.LittleEndian.AppendUint64(w.buf, uint64(len(w.msg)))
	w.buf = binary.LittleEndian.AppendUint32(w.buf, maskedCRC(w.buf[start:]))
	w.buf = append(w.buf, w.msg...)
	w.buf = binary.LittleEndian.AppendUint32(w.buf, maskedCRC(w.msg))
}

func (w *eventWriter) flush() error {
	n, err := w.file.Write(w.buf)
	w.buf = w.buf[:0]
	if err != nil {
		if n > 0 { // a reader would stop at half a record
			_, seekErr := w.file.Seek(w.size, io.SeekStart)
			err = errors.Join(err, w.file.Truncate(w.size), seekErr)
		}
		return err
	}
	w.size += int64(n)
	return nil
}

// maskedCRC is the checksum of the TFRecord format: CRC-32C, rotated and shifted so that a checksum over data that holds
// checksums stays sound.
func maskedCRC(data []byte) uint32 {
	crc := crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
	return (crc>>15 | crc<<17) + 0xa282ead8
}
