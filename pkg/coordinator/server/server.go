package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/consensus"
)

// Options are what a [Server] answers from.
type Options struct {
	Name string // of the coordinator
	Node Node
	Work Work
	// Check says what an experiment file comes to, or what is wrong with it: one line for each fault.
	Check func(yaml []byte, dir string) (Submitted, error)
	// TokenFile is where the first leader writes the first token.
	TokenFile string
	// Foreign says that the message servers are not the coordinators': they must not see an experiment's secret.
	Foreign bool
	Version string       // of the program
	Log     *slog.Logger // nil: nothing is logged
}

// Server answers for one coordinator. It is safe for concurrent use. Close it.
type Server struct {
	name      string
	node      Node
	work      Work
	check     func(yaml []byte, dir string) (Submitted, error)
	tokenFile string
	foreign   bool
	version   string
	log       *slog.Logger
	now       func() time.Time

	routes  []route
	mux     *http.ServeMux
	metrics *metrics
	rates   *rates
	feed    feed
	joins   joins
	uploads chan struct{} // taken by whoever uploads
	streams chan struct{}
	began   atomic.Bool // a leader was known once
	ended   context.Context
	end     context.CancelFunc
	overdue context.Context // ends closing later

	gate   sync.RWMutex // held for reading by every request
	closed bool
}

// New makes a server. It answers once its handlers are served, and does the leader's work while Lead runs.
func New(o Options) (*Server, error) {
	if o.Name == "" || o.Node == nil || o.Work == nil || o.Check == nil || o.TokenFile == "" {
		return nil, errors.New("server: want a name, a node, work, a check and a token file")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		name: o.Name, node: o.Node, work: o.Work, check: o.Check, tokenFile: o.TokenFile, foreign: o.Foreign, version: o.Version, log: o.Log, now: time.Now,
		mux: http.NewServeMux(), rates: newRates(time.Now), uploads: make(chan struct{}, maxUploads), streams: make(chan struct{}, maxStreams),
	}
	s.ended, s.end = context.WithCancel(context.Background())
	var giveUp context.CancelFunc
	s.overdue, giveUp = context.WithCancel(context.Background())
	context.AfterFunc(s.ended, func() { time.AfterFunc(closing, giveUp) })
	s.feed.node = o.Node
	s.metrics = newMetrics(s)
	s.routes = s.table()
	for i := range s.routes {
		rt := &s.routes[i]
		s.mux.HandleFunc(rt.method+" "+rt.path, func(w http.ResponseWriter, r *http.Request) { s.answer(rt, w, r) })
	}
	return s, nil
}

// Close ends the streams and waits for all requests, which have ten seconds. Those that come later are refused.
func (s *Server) Close() {
	s.end()
	s.gate.Lock()
	defer s.gate.Unlock()
	s.closed = true
}

// atLoopback is the header by which the coordinator that passes a request on says that it came from its own machine. Nobody else
// can set it, or consensus.ForwardedBy: see Handler.
const atLoopback = "Kelvin-Loopback"

// Handler answers clients.
func (s *Server) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del(consensus.ForwardedBy)
		r.Header.Del(atLoopback)
		s.serve(w, r)
	})
}

// PeerHandler answers what other coordinators pass on.
func (s *Server) PeerHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(consensus.ForwardedBy) == "" {
			r.Header.Set(consensus.ForwardedBy, "another coordinator")
		}
		s.serve(w, r)
	})
}

// serve finds the route, and sees to it that a request leaves a line in the log, and a panic nothing but that.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	start := s.now()
	rec := &recorder{ResponseWriter: w}
	who := new(string)
	_, pattern := s.mux.Handler(r)
	if path.Clean(r.URL.Path) != r.URL.Path { // the mux would redirect
		pattern = ""
	}
	defer func() {
		p := recover()
		if p != nil && p != http.ErrAbortHandler {
			s.metrics.panics.Inc()
			s.log.Error("panic in a request", "route", pattern, "panic", p, "stack", string(debug.Stack()))
			if rec.status == 0 {
				s.fail(rec, api.Errorf(api.Internal, "%s: internal error, see the coordinator's log", r.URL.Path))
			}
		}
		s.metrics.request(pattern, rec.code(), s.now().Sub(start))
		level := slog.LevelDebug
		if r.Method != http.MethodGet && r.Method != http.MethodHead && !strings.HasSuffix(pattern, "/pool/ask") {
			level = slog.LevelInfo // who did what
		}
		s.log.Log(r.Context(), level, "request", "method", r.Method, "route", pattern, "path", r.URL.Path, "status", rec.code(), "bytes", rec.bytes,
			"ms", s.now().Sub(start).Milliseconds(), "token", *who, "from", r.RemoteAddr, "by", r.Header.Get(consensus.ForwardedBy))
		if p == http.ErrAbortHandler {
			panic(p) // an answer broke off, and the client must see it
		}
	}()
	r = r.WithContext(context.WithValue(r.Context(), whoKey{}, who))
	switch {
	case s.closed:
		s.fail(rec, api.Errorf(api.Unavailable, "coordinator %s is being stopped", s.name))
	case !headerFits(r):
		e := api.Errorf(api.Invalid, "header of more than %d bytes", maxHeader)
		e.Status = http.StatusRequestHeaderFieldsTooLarge
		s.fail(rec, e)
	case pattern == "":
		s.fail(rec, s.unrouted(r))
	default:
		s.mux.ServeHTTP(rec, r)
	}
}

// whoKey is where the context of a request keeps the name of its token, for the log.
type whoKey struct{}

func (s *Server) unrouted(r *http.Request) *api.Error {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		if path.Clean(r.URL.Path) != r.URL.Path {
			break
		}
		other := r.Clone(r.Context())
		other.Method = method
		if _, pattern := s.mux.Handler(other); pattern != "" {
			allowed = append(allowed, method)
		}
	}
	if allowed == nil {
		return &api.Error{Code: api.NotFound, Message: fmt.Sprintf("no such path %s", r.URL.Path), Next: "GET /openapi.json lists them"}
	}
	e := api.Errorf(api.Invalid, "%s %s, want %s", r.Method, r.URL.Path, strings.Join(allowed, " or "))
	e.Status = http.StatusMethodNotAllowed
	return e
}

// answer goes with a request as far as it may.
func (s *Server) answer(rt *route, w http.ResponseWriter, r *http.Request) {
	c := &call{Server: s, route: rt, w: w, r: r}
	pace := pace{http.NewResponseController(w)}
	if rt.stream {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(s.ended, cancel)()
		c.r = r.WithContext(ctx)
		c.w, c.r.Body = &moving{w, pace}, &arriving{r.Body, pace}
		pace.write(0)
		defer pace.write(stallTimeout) // for what is left in buffers
	} else {
		ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
		defer cancel()
		defer context.AfterFunc(s.overdue, cancel)()
		c.r = r.WithContext(ctx)
		pace.read(callTimeout)
		pace.write(callTimeout + stallTimeout)
	}
	out, err := c.do()
	switch v := out.(type) {
	case nil:
		if err == nil {
			w.WriteHeader(http.StatusNoContent)
		}
	case handled:
	case created:
		s.write(w, http.StatusCreated, v.object)
	default:
		s.write(w, http.StatusOK, v)
	}
	if err != nil {
		s.fail(w, fault(err))
	}
}

// What a handler may return beside an object to send.
type (
	handled struct{}             // it has answered
	created struct{ object any } // something is there now
)

// recorder notes what is answered.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= 200 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	return n, err
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *recorder) code() int {
	if r.status == 0 {
		return http.StatusOK
	}
	return r.status
}
