package blobs

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path/filepath"
	"syscall"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// Read returns a blob, verified. Errors: ErrNotFound; ErrCorrupt, once per damaged copy.
func (s *Store) Read(digest ledger.Digest) ([]byte, error) {
	b, err := s.open(digest)
	if err != nil {
		return nil, fmt.Errorf("blobs: read %s: %w", digest, err)
	}
	defer b.Close()
	data := make([]byte, b.size)
	if _, err := io.ReadFull(b, data); err != nil {
		return nil, fmt.Errorf("blobs: read %s: %w", digest, err)
	}
	if err := b.end(); err != nil {
		return nil, fmt.Errorf("blobs: read %s: %w", digest, err)
	}
	return data, nil
}

// Open opens a blob to be read. What is read from the start is verified on the way: of a damaged copy the last bytes are
// not handed out, the read that would reach the end fails with ErrCorrupt. Whoever seeks over a part has to verify what it
// gets. A blob that is removed meanwhile can be read on. Errors: ErrNotFound, ErrCorrupt.
func (s *Store) Open(digest ledger.Digest) (content io.ReadSeekCloser, size int64, err error) {
	b, err := s.open(digest)
	if err != nil {
		return nil, 0, fmt.Errorf("blobs: open %s: %w", digest, err)
	}
	return b, b.size, nil
}

func (s *Store) open(digest ledger.Digest) (*content, error) {
	for {
		s.mu.Lock()
		e, ok := s.index[digest]
		s.mu.Unlock()
		if !ok {
			return nil, ErrNotFound
		}
		file, err := s.fs.Open(s.Path(digest))
		if err == nil {
			return &content{s: s, digest: digest, id: e.id, size: e.size, file: file, sum: sha256.New()}, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		// Removed just now, or by somebody else: in the first case the index has changed.
		if s.current(digest, e.id) {
			s.setAside(digest, e.id, err)
			return nil, fmt.Errorf("%w: its file is gone", ErrCorrupt)
		}
	}
}

// current says whether a copy is still the one in use.
func (s *Store) current(digest ledger.Digest, id uint64) bool {
	s.names.Lock() // a removal takes the blob out of the index first
	defer s.names.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.index[digest]
	return ok && e.id == id
}

// content reads a blob and verifies it.
type content struct {
	s      *Store
	digest ledger.Digest
	id     uint64
	size   int64
	file   File
	pos    int64
	hashed int64 // bytes from the start that sum has seen
	sum    hash.Hash
	err    error
}

func (c *content) Read(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := c.file.Read(p)
	if skip := c.hashed - c.pos; skip >= 0 && skip < int64(n) {
		c.sum.Write(p[skip:n])
		c.hashed = c.pos + int64(n)
	}
	c.pos += int64(n)
	switch {
	case errors.Is(err, syscall.EIO):
		return 0, c.damaged(err)
	case err != nil && !errors.Is(err, io.EOF):
		return 0, err
	case c.pos > c.size, errors.Is(err, io.EOF) && c.pos < c.size:
		return 0, c.damaged(errors.New("another size"))
	case c.pos == c.size && c.hashed == c.size && ledger.Digest(c.sum.Sum(nil)) != c.digest:
		return 0, c.damaged(errors.New("another digest"))
	}
	return n, err
}

// damaged sets the copy aside.
func (c *content) damaged(why error) error {
	c.s.setAside(c.digest, c.id, why)
	c.err = fmt.Errorf("%w: %w", ErrCorrupt, why)
	return c.err
}

// end makes sure that nothing follows what was read.
func (c *content) end() error {
	var one [1]byte
	_, err := io.ReadFull(c, one[:]) // a byte is refused by Read, being beyond the size
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (c *content) Seek(offset int64, whence int) (int64, error) {
	if whence == io.SeekEnd { // of what should be there
		offset, whence = c.size+offset, io.SeekStart
	}
	pos, err := c.file.Seek(offset, whence)
	if err == nil {
		c.pos = pos
	}
	return pos, err
}

func (c *content) Close() error { return c.file.Close() }

// verify reads a blob once; step, where not nil, is called for every piece with its size, and may take its time.
func (s *Store) verify(ctx context.Context, digest ledger.Digest, step func(context.Context, int) error) error {
	b, err := s.open(digest)
	if err != nil {
		return err
	}
	defer b.Close()
	buffer := slices1M.Get().(*[sliceSize]byte)
	defer slices1M.Put(buffer)
	for b.pos < b.size {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n, err := b.Read(buffer[:])
		if err != nil {
			return err
		}
		if step != nil {
			if err := step(ctx, n); err != nil {
				return err
			}
		}
	}
	return b.end()
}

// Link gives a blob, verified, a second name: the same file where the file system can do that, else a copy. It replaces
// what has that name and is not durable yet when it returns.
func (s *Store) Link(ctx context.Context, digest ledger.Digest, path string) error {
	if err := s.link(ctx, digest, path); err != nil {
		return fmt.Errorf("blobs: link %s as %s: %w", digest, path, err)
	}
	return nil
}

func (s *Store) link(ctx context.Context, digest ledger.Digest, path string) error {
	if err := s.verify(ctx, digest, nil); err != nil {
		return err
	}
	s.mu.Lock()
	s.serial++
	temp := filepath.Join(filepath.Dir(path), fmt.Sprintf("%s.%d%s", digest, s.serial, tempSuffix))
	s.mu.Unlock()
	_ = s.fs.Remove(temp)                    // of a process that crashed
	defer func() { _ = s.fs.Remove(temp) }() // also after the rename, which does nothing if path is the same file already
	if s.fs.Link(s.Path(digest), temp) != nil {
		if err := s.copy(ctx, digest, temp); err != nil {
			return err
		}
	}
	return s.fs.Rename(temp, path)
}

func (s *Store) copy(ctx context.Context, digest ledger.Digest, path string) (err error) {
	b, err := s.open(digest)
	if err != nil {
		return err
	}
	defer b.Close()
	f, err := s.fs.Create(path, false)
	if err != nil {
		return diskError(err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		_, err := io.CopyN(f, b, sliceSize)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return diskError(err)
		}
	}
}
