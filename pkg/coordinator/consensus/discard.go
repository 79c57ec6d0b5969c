package consensus

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Discard removes a data directory and all that was kept in it; one that a coordinator uses at the moment is left as it is.
func Discard(dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	lock, err := lockDir(dir)
	if err != nil {
		return fmt.Errorf("coordinator: discard: %w", err)
	}
	return errors.Join(os.RemoveAll(dir), lock.unlock())
}
