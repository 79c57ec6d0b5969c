package blobs

import (
	"errors"
	"io"
	"os"

	"github.com/kelvin-ebm/kelvin/pkg/internal/atomicfile"
)

// FS is what a store needs of a file system. Its methods are safe for concurrent use.
type FS interface {
	Mkdir(dir string) error // with its parents; one that is there is fine
	// Create makes a new file to write, read-only for others; fs.ErrExist if there is one. What goes into an uncached one
	// leaves the system's memory as it is, where the file system can do that.
	Create(path string, uncached bool) (File, error)
	Open(path string) (File, error)    // to read
	List(dir string) ([]string, error) // the names in a folder
	Size(path string) (int64, error)
	Rename(from, to string) error
	Remove(path string) error
	Link(from, to string) error // a second name
	SyncDir(dir string) error   // makes the names in a folder durable
	// Usage returns how many bytes may still be written to the file system that holds dir, and how many it can hold; total
	// is 0 where that is not known.
	Usage(dir string) (free, total uint64, err error)
}

// File is an open file of an [FS].
type File interface {
	io.Reader
	io.Writer
	io.Seeker
	io.Closer
	Datasync() error // makes what was written durable, perhaps without times
	Sync() error     // makes everything about the file durable
}

// disk is the FS of the operating system.
type disk struct{}

func (disk) Mkdir(dir string) error { return os.MkdirAll(dir, 0o755) }

func (disk) Create(path string, uncached bool) (File, error) {
	const flags = os.O_RDWR | os.O_CREATE | os.O_EXCL
	if uncached {
		f, err := createUncached(path, flags, 0o444)
		if !errors.Is(err, errors.ErrUnsupported) {
			return f, err
		}
	}
	f, err := os.OpenFile(path, flags, 0o444)
	if err != nil {
		return nil, err
	}
	return diskFile{f}, nil
}

func (disk) Open(path string) (File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return diskFile{f}, nil
}

func (disk) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

func (disk) Size(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (disk) Rename(from, to string) error                     { return os.Rename(from, to) }
func (disk) Remove(path string) error                         { return os.Remove(path) }
func (disk) Link(from, to string) error                       { return os.Link(from, to) }
func (disk) SyncDir(dir string) error                         { return atomicfile.SyncDir(dir) }
func (disk) Usage(dir string) (free, total uint64, err error) { return usage(dir) }

type diskFile struct{ *os.File }

func (f diskFile) Datasync() error { return datasync(f.File) }
