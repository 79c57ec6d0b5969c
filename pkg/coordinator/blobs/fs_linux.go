package blobs

import (
	"os"
	"syscall"
)

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
