package datasets

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The IDX format of the MNIST files (LeCun, Cortes and Burges): two zero bytes, the type of a number, the number of axes,
// the length of each axis in 32 bits, and the numbers, all big-endian, the last axis fastest.

// idxTypes are the types of numbers by their byte, under NumPy's names.
var idxTypes = map[byte]string{0x08: "|u1", 0x09: "|i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

// readIDX decodes one IDX stream, through gzip where it is packed.
func readIDX(r io.Reader) (*array, error) {
	r, err := unpacked(r)
	if err != nil {
		return nil, err
	}
	var magic [4]byte
	if _, err := io.ReadFull(r, magic[:]); err != nil || magic[0] != 0 || magic[1] != 0 {
		return nil, errors.New("not in the IDX format, which begins with two zero bytes")
	}
	a := &array{dtype: idxTypes[magic[2]]}
	if a.dtype == "" {
		return nil, fmt.Errorf("numbers of type 0x%02x, want 0x08, 0x09 or 0x0b to 0x0e", magic[2])
	}
	lengths := make([]uint32, magic[3])
	if err := binary.Read(r, binary.BigEndian, lengths); err != nil {
		return nil, fmt.Errorf("truncated in the lengths of the %d axes", magic[3])
	}
	for _, n := range lengths {
		a.shape = append(a.shape, int(n))
	}
	if a.data, err = readNumbers(r, a.dtype, a.shape); err != nil {
		return nil, err
	}
	return a, nil
}

func readIDXFile(path string) (*array, error) {
	f, _, err := openFile("idx", path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	a, err := readIDX(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return a, nil
}
