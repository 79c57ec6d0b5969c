package api

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Config says which coordinators a [Client] talks to.
type Config struct {
	Endpoints []string    // https://host:port each; http only on a loopback address, or with Insecure
	Token     string      // bearer token; "": none
	TLS       *tls.Config // certificates to show and to trust; nil: the system's
	Insecure  bool        // allows http to any address: others can then read the token
	// Silence is how long a coordinator may say nothing before the attempt is given up; 0: 45 s, which is more than a long
	// poll and the gap between two signs of life of a stream.
	Silence time.Duration
	// Patience is how long a call is tried again while no coordinator answers or no leader is known; 0: 15 s, negative: as
	// long as its context lasts.
	Patience time.Duration
}

const (
	defaultSilence  = 45 * time.Second
	defaultPatience = 15 * time.Second
	dialTimeout     = 5 * time.Second
	firstPause      = 50 * time.Millisecond // after a round of all endpoints; doubled each time
	longestPause    = 2 * time.Second
	maxAnswer       = 64 << 20 // bytes of an answer that is held in memory
)

// Client calls the coordinators. It is safe for concurrent use. Close it.
type Client struct {
	cfg         Config
	endpoints   []*url.URL
	http        *http.Client
	consistency string
	at          *atomic.Uint32 // endpoint that answered last; shared with the clients of Reading
	credential  *atomic.Value  // string that replaces the token in Ask; shared too
}

// Consistency of reads, see Client.Reading.
const (
	Linearizable = "linearizable" // all that was acknowledged before
	Leader       = "leader"       // what the leader knows, without asking the others; the default
	Stale        = "stale"        // what the coordinator that is asked knows
)

// New makes a client. It connects at the first call.
func New(cfg Config) (*Client, error) {
	if len(cfg.Endpoints) == 0 {
		return nil, errors.New("api: no endpoint, want the URL of a coordinator such as https://localhost:8443")
	}
	if cfg.Silence == 0 {
		cfg.Silence = defaultSilence
	}
	if cfg.Patience == 0 {
		cfg.Patience = defaultPatience
	}
	c := &Client{cfg: cfg, at: new(atomic.Uint32), credential: new(atomic.Value)}
	for _, text := range cfg.Endpoints {
		u, err := parseEndpoint(text, cfg.Insecure)
		if err != nil {
			return nil, fmt.Errorf("api: %w", err)
		}
		c.endpoints = append(c.endpoints, u)
	}
	c.http = &http.Client{
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext,
			TLSClientConfig:     cfg.TLS,
			TLSHandshakeTimeout: dialTimeout,
			ForceAttemptHTTP2:   true,
			MaxIdleConnsPerHost: 4,
			// A blob that is there need not be sent.
			ExpectContinueTimeout: dialTimeout,
			IdleConnTimeout:       time.Minute,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

func parseEndpoint(text string, insecure bool) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("endpoint %q, want a URL such as https://localhost:8443", text)
	}
	if u.User != nil || u.RawQuery != "" {
		return nil, fmt.Errorf("endpoint of %s: it holds a user or a query, want neither: a token comes from a file", u.Host)
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme == "http" && !insecure && u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("endpoint %q, want https: over http others can read the token", text)
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	return u, nil
}

// ReadToken is the token in a file. Its errors name the file.
func ReadToken(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(data))
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("%s: want one line with a token and nothing else", path)
	}
	return token, nil
}

// Reading is a client whose reads have another consistency. It shares connections with c, and needs no Close of its own.
func (c *Client) Reading(consistency string) *Client {
	other := *c
	other.consistency = consistency
	return &other
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// request is a call, to whichever coordinator answers.
type request struct {
	method, path string
	query        url.Values
	header       http.Header
	body         func() (io.ReadCloser, error) // opened for every attempt; nil: none
	size         int64
	// twice says that it may be sent again when nobody knows whether it was done.
	twice   bool
	silence time.Duration // instead of Config.Silence; 0: that
	token   string        // instead of Config.Token; "": that
}

// send tries the endpoints in turn. The caller closes the answer's body; it is a success.
func (c *Client) send(ctx context.Context, r request) (*http.Response, error) {
	var last *Error
	give := time.Now().Add(c.cfg.Patience)
	pause, first := firstPause, c.at.Load()
	for try := uint32(0); ; try++ {
		n := uint32(len(c.endpoints))
		which := (first + try) % n
		res, sent, err := c.attempt(ctx, c.endpoints[which], r)
		if err == nil {
			c.at.Store(which)
			return res, nil
		}
		if ctx.Err() != nil {
			return nil, gaveUp(ctx, r, cmp.Or(last, err))
		}
		last = err
		if !worthAgain(err, sent, r.twice) {
			return nil, err
		}
		if (try+1)%n != 0 {
			continue
		}
		wait := max(pause/2+rand.N(pause/2), min(err.after, longestPause))
		pause = min(2*pause, longestPause)
		if c.cfg.Patience > 0 && time.Now().Add(wait).After(give) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, gaveUp(ctx, r, last)
		case <-time.After(wait):
		}
	}
}

// worthAgain says whether another attempt may come to something else, and cannot do the same thing twice.
func worthAgain(err *Error, sent, twice bool) bool {
	var verify *tls.CertificateVerificationError
	switch {
	case errors.As(err, &verify), err.foreign:
		return false
	case err.Code == NoLeader, err.Code == Unavailable && err.Status != 0:
		return true
	case err.Code == Unavailable:
		return !sent || twice
	case err.Code == Timeout:
		return twice
	}
	return false
}

// gaveUp is the error of a call whose context ended; last says what it met before.
func gaveUp(ctx context.Context, r request, last *Error) *Error {
	cause := context.Cause(ctx)
	e := &Error{Code: Timeout, Message: fmt.Sprintf("%s %s: %v", r.method, r.path, cause), Cause: cause}
	if last != nil && !errors.Is(last, ctx.Err()) {
		e.Message += " (" + last.Message + ")"
	}
	return e
}

// attempt sends a request to one endpoint. sent says whether it may have been done.
func (c *Client) attempt(ctx context.Context, to *url.URL, r request) (_ *http.Response, sent bool, _ *Error) {
	ctx, cancel := context.WithCancelCause(ctx)
	silence := r.silence
	if silence == 0 {
		silence = c.cfg.Silence
	}
	dog := &watchdog{after: silence, timer: time.AfterFunc(silence, func() { cancel(fmt.Errorf("silent for %v", silence)) }), end: func() { cancel(nil) }}
	failed := func(err error) (*http.Response, bool, *Error) {
		dog.stop()
		if cause := context.Cause(ctx); cause != nil && cause != context.Canceled {
			err = cause
		}
		var e *url.Error
		if errors.As(err, &e) {
			err = e.Err // without the URL, which is told once
		}
		return nil, sent, &Error{Code: Unavailable, Message: fmt.Sprintf("%s: %v", to, err), Cause: err}
	}
	target := *to
	target.Path += r.path
	target.RawPath = ""
	if p, err := url.PathUnescape(r.path); err == nil { // r.path is escaped
		target.Path, target.RawPath = to.Path+p, to.EscapedPath()+r.path
	}
	target.RawQuery = r.query.Encode()
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent = true }})
	req, err := http.NewRequestWithContext(traced, r.method, target.String(), nil)
	if err != nil {
		return failed(err)
	}
	if r.body != nil {
		body, err := r.body()
		if err != nil {
			return failed(err)
		}
		req.Body, req.ContentLength = &watched{body, dog, false}, r.size
	}
	for k, v := range r.header {
		req.Header[k] = v
	}
	if token := cmp.Or(r.token, c.cfg.Token); token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return failed(err)
	}
	dog.pet()
	res.Body = &watched{res.Body, dog, true}
	if res.StatusCode < 300 || res.StatusCode == http.StatusNotModified {
		return res, true, nil
	}
	defer res.Body.Close()
	return nil, true, failure(to, res)
}

// failure reads the error in an answer.
func failure(from *url.URL, res *http.Response) *Error {
	data, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	var f Failure
	if json.Unmarshal(data, &f) != nil || f.Error == nil || f.Error.Code == "" {
		f.Error = &Error{Code: codeOf(res.StatusCode), Message: fmt.Sprintf("%s: answers %s, which is not an answer of a coordinator", from, res.Status)}
		if res.Request.Method == http.MethodHead {
			f.Error.Message = fmt.Sprintf("%s: %s", from, strings.ToLower(http.StatusText(res.StatusCode)))
		} else if res.StatusCode < 500 {
			f.Error.Code, f.Error.foreign = Unavailable, true // what a coordinator would say is not known
		}
	}
	f.Error.Status = res.StatusCode
	if seconds, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil {
		f.Error.after = time.Duration(min(max(seconds, 0), 3600)) * time.Second
	}
	return f.Error
}

func codeOf(status int) Code {
	switch status {
	case http.StatusNotFound:
		return NotFound
	case http.StatusConflict, http.StatusPreconditionFailed:
		return Conflict
	case http.StatusUnauthorized:
		return Unauthorized
	case http.StatusForbidden:
		return Forbidden
	case http.StatusServiceUnavailable, http.StatusTooManyRequests, http.StatusBadGateway:
		return Unavailable
	case http.StatusGatewayTimeout:
		return Timeout
	}
	if status < 500 {
		return Invalid
	}
	return Internal
}

// watchdog ends an attempt in which nothing happens.
type watchdog struct {
	after time.Duration
	timer *time.Timer
	end   func()
}

func (d *watchdog) pet() { d.timer.Reset(d.after) }

func (d *watchdog) stop() {
	d.timer.Stop()
	d.end()
}

// watched is a body whose bytes are signs of life; the end of the last one ends the attempt.
type watched struct {
	io.ReadCloser
	dog  *watchdog
	last bool
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if n > 0 {
		w.dog.pet()
	}
	return n, err
}

func (w *watched) Close() error {
	err := w.ReadCloser.Close()
	if w.last {
		w.dog.stop()
	}
	return err
}

// call sends body, if not nil, as JSON and reads the answer into an object; no content leaves it zero.
func call[T any](ctx context.Context, c *Client, r request, body any) (T, error) {
	out, _, err := exchange[T](ctx, c, r, body)
	return out, err
}

func exchange[T any](ctx context.Context, c *Client, r request, body any) (out T, header http.Header, err error) {
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return out, nil, fmt.Errorf("api: %s %s: %w", r.method, r.path, err)
		}
		r.body = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
		r.size = int64(len(data))
		r.header = withHeader(r.header, "Content-Type", "application/json")
	}
	res, err := c.send(ctx, r)
	if err != nil {
		return out, nil, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err == nil && len(data) > maxAnswer {
		err = fmt.Errorf("more than %d bytes", maxAnswer)
	}
	if err == nil && len(data) > 0 {
		err = json.Unmarshal(data, &out)
	}
	if err != nil {
		return out, nil, &Error{Code: Timeout, Message: fmt.Sprintf("%s %s: the answer: %v", r.method, r.path, err), Status: res.StatusCode, Cause: err}
	}
	return out, res.Header, nil
}

func withHeader(h http.Header, key, value string) http.Header {
	if h == nil {
		h = http.Header{}
	}
	h.Set(key, value)
	return h
}

// read gets an object with the client's consistency.
func read[T any](ctx context.Context, c *Client, path string) (T, error) {
	return call[T](ctx, c, c.reading(path, nil), nil)
}

func (c *Client) reading(path string, query url.Values) request {
	if c.consistency != "" {
		if query == nil {
			query = url.Values{}
		}
		query.Set("consistency", c.consistency)
	}
	return request{method: http.MethodGet, path: path, query: query, twice: true}
}
