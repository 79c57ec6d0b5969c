package blobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// Pin keeps GC from a blob, here or not, until release is called, once or more often.
func (s *Store) Pin(digest ledger.Digest) (release func()) {
	s.mu.Lock()
	s.pins[digest]++
	s.mu.Unlock()
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.pins[digest]--; s.pins[digest] == 0 {
			delete(s.pins, digest)
		}
	})
}

// Hold keeps GC from all blobs until release is called, as while a restore brings what nothing references yet.
func (s *Store) Hold() (release func()) {
	s.names.Lock() // whatever GC is removing is removed now
	s.mu.Lock()
	s.holds++
	s.mu.Unlock()
	s.names.Unlock()
	return sync.OnceFunc(func() {
		s.mu.Lock()
		s.holds--
		s.mu.Unlock()
	})
}

// GC removes the blobs that are not referenced, were neither put nor required within the grace, and are not pinned. It
// removes none while the store is held. What has been missing for that long and is not referenced is not missing any more,
// and what was set aside a week ago is removed. referenced speaks of a state that is younger than the grace; what it does
// not know of yet, Require protects.
func (s *Store) GC(ctx context.Context, referenced func(ledger.Digest) bool) (removed int, err error) {
	var errs []error
	old := time.Now().Add(-s.grace)
	for _, d := range s.digests() {
		if ctx.Err() != nil {
			return removed, fmt.Errorf("blobs: gc: %w", context.Cause(ctx))
		}
		if referenced(d) {
			continue
		}
		gone, err := s.remove(d, func(e entry) bool { return s.holds == 0 && s.pins[d] == 0 && !e.since.After(old) })
		if gone {
			removed++
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	for _, d := range s.Missing() {
		if !referenced(d) {
			s.mu.Lock()
			if since, ok := s.missing[d]; ok && !since.After(old) {
				delete(s.missing, d)
			}
			s.mu.Unlock()
		}
	}
	errs = append(errs, s.removeBad(time.Now().Add(-badAge)))
	s.mu.Lock()
	s.counts.Removed += uint64(removed)
	s.mu.Unlock()
	if err := errors.Join(errs...); err != nil {
		return removed, fmt.Errorf("blobs: gc: %w", err)
	}
	return removed, nil
}

// removeBad removes what was set aside before a time.
func (s *Store) removeBad(before time.Time) error {
	s.names.Lock()
	defer s.names.Unlock()
	s.mu.Lock()
	var paths []string
	for path, since := range s.bad {
		if since.Before(before) {
			paths = append(paths, path)
		}
	}
	s.mu.Unlock()
	for _, path := range paths {
		if err := s.fs.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		s.mu.Lock()
		delete(s.bad, path)
		s.mu.Unlock()
	}
	return nil
}

// Scrub reads all blobs once, at the pace of Config.ScrubRate, and sets the damaged ones aside. If ctx ends first, the
// next Scrub goes on where this one stopped, in another process too. Only one may run at a time.
func (s *Store) Scrub(ctx context.Context) error {
	last, next := s.scrubState()
	digests := s.digests()
	from, _ := slices.BinarySearchFunc(digests, next, compareDigests)
	saved := time.Now()
	for _, d := range digests[from:] {
		err := s.verify(ctx, d, s.scrubs.take)
		if ctx.Err() != nil {
			s.saveScrub(last, d)
			return fmt.Errorf("blobs: scrub: %w", context.Cause(ctx))
		}
		if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrCorrupt) {
			s.log.Warn("blob cannot be read", "blob", d, "err", err)
		}
		s.mu.Lock()
		s.counts.ScrubbedBytes += uint64(s.index[d].size)
		s.mu.Unlock()
		if time.Since(saved) > time.Minute {
			s.saveScrub(last, d)
			saved = time.Now()
		}
	}
	s.saveScrub(time.Now(), ledger.Digest{})
	return nil
}

// scrubFile holds when the last pass ended, in seconds since 1970, and the digest where the present one goes on. Losing it
// costs a pass from the start, so it need not be durable.
const scrubFile = "scrub"

func (s *Store) scrubState() (last time.Time, next ledger.Digest) {
	f, err := s.fs.Open(filepath.Join(s.dir, scrubFile))
	if err != nil {
		return last, next
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 1024))
	if err != nil {
		return last, next
	}
	when, where, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	seconds, err := strconv.ParseInt(when, 10, 64)
	if err != nil {
		return last, next
	}
	if next, err = ParseDigest(where); err != nil {
		return last, ledger.Digest{}
	}
	return time.Unix(seconds, 0), next
}

func (s *Store) saveScrub(last time.Time, next ledger.Digest) {
	path := filepath.Join(s.dir, scrubFile)
	_ = s.fs.Remove(path + tempSuffix)
	f, err := s.fs.Create(path+tempSuffix, false)
	if err == nil {
		_, err = fmt.Fprintf(f, "%d %s\n", last.Unix(), next)
		err = errors.Join(err, f.Close())
	}
	if err == nil {
		err = s.fs.Rename(path+tempSuffix, path)
	}
	if err != nil {
		s.log.Warn("scrub's place is not saved", "err", err)
	}
}
