package blobs

import (
	"errors"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// blockSize is what direct writes come in multiples of, in memory and in the file. Hardly a disk has larger blocks.
const blockSize = 4096

// directFile is written past the page cache. The kernel then has no pages to find, none to write back later, and no reason
// to make the log's sync wait for those. What does not fit, such as the end of a file that is no whole block, and all that
// follows it, is written as usual.
type directFile struct {
	diskFile
	direct bool
}

func createUncached(path string, flags int, mode os.FileMode) (File, error) {
	f, err := os.OpenFile(path, flags|unix.O_DIRECT, mode)
	if errors.Is(err, unix.EINVAL) {
		_ = os.Remove(path) // some kernels find out after they made it
		return nil, errors.ErrUnsupported
	}
	if err != nil {
		return nil, err
	}
	return &directFile{diskFile{f}, true}, nil
}

func (f *directFile) Write(p []byte) (n int, err error) {
	if f.direct && len(p)%blockSize == 0 && uintptr(unsafe.Pointer(unsafe.SliceData(p)))%blockSize == 0 {
		n, err = f.File.Write(p)
		if !errors.Is(err, unix.EINVAL) { // else its blocks are larger
			return n, err
		}
	}
	if f.direct {
		if err := f.usual(); err != nil {
			return n, err
		}
	}
	m, err := f.File.Write(p[n:])
	return n + m, err
}

// usual ends direct writes.
func (f *directFile) usual() error {
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_SETFL, flags&^unix.O_DIRECT)
	}
	f.direct = err != nil
	return os.NewSyscallError("fcntl", err)
}

func datasync(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if err == syscall.EINTR { // not a failure: nothing was reported about the data
			continue
		}
		return os.NewSyscallError("fdatasync", err)
	}
}

// usage counts as df does: what only the superuser may use is neither free nor part of the total.
func usage(dir string) (free, total uint64, err error) {
	var st syscall.Statfs_t
	for {
		err := syscall.Statfs(dir, &st)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return 0, 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
		}
		block := uint64(st.Bsize)
		return st.Bavail * block, (st.Blocks - st.Bfree + st.Bavail) * block, nil
	}
}
