package blobs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
)

var errCrashed = errors.New("the machine is off")

// memFS is a disk in memory that knows what a power cut would leave of it, and fails when it is told to.
type memFS struct {
	mu      sync.Mutex
	names   map[string]*memFile // nil for a folder
	durable map[string]*memFile // the names that a power cut leaves
	calls   []string            // so far, as "sync" or "rename"
	// fault, if not nil, is asked before every call, which is the n-th; an error is the call's. errShort makes a write short.
	fault func(n int, op, path string) error
	free  uint64
	total uint64
}

var errShort = errors.New("write half of it")

// memFile is what is in a file, and what of it is durable.
type memFile struct{ data, durable []byte }

func newMemFS() *memFS {
	return &memFS{names: map[string]*memFile{"/": nil}, durable: map[string]*memFile{"/": nil}, free: 1 << 40, total: 1 << 40}
}

// call counts a call and asks for its fate. mu is held.
func (m *memFS) call(op, path string) error {
	n := len(m.calls)
	m.calls = append(m.calls, op)
	if m.fault == nil {
		return nil
	}
	return m.fault(n, op, path)
}

// setFault replaces the faults and starts to count calls anew.
func (m *memFS) setFault(f func(n int, op, path string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls, m.fault = nil, f
}

// crash is the disk after a power cut: of what was not synced, each name and each byte is there or not, by chance.
func (m *memFS) crash(r *rand.Rand) *memFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	after := newMemFS()
	both := maps.Clone(m.names)
	maps.Copy(both, m.durable)
	for _, p := range slices.Sorted(maps.Keys(both)) { // a folder before what is in it
		now, isNow := m.names[p]
		then, isThen := m.durable[p]
		file, is := then, isThen
		if (isNow != isThen || now != then) && r.IntN(2) == 0 {
			file, is = now, isNow
		}
		if _, ok := after.names[filepath.Dir(p)]; !is || !ok {
			continue
		}
		if file != nil {
			file = file.crash(r)
		}
		after.names[p], after.durable[p] = file, file
	}
	return after
}

func (f *memFile) crash(r *rand.Rand) *memFile {
	data := slices.Clone(f.data[:len(f.durable)+r.IntN(len(f.data)-len(f.durable)+1)])
	for i := len(f.durable); i < len(data); i++ {
		if r.IntN(2) == 0 {
			data[i] = 0
		}
	}
	return &memFile{data, data}
}

// flip flips bits of a byte of a file, as a failing disk does.
func (m *memFS) flip(path string, at int, bits byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.names[path]
	f.data = slices.Clone(f.data)
	f.data[at] ^= bits
}

// cut shortens a file.
func (m *memFS) cut(path string, size int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.names[path]
	f.data = slices.Clone(f.data[:size])
}

// paths lists the files.
func (m *memFS) paths() (files []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for p, f := range m.names {
		if f != nil {
			files = append(files, p)
		}
	}
	slices.Sort(files)
	return files
}

func (m *memFS) Mkdir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.call("mkdir", dir); err != nil {
		return err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, ok := m.names[dir]; ok {
			return nil
		}
		m.names[dir] = nil
	}
}

func (m *memFS) Create(path string, _ bool) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.call("create", path); err != nil {
		return nil, err
	}
	if _, ok := m.names[path]; ok {
		return nil, fmt.Errorf("create %s: %w", path, fs.ErrExist)
	}
	if _, ok := m.names[filepath.Dir(path)]; !ok {
		return nil, fmt.Errorf("create %s: %w", path, fs.ErrNotExist)
	}
	f := &memFile{}
	m.names[path] = f
	return &memHandle{fs: m, file: f, path: path}, nil
}

func (m *memFS) Open(path string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.call("open", path); err != nil {
		return nil, err
	}
	f, ok := m.names[path]
	if !ok || f == nil {
		return nil, fmt.Errorf("open %s: %w", path, fs.ErrNotExist)
	}
	return &memHandle{fs: m, file: f, path: path}, nil
}

func (m *memFS) List(dir string) (names []string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.call("list", dir); err != nil {
		return nil, err
	}
	for p := range m.names {
		if p != dir && filepath.Dir(p) == dir {
			names = append(names, filepath.Base(p))
		}
	}
	slices.Sort(names)
	return names, nil
}

func (m *memFS) Size(path string) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.call("stat", path); err != nil {
		return 0, err
	}
	return int64(len(m.names[path].data)), nil
}

func (m *memFS) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.call("rename", to); err != nil {
		return err
	}
	f, ok := m.names[from]
	if !ok {
		return fmt.Errorf("rename %s: %w", from, fs.ErrNotExist)
	}
	if m.names[to] == f { // two names of one file: both stay
		return nil
	}
	delete(m.names, from)
	m.names[to] = f
	return nil
}

func (m *memFS) Remove(path string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.call("remove", path); err != nil {
		return err
	}
	if _, ok := m.names[path]; !ok {
		return fmt.Errorf("remove %s: %w", path, fs.ErrNotExist)
	}
	delete(m.names, path)
	return nil
}

func (m *memFS) Link(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.call("link", to); err != nil {
		return err
	}
	m.names[to] = m.names[from]
	return nil
}

func (m *memFS) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.call("syncdir", dir); err != nil {
		return err
	}
	maps.DeleteFunc(m.durable, func(p string, _ *memFile) bool { return p != dir && filepath.Dir(p) == dir })
	for p, f := range m.names {
		if filepath.Dir(p) == dir {
			m.durable[p] = f
		}
	}
	return nil
}

func (m *memFS) Usage(dir string) (free, total uint64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.free, m.total, m.call("usage", dir)
}

func (m *memFS) setFree(free, total uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.free, m.total = free, total
}

// memHandle is an open memFile.
type memHandle struct {
	fs   *memFS
	file *memFile
	path string
	pos  int64
}

func (h *memHandle) Read(p []byte) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.fs.call("read", h.path); err != nil {
		return 0, err
	}
	if h.pos >= int64(len(h.file.data)) {
		return 0, io.EOF
	}
	n := copy(p, h.file.data[h.pos:])
	h.pos += int64(n)
	return n, nil
}

func (h *memHandle) Write(p []byte) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	err := h.fs.call("write", h.path)
	if err == errShort {
		p, err = p[:len(p)/2], nil
	}
	if err != nil {
		return 0, err
	}
	h.file.data = append(h.file.data, p...)
	return len(p), nil
}

func (h *memHandle) Seek(offset int64, whence int) (int64, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	switch whence {
	case io.SeekCurrent:
		offset += h.pos
	case io.SeekEnd:
		offset += int64(len(h.file.data))
	}
	if offset < 0 {
		return h.pos, syscall.EINVAL
	}
	h.pos = offset
	return offset, nil
}

func (h *memHandle) sync(op string) error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.fs.call(op, h.path); err != nil {
		return err
	}
	h.file.durable = h.file.data[:len(h.file.data):len(h.file.data)] // bytes are appended, never changed in place
	return nil
}

func (h *memHandle) Datasync() error { return h.sync("datasync") }
func (h *memHandle) Sync() error     { return h.sync("sync") }

func (h *memHandle) Close() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	return h.fs.call("close", h.path)
}

// temps are the temporary files among paths.
func temps(paths []string) (out []string) {
	for _, p := range paths {
		if strings.HasSuffix(p, tempSuffix) {
			out = append(out, p)
		}
	}
	return out
}
