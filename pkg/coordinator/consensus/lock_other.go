//go:build !unix

package consensus

// dirLock is nothing where files cannot be locked.
type dirLock struct{}

func lockDir(string) (*dirLock, error) { return &dirLock{}, nil }

func (*dirLock) unlock() error { return nil }
