package replica

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

// AveragingFile is the file of a group's cut that holds what averaging needs: the parameters last published, "theta", and
// what the group owes to its next contribution, "residual"; each only where there is one.
const AveragingFile = "averaging"

// EncodeCut writes a cut in one piece: the step and the number of files, then the meta data, and each file behind its name;
// every part follows its length.
func EncodeCut(cut checkpoint.Cut) ([]byte, error) {
	var b bytes.Buffer
	part := func(data []byte) {
		b.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(data))))
		b.Write(data)
	}
	b.Write(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, uint64(cut.Step)), uint64(len(cut.Files))))
	part(cut.Meta)
	for _, name := range slices.Sorted(maps.Keys(cut.Files)) {
		part([]byte(name))
		data, err := EncodeTensors(cut.Files[name])
		if err != nil {
			return nil, err
		}
		part(data)
	}
	return b.Bytes(), nil
}

// DecodeCut reads what EncodeCut wrote.
func DecodeCut(data []byte) (*checkpoint.Cut, error) {
	var err error
	u64 := func() uint64 {
		if len(data) < 8 {
			err = fmt.Errorf("cut: %w: %d bytes left, want 8", transport.ErrShort, len(data))
			return 0
		}
		v := binary.LittleEndian.Uint64(data)
		data = data[8:]
		return v
	}
	part := func() []byte {
		n := u64()
		if err == nil && n > uint64(len(data)) {
			err = fmt.Errorf("cut: %w: %d bytes left, want %d", transport.ErrShort, len(data), n)
		}
		if err != nil {
			return nil
		}
		out := data[:n:n]
		data = data[n:]
		return out
	}
	cut := &checkpoint.Cut{Step: int(u64()), Files: map[string][]checkpoint.Tensor{}}
	files := u64()
	cut.Meta = part()
	for ; err == nil && files > 0; files-- {
		name := string(part())
		file := part()
		if err == nil {
			cut.Files[name], err = DecodeTensors(file)
		}
	}
	if err == nil && len(data) > 0 {
		err = fmt.Errorf("cut: %w: %d bytes too many", transport.ErrMalformed, len(data))
	}
	if err != nil {
		return nil, err
	}
	return cut, nil
}

// EncodeTensors writes tensors as safetensors.
func EncodeTensors(tensors []checkpoint.Tensor) ([]byte, error) {
	var b bytes.Buffer
	err := checkpoint.EncodeSafetensors(&b, tensors, nil)
	return b.Bytes(), err
}

// DecodeTensors reads what EncodeTensors wrote.
func DecodeTensors(data []byte) ([]checkpoint.Tensor, error) {
	tensors, _, err := checkpoint.DecodeSafetensors(bytes.NewReader(data), int64(len(data)))
	return tensors, err
}

// Bytes are numbers, little-endian.
func Bytes[T float32 | float64](v []T) []byte {
	out := make([]byte, binary.Size(v))
	if _, err := binary.Encode(out, binary.LittleEndian, v); err != nil {
		panic(err) // of fixed size
	}
	return out
}

// Numbers reads what Bytes wrote.
func Numbers[T float32 | float64](data []byte) ([]T, error) {
	size := binary.Size(T(0))
	if len(data)%size != 0 {
		return nil, fmt.Errorf("numbers: %w: %d bytes, want a multiple of %d", transport.ErrMalformed, len(data), size)
	}
	out := make([]T, len(data)/size)
	if _, err := binary.Decode(data, binary.LittleEndian, out); err != nil {
		return nil, fmt.Errorf("numbers: %w: %w", transport.ErrMalformed, err)
	}
	return out, nil
}
