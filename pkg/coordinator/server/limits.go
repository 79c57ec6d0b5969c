package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"mime"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
)

// Limits of requests.
const (
	maxHeader  = 16 << 10 // bytes
	maxBody    = 1 << 20  // bytes of a JSON body
	maxDepth   = 32       // of a JSON body
	maxUploads = 64       // in flight
	maxStreams = 1024     // watches and followed metrics
	ratePerSec = 50       // requests of a token
	rateBurst  = 200
)

// How long a request may take. A stream or a transfer may take any time, as long as it moves.
const (
	headerTimeout = 10 * time.Second
	callTimeout   = time.Minute
	stallTimeout  = 30 * time.Second
	signOfLife    = 15 * time.Second // between two lines of a stream, at most
)

// decode reads a JSON body into v: of one value, not too large and not too deep, without fields that v does not have.
func decode(w http.ResponseWriter, r *http.Request, v any) error {
	if kind := r.Header.Get("Content-Type"); kind != "" {
		if media, _, err := mime.ParseMediaType(kind); err != nil || media != "application/json" {
			e := api.Errorf(api.Invalid, "content type %q, want application/json", kind)
			e.Status = http.StatusUnsupportedMediaType
			return e
		}
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return bodyError(err)
	}
	return unmarshal(data, v)
}

func bodyError(err error) error {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		e := api.Errorf(api.Invalid, "body of more than %d bytes", large.Limit)
		e.Status = http.StatusRequestEntityTooLarge
		return e
	}
	e := api.Errorf(api.Invalid, "read the body: %v", err)
	e.Status = http.StatusBadRequest
	return e
}

func unmarshal(data []byte, v any) error {
	malformed := func(format string, args ...any) error {
		e := api.Errorf(api.Invalid, "body: "+format, args...)
		e.Status = http.StatusBadRequest
		return e
	}
	if depth(data) > maxDepth {
		return malformed("nested deeper than %d", maxDepth)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case err == io.EOF:
		return malformed("empty, want a JSON object")
	case errors.As(err, &syntax):
		return malformed("byte %d: %v", syntax.Offset, syntax)
	case errors.As(err, &kind):
		return malformed("%s: %s, want %v", kind.Field, kind.Value, kind.Type)
	case err != nil:
		return malformed("%s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := dec.Token(); err != io.EOF {
		return malformed("more than one value")
	}
	return nil
}

// depth is how deeply the brackets of a JSON text are nested, at most. The text need not be well-formed.
func depth(data []byte) int {
	at, most := 0, 0
	quoted, escaped := false, false
	for _, b := range data {
		switch {
		case escaped:
			escaped = false
		case quoted && b == '\\':
			escaped = true
		case b == '"':
			quoted = !quoted
		case quoted:
		case b == '{', b == '[':
			at++
			most = max(most, at)
		case b == '}', b == ']':
			at--
		}
	}
	return most
}

// headerFits says whether a header is within its limit: net/http has one too, and is generous.
func headerFits(r *http.Request) bool {
	n := len(r.RequestURI)
	for name, values := range r.Header {
		for _, v := range values {
			n += len(name) + len(v) + len(": \r\n")
		}
	}
	return n <= maxHeader
}

// rates holds a bucket of requests for everybody who sends some. It is safe for concurrent use.
type rates struct {
	now func() time.Time

	mu      sync.Mutex
	buckets map[string]*bucket
}

// bucket fills with ratePerSec a second, up to rateBurst.
type bucket struct {
	level float64
	at    time.Time
}

// manyBuckets is when those that are full again are dropped.
const manyBuckets = 4096

func newRates(now func() time.Time) *rates { return &rates{now: now, buckets: map[string]*bucket{}} }

// take takes one request from who's bucket. Where none is left it says how long to wait for the next.
func (r *rates) take(who string) (wait time.Duration, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if len(r.buckets) >= manyBuckets {
		for k, b := range r.buckets {
			if b.filled(now) >= rateBurst {
				delete(r.buckets, k)
			}
		}
	}
	b := r.buckets[who]
	if b == nil {
		b = &bucket{level: rateBurst, at: now}
		r.buckets[who] = b
	}
	b.level, b.at = b.filled(now), now
	if b.level < 1 {
		return time.Duration((1 - b.level) / ratePerSec * float64(time.Second)), false
	}
	b.level--
	return 0, true
}

func (b *bucket) filled(now time.Time) float64 {
	return math.Min(rateBurst, b.level+ratePerSec*now.Sub(b.at).Seconds())
}

// pace says how long reading and writing may take from now on, 0 for any time. Not every connection can be told.
type pace struct{ deadlines *http.ResponseController }

func until(d time.Duration) time.Time {
	if d == 0 {
		return time.Time{}
	}
	return time.Now().Add(d)
}

func (p pace) read(d time.Duration)  { _ = p.deadlines.SetReadDeadline(until(d)) }
func (p pace) write(d time.Duration) { _ = p.deadlines.SetWriteDeadline(until(d)) }

// moving gives a stream as much time as it needs, as long as somebody reads it. A deadline stands only while something is
// written: it ends an HTTP/2 stream even where nothing is.
type moving struct {
	http.ResponseWriter
	pace pace
}

func (m *moving) Write(p []byte) (int, error) {
	m.pace.write(stallTimeout)
	defer m.pace.write(0)
	return m.ResponseWriter.Write(p)
}

// FlushError is for http.ResponseController.
func (m *moving) FlushError() error {
	m.pace.write(stallTimeout)
	defer m.pace.write(0)
	return m.pace.deadlines.Flush()
}

// arriving gives an upload as much time as it needs, as long as bytes arrive. Once all have, it may take any time.
type arriving struct {
	io.ReadCloser
	pace pace
}

func (a *arriving) Read(p []byte) (int, error) {
	a.pace.read(stallTimeout)
	n, err := a.ReadCloser.Read(p)
	if err != nil {
		a.pace.read(0)
	}
	return n, err
}
