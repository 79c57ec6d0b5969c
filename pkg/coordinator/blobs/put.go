package blobs

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// How blobs are written: in small pieces, so that the log on the same disk never waits long for its own sync.
const (
	sliceSize  = 1 << 20
	syncEvery  = 8 << 20
	maxWriters = 2
	uncached   = 4 << 20 // of that size on a blob leaves the page cache as it is
)

var slices1M = sync.Pool{New: func() any { return new([sliceSize]byte) }}

// Put stores a blob; when it returns nil, the blob is durable on this node. One that is here is verified instead, and made
// new to GC; r is then not read. Errors: ErrMismatch if r is not as announced, ErrTooLarge, ErrFull, ErrBroken, those of
// r, of ctx, and of the disk; after any of them nothing of it is left.
func (s *Store) Put(ctx context.Context, digest ledger.Digest, size int64, r io.Reader) error {
	if err := s.put(ctx, digest, size, r, nil); err != nil {
		return fmt.Errorf("blobs: put %s: %w", digest, err)
	}
	return nil
}

// put is Put; step is that of verify.
func (s *Store) put(ctx context.Context, digest ledger.Digest, size int64, r io.Reader, step func(context.Context, int) error) error {
	have, err := s.whole(ctx, digest, size, step)
	if have || err != nil {
		return err
	}
	in, err := s.begin(digest, size)
	if err != nil {
		return err
	}
	defer in.close()
	if err := in.readFrom(ctx, r); err != nil {
		return err
	}
	return in.commit(ctx)
}

// whole says whether the blob is here with that size, verified just now, and makes it new to GC; step is that of verify.
func (s *Store) whole(ctx context.Context, digest ledger.Digest, size int64, step func(context.Context, int) error) (bool, error) {
	s.mu.Lock()
	here := s.touch(digest)
	here = here && s.index[digest].size == size
	err := s.failure
	s.mu.Unlock()
	if !here || err != nil {
		return false, err
	}
	err = s.verify(ctx, digest, step)
	if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err == nil {
		err = s.settle(digest)
	}
	return err == nil, err
}

// settle makes sure that the name of a blob that Open found is durable: the crash that was before may have come between
// the rename and its sync.
func (s *Store) settle(digest ledger.Digest) error {
	s.names.Lock()
	defer s.names.Unlock()
	if s.shards[digest[0]] == synced {
		return nil
	}
	dir := filepath.Dir(s.Path(digest))
	if err := s.fs.SyncDir(dir); err != nil {
		return s.fail("sync of "+dir, err)
	}
	s.shards[digest[0]] = synced
	return nil
}

// ingest is a blob that is being written. Close it, after commit too.
type ingest struct {
	s        *Store
	digest   ledger.Digest
	size     int64
	path     string // of the temporary file
	file     File
	sum      hash.Hash
	n        int64 // bytes written
	unsynced int64
	err      error // of the disk, which ends it: sum may be ahead of what is written
}

// begin makes the temporary file of a blob.
func (s *Store) begin(digest ledger.Digest, size int64) (*ingest, error) {
	if size < 0 || size > s.maxBlob {
		return nil, fmt.Errorf("%w: %d bytes, want at most %d", ErrTooLarge, size, s.maxBlob)
	}
	dir, err := s.shard(digest)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.serial++
	path := filepath.Join(dir, fmt.Sprintf("%s.%d%s", digest, s.serial, tempSuffix))
	s.pending += size
	pending := s.pending
	s.mu.Unlock()
	in := &ingest{s: s, digest: digest, size: size, path: path, sum: sha256.New()}
	free, total, err := s.fs.Usage(s.dir)
	if err == nil && total > 0 && s.full(free-min(free, uint64(pending)), total) {
		err = fmt.Errorf("%w: %d of %d bytes free for %d more, want %d left", ErrFull, free, total, pending, reserved(s.reserve, total))
	}
	if err == nil {
		in.file, err = s.fs.Create(path, size >= uncached)
	}
	if err != nil {
		in.close()
		return nil, diskError(err)
	}
	return in, nil
}

// shard is the folder of a blob, made if need be.
func (s *Store) shard(digest ledger.Digest) (string, error) {
	dir := filepath.Dir(s.Path(digest))
	s.names.Lock()
	defer s.names.Unlock()
	if err := s.Err(); err != nil || s.shards[digest[0]] != absent {
		return dir, err
	}
	if err := s.fs.Mkdir(dir); err != nil {
		return "", diskError(err)
	}
	if err := s.fs.SyncDir(s.dir); err != nil {
		return "", s.fail("sync of "+s.dir, err)
	}
	s.shards[digest[0]] = synced
	return dir, nil
}

// readFrom writes what r holds, which is the rest of the blob.
func (in *ingest) readFrom(ctx context.Context, r io.Reader) error {
	buffer := slices1M.Get().(*[sliceSize]byte)
	defer slices1M.Put(buffer)
	for in.n < in.size {
		n, readErr := fill(r, buffer[:min(sliceSize, in.size-in.n)])
		if n > 0 { // also after an error: a fetch goes on from there
			if err := in.write(ctx, buffer[:n]); err != nil {
				return err
			}
		}
		if readErr == io.EOF && in.n < in.size {
			return in.refuse(fmt.Errorf("%d bytes, want %d", in.n, in.size))
		}
		if readErr != nil && readErr != io.EOF {
			return readErr
		}
	}
	n, err := fill(r, buffer[:1])
	if n > 0 {
		return in.refuse(fmt.Errorf("more than %d bytes", in.size))
	}
	if err != io.EOF {
		return err
	}
	return nil
}

// fill is io.ReadFull, but for the error of content that ends early: io.EOF is the end, io.ErrUnexpectedEOF is a line that
// broke.
func fill(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	return n, err
}

// refuse counts what is not as announced.
func (in *ingest) refuse(why error) error {
	in.s.mu.Lock()
	in.s.counts.Refused++
	in.s.mu.Unlock()
	return fmt.Errorf("%w: %w", ErrMismatch, why)
}

// write appends a slice, at the store's pace.
func (in *ingest) write(ctx context.Context, slice []byte) error {
	if err := in.s.writes.take(ctx, len(slice)); err != nil {
		return err
	}
	if err := in.s.enter(ctx); err != nil {
		return err
	}
	defer in.s.leave()
	if in.unsynced >= in.s.unit {
		if err := in.file.Datasync(); err != nil {
			in.err = in.s.fail("sync of "+in.path, err)
			return in.err
		}
		in.unsynced = 0
	}
	hashed := make(chan struct{})
	go func() {
		in.sum.Write(slice)
		close(hashed)
	}()
	n, err := in.file.Write(slice)
	<-hashed
	if err == nil && n < len(slice) {
		err = io.ErrShortWrite
	}
	if err != nil {
		in.err = diskError(err)
		return in.err
	}
	in.n += int64(n)
	in.unsynced += int64(n)
	in.s.mu.Lock()
	in.s.pending -= int64(n)
	in.s.mu.Unlock()
	return nil
}

// enter waits for a place among those who write. It is held for a slice, not for a blob: a sender that hangs holds up
// nobody else.
func (s *Store) enter(ctx context.Context) error {
	select {
	case s.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *Store) leave() { <-s.slots }

// commit gives the blob its name, if it is what was announced.
func (in *ingest) commit(ctx context.Context) error {
	s := in.s
	if got := ledger.Digest(in.sum.Sum(nil)); in.n != in.size || got != in.digest {
		return in.refuse(fmt.Errorf("%d bytes with digest %s, want %d", in.n, got, in.size))
	}
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	if err := in.file.Sync(); err != nil {
		in.err = s.fail("sync of "+in.path, err)
		return in.err
	}
	file := in.file
	in.file = nil
	if err := file.Close(); err != nil {
		in.err = diskError(err)
		return in.err
	}
	if err := in.publish(); err != nil {
		in.err = err
		return err
	}
	return nil
}

// publish renames the temporary file. The blob is in the index once its name is durable.
func (in *ingest) publish() error {
	s := in.s
	final := s.Path(in.digest)
	s.names.Lock()
	defer s.names.Unlock()
	if err := s.Err(); err != nil {
		return err
	}
	if err := s.fs.Rename(in.path, final); err != nil {
		return diskError(err)
	}
	in.path = ""
	if err := s.fs.SyncDir(filepath.Dir(final)); err != nil {
		return s.fail("sync of "+filepath.Dir(final), err)
	}
	s.shards[in.digest[0]] = synced
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serial++
	s.index[in.digest] = entry{size: in.size, id: s.serial, since: time.Now()}
	delete(s.missing, in.digest)
	s.counts.Ingested++
	s.counts.IngestedBytes += uint64(in.size)
	return nil
}

// close removes the temporary file, if there still is one.
func (in *ingest) close() {
	in.s.mu.Lock()
	in.s.pending -= in.size - in.n
	in.s.mu.Unlock()
	if in.file != nil {
		_ = in.file.Close() // the file goes
	}
	if in.path != "" {
		_ = in.s.fs.Remove(in.path) // else by the next Open
	}
}

// diskError gives a full disk its name.
func diskError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}
