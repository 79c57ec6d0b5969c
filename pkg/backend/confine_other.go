//go:build !linux

package backend

// Confine keeps XLA's worker threads on one core where the system allows it; it does nothing here.
func (b *Backend) Confine(bool) (confined bool, err error) { return false, nil }
