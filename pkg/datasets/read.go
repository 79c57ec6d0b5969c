package datasets

import (
	"fmt"
	"os"
)

// ReadNPZ reads all arrays of a NumPy .npz file, sorted by name. Numbers of every type come as []float64; whole numbers
// beyond 2^53 are rounded. The error names the file, and the array where one is damaged.
func ReadNPZ(path string) ([]Array, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: not a file, want an npz archive", path)
	}
	z, err := openNPZ(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	var out []Array
	for _, name := range z.names() {
		a, err := z.read(name)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		out = append(out, Array{Name: name, Shape: a.shape, Data: a.data})
	}
	return out, nil
}
