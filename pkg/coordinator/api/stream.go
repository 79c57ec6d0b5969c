package api

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// maxLine bounds a line of a stream.
const maxLine = 4 << 20 // bytes

// Watch yields what changes behind a log index; 0 yields all that there is first. A lost connection is made again, with any
// coordinator, and nothing is missed; an error ends it.
func (c *Client) Watch(ctx context.Context, since uint64) iter.Seq2[Change, error] {
	return c.watch(ctx, since, url.Values{})
}

// WatchExperiment is Watch for one experiment alone.
func (c *Client) WatchExperiment(ctx context.Context, name string, since uint64) iter.Seq2[Change, error] {
	return c.watch(ctx, since, url.Values{"experiment": {name}})
}

func (c *Client) watch(ctx context.Context, since uint64, query url.Values) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		c.follow(ctx, func() request {
			query.Set("since", strconv.FormatUint(since, 10))
			return request{method: http.MethodGet, path: path("watch"), query: query, twice: true}
		}, func(line []byte, err error) bool {
			var change Change
			if err == nil {
				if err = json.Unmarshal(line, &change); err != nil {
					err = fmt.Errorf("api: watch: %w", err)
				}
			}
			if err != nil {
				yield(change, err)
				return false
			}
			since = max(since, change.Index)
			return change.Kind == KindTick || yield(change, nil)
		})
	}
}

// Experiment is the object of a change of that kind.
func (c Change) Experiment() (Experiment, error) { return object[Experiment](c) }

// Event is the object of a change of that kind.
func (c Change) Event() (Event, error) { return object[Event](c) }

// Member is the object of a change of that kind.
func (c Change) Member() (Member, error) { return object[Member](c) }

// Inventory is the object of a change of that kind.
func (c Change) Inventory() (Inventory, error) { return object[Inventory](c) }

func object[T any](c Change) (out T, err error) {
	if err = json.Unmarshal(c.Object, &out); err != nil {
		err = fmt.Errorf("api: object of kind %s: %w", c.Kind, err)
	}
	return out, err
}

// Metrics yields the records of an experiment behind a step, -1 for all, that the leader has: those of its times as one. With follow
// it waits for more until the experiment is in a final phase; a lost connection is made again, and no record comes twice.
func (c *Client) Metrics(ctx context.Context, name string, from int64, follow bool) iter.Seq2[Metric, error] {
	return func(yield func(Metric, error) bool) {
		next := func() request {
			query := url.Values{"from": {strconv.FormatInt(from, 10)}}
			if follow {
				query.Set("follow", "1")
			}
			return request{method: http.MethodGet, path: path("experiments", name, "metrics"), query: query, twice: true}
		}
		c.follow(ctx, next, func(line []byte, err error) bool {
			var at struct{ Step *uint64 }
			if err == nil {
				if err = json.Unmarshal(line, &at); err == nil && at.Step == nil {
					err = errors.New("no step")
				}
				if err != nil {
					err = fmt.Errorf("api: metrics of %s: %w", name, err)
				}
			}
			if err != nil {
				yield(Metric{}, err)
				return false
			}
			if int64(*at.Step) <= from {
				return true
			}
			from = int64(*at.Step)
			return yield(Metric{*at.Step, bytes.Clone(line)}, nil)
		})
	}
}

// follow hands the lines of a stream on, over as many connections as it takes. The server ends a stream that is over with the
// trailer Kelvin-End; any other end is a loss.
func (c *Client) follow(ctx context.Context, next func() request, each func(line []byte, err error) bool) {
	pause := firstPause
	for {
		res, err := c.send(ctx, next())
		if err != nil {
			each(nil, err)
			return
		}
		lines := bufio.NewScanner(res.Body)
		lines.Buffer(nil, maxLine)
		for lines.Scan() {
			pause = firstPause
			if len(lines.Bytes()) == 0 { // a sign of life
				continue
			}
			if !each(lines.Bytes(), nil) {
				res.Body.Close()
				return
			}
		}
		res.Body.Close()
		if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
			each(nil, fmt.Errorf("api: a line of more than %d bytes", maxLine))
			return
		}
		if res.Trailer.Get(EndTrailer) != "" {
			return
		}
		select {
		case <-ctx.Done():
			each(nil, gaveUp(ctx, next(), nil))
			return
		case <-time.After(pause):
			pause = min(2*pause, longestPause)
		}
	}
}

// Headers of this interface.
const (
	EndTrailer       = "Kelvin-End"        // trailer of a stream that came to its end
	CredentialHeader = "Kelvin-Credential" // of the answer to Ask: what a join token is exchanged for
)

// HasBlob says whether the coordinators have a blob.
func (c *Client) HasBlob(ctx context.Context, digest string) (bool, error) {
	_, err := call[struct{}](ctx, c, request{method: http.MethodHead, path: path("blobs", digest), twice: true}, nil)
	var e *Error
	if errors.As(err, &e) && e.Code == NotFound {
		return false, nil
	}
	return err == nil, err
}

// PutBlob uploads a blob; one that the coordinators have is not sent. When it returns nil most of them have it on disk; they
// keep it for ten minutes, and then as long as a cut names it. open is called for every attempt.
func (c *Client) PutBlob(ctx context.Context, digest string, size int64, open func() (io.ReadCloser, error)) error {
	_, err := call[struct{}](ctx, c, request{method: http.MethodPut, path: path("blobs", digest), body: open, size: size, twice: true,
		header: http.Header{"Content-Type": {"application/octet-stream"}, "Expect": {"100-continue"}}}, nil)
	return err
}

// kept is how long coordinators keep a blob that nothing names.
const kept = 10 * time.Minute

// PutBlobs uploads blobs, by their digests, as PutBlob does. When it returns nil all of them are kept for five minutes more at
// least: those that came long before the last are made new.
func (c *Client) PutBlobs(ctx context.Context, blobs map[string][]byte) error {
	return renewed(slices.Sorted(maps.Keys(blobs)), func(digest string) error {
		data := blobs[digest]
		return c.PutBlob(ctx, digest, int64(len(data)), func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
	})
}

// renewed puts all, and each again as soon as it is old.
func renewed(digests []string, put func(digest string) error) error {
	begun := map[string]time.Time{}
	old := func(digest string) bool {
		at, there := begun[digest]
		return there && time.Since(at) > kept/2
	}
	missing := func(digest string) bool { return begun[digest].IsZero() }
	for {
		i := slices.IndexFunc(digests, old)
		if i < 0 {
			i = slices.IndexFunc(digests, missing)
		}
		if i < 0 {
			return nil
		}
		begun[digests[i]] = time.Now()
		if err := put(digests[i]); err != nil {
			return err
		}
	}
}

// Blob writes a blob to w. A lost connection is made again where it broke off. The bytes are checked against the digest; an
// error may come after all of them were written.
func (c *Client) Blob(ctx context.Context, digest string, w io.Writer) (int64, error) {
	want, err := hex.DecodeString(digest)
	if err != nil || len(want) != sha256.Size {
		return 0, Errorf(Invalid, "blob %q, want a SHA-256 in hex", digest)
	}
	h := sha256.New()
	var at int64
	fail := func(format string, args ...any) (int64, error) {
		return at, fmt.Errorf("api: blob %.12s: "+format, append([]any{digest}, args...)...)
	}
	for broken := 0; ; {
		r := request{method: http.MethodGet, path: path("blobs", digest), twice: true}
		if at > 0 {
			r.header = http.Header{"Range": {fmt.Sprintf("bytes=%d-", at)}}
		}
		res, err := c.send(ctx, r)
		if err != nil {
			return at, err
		}
		if at > 0 && res.StatusCode != http.StatusPartialContent {
			res.Body.Close()
			return fail("asked for the rest from byte %d, got %s", at, res.Status)
		}
		sink := &sink{w: io.MultiWriter(w, h)}
		n, err := io.Copy(sink, res.Body)
		res.Body.Close()
		if at += n; n > 0 {
			broken = 0
		}
		switch {
		case err == nil:
			if got := h.Sum(nil); !bytes.Equal(got, want) {
				return fail("the %d bytes have the digest %x", at, got)
			}
			return at, nil
		case sink.err != nil:
			return fail("%w", sink.err)
		case ctx.Err() != nil:
			return at, gaveUp(ctx, r, nil)
		}
		if broken++; broken > 5 {
			return fail("after %d bytes: %w", at, err)
		}
	}
}

// sink keeps a writer's error apart from the reader's.
type sink struct {
	w   io.Writer
	err error
}

func (s *sink) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.err = err
	return n, err
}

// slow is how long a backup or its restoring may be silent.
const slow = 30 * time.Minute

// Backup writes a backup of the whole cluster, a tar file, to w. It cannot go on after a lost connection.
func (c *Client) Backup(ctx context.Context, w io.Writer) (int64, error) {
	res, err := c.send(ctx, request{method: http.MethodGet, path: path("backup"), twice: true, silence: slow})
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	n, err := io.Copy(w, res.Body)
	if err == nil && res.Trailer.Get(EndTrailer) == "" {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return n, fmt.Errorf("api: backup, after %d bytes: %w", n, err)
	}
	return n, nil
}

// Restore puts a backup into an empty cluster; into another only if force is its id. open is called for every attempt.
func (c *Client) Restore(ctx context.Context, size int64, open func() (io.ReadCloser, error), force string) (Restored, error) {
	r := request{method: http.MethodPost, path: path("restore"), body: open, size: size, silence: slow, header: http.Header{"Content-Type": {"application/x-tar"}}}
	if force != "" {
		r.query = url.Values{"force": {force}}
	}
	return call[Restored](ctx, c, r, nil)
}
