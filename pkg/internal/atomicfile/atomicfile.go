// Package atomicfile writes files that are either there in full or not there at all, whatever ends the process: the
// content goes to a temporary file in the same folder, reaches the disk, and takes its name in one step.
//
//	err := atomicfile.WriteFile("run/run.json", data, 0o644)
//	err = atomicfile.Write("run/samples.npz", 0o644, func(w io.Writer) error {
//		_, err := io.Copy(w, samples)
//		return err
//	})
package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// TempPrefix begins the names of temporary files. One that is left over after a crash may be removed.
const TempPrefix = ".tmp-"

// WriteFile writes data to path. On an error whatever was at path is still there and nothing else is left behind.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	return Write(path, perm, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// Write writes what fill writes to path, as WriteFile does; an error of fill leaves path as it was. w is not buffered.
func Write(path string, perm fs.FileMode, fill func(w io.Writer) error) (err error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return fmt.Errorf("write %s: is a folder, want a file", path)
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, TempPrefix+"*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, cause(err))
	}
	temp := f.Name()
	defer func() {
		if err != nil {
			f.Close() // a second time perhaps: the first error is the one that counts
			err = fmt.Errorf("write %s: %w", path, cause(err))
			if temp != "" {
				err = errors.Join(err, os.Remove(temp))
			}
		}
	}()
	if err := fill(f); err != nil {
		return err
	}
	if err := f.Chmod(perm); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil { // before the rename: some file systems report a full disk here
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	// From here on the file is there; only its surviving a power cut is in doubt.
	temp = ""
	return SyncDir(dir)
}

// SyncDir makes the names in a folder durable: files created, renamed and removed.
func SyncDir(dir string) error {
	if runtime.GOOS == "windows" { // has no such call
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL) { // a file system that cannot and need not
		err = nil
	}
	return errors.Join(err, d.Close())
}

// cause leaves out the name of the temporary file, which tells a reader nothing.
func cause(err error) error {
	switch e := err.(type) {
	case *fs.PathError:
		if strings.Contains(e.Path, TempPrefix) {
			return e.Err
		}
	case *os.LinkError:
		if strings.Contains(e.Old, TempPrefix) {
			return e.Err
		}
	}
	return err
}
