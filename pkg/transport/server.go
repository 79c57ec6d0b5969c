package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// ServerOptions say how an embedded NATS server is reached.
type ServerOptions struct {
	// Name is the server's in its log and among the servers of a cluster, each of which has another; "kelvin" if empty.
	Name string
	// Listen is host:port, port 0 for a free one; empty: only connections within the process.
	Listen string
	// TLS encrypts what comes in by Listen; nil only on a loopback address.
	TLS *tls.Config
	// Insecure allows other addresses without TLS too, where something else encrypts what goes over the network.
	Insecure bool
	// Token, if not empty, is what every connection must show, see [Options]; those within the process do by themselves.
	Token string
	// Authenticate, if not nil and in place of Token, says which experiment a user works for, and whether the secret is
	// right: compare it in constant time. The user may then use the subjects of SubjectsOf(experiment) and no others.
	// Connections within the process may do everything. It is called from several goroutines and must not block.
	Authenticate func(user, secret string) (experiment uint64, ok bool)
	// Cluster, if not nil, joins a server that listens with others: whoever is connected to one of them reaches all.
	Cluster *Cluster
	// Log gets what the server has to say, its notices at the debug level; nil: nothing is logged.
	Log *slog.Logger
}

// Server is a NATS server in this process, without persistence. Close it.
type Server struct {
	nats  *server.Server
	tls   bool
	token string

	mu       sync.Mutex
	services map[string][]*Service // by subject, of connections within the process
}

// serves and ends keep services; those of connections from elsewhere, without a server, are not known.
func (s *Server) serves(one *Service) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.services[one.subject] = append(slices.Clip(s.services[one.subject]), one)
}

func (s *Server) ends(one *Service) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	left := slices.DeleteFunc(slices.Clone(s.services[one.subject]), func(other *Service) bool { return other == one })
	if s.services[one.subject] = left; len(left) == 0 {
		delete(s.services, one.subject)
	}
}

// within are the services of a subject by connections of this process.
func (s *Server) within(subject string) []*Service {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.services[subject]
}

// StartServer starts a server and returns once it takes connections; the others of its cluster are looked for meanwhile
// and from then on.
func StartServer(ctx context.Context, o ServerOptions) (*Server, error) {
	opts, err := o.server()
	if err != nil {
		return nil, fmt.Errorf("transport: server: %w", err)
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		return nil, fmt.Errorf("transport: server: %w", err)
	}
	failed := make(chan error, 1)
	srv.SetLoggerV2(&serverLog{o.Log, failed}, false, false, false)
	srv.Start()
	s := &Server{nats: srv, tls: o.TLS != nil, token: o.Token, services: map[string][]*Service{}}
	for ready := false; !ready; {
		if ready = srv.ReadyForConnections(20 * time.Millisecond); ready {
			break
		}
		select {
		case err = <-failed:
		case <-ctx.Done():
			err = context.Cause(ctx)
		default:
		}
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("transport: server: %w", err)
		}
	}
	return s, nil
}

// server are the options in NATS's terms.
func (o ServerOptions) server() (*server.Options, error) {
	opts := &server.Options{
		ServerName:    o.Name,
		DontListen:    o.Listen == "",
		MaxPayload:    1 << 20,
		NoSigs:        true, // signals belong to the program
		TLSConfig:     o.TLS,
		TLSTimeout:    5,
		Authorization: o.Token,
	}
	if o.Name == "" {
		opts.ServerName = "kelvin"
	}
	if o.Authenticate != nil {
		if o.Token != "" {
			return nil, errors.New("a token and users, want one of them")
		}
		opts.CustomClientAuthentication = authenticator{o.Authenticate}
	}
	var err error
	if o.Listen != "" {
		if opts.Host, opts.Port, err = address(o.Listen, o.TLS != nil || o.Insecure); err != nil {
			return nil, fmt.Errorf("listen: %w", err)
		}
	}
	if o.Cluster != nil {
		switch {
		case o.Name == "":
			return nil, errors.New("cluster: no name, want one that no other server has")
		case o.Listen == "": // NATS opens the routes once it listens
			return nil, errors.New("cluster: the server does not listen, want an address")
		}
		if err := o.Cluster.server(opts, o.Insecure); err != nil {
			return nil, fmt.Errorf("cluster: %w", err)
		}
	}
	return opts, nil
}

// address splits host:port. Other machines reach it only where that is safe.
func address(listen string, safe bool) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(listen)
	if err != nil {
		return "", 0, fmt.Errorf("%q, want host:port", listen)
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port %q, want 0 to 65535", text)
	}
	if ip := net.ParseIP(host); !safe && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return "", 0, fmt.Errorf("%q without TLS, want TLS or a loopback address", listen)
	}
	if n == 0 {
		return host, server.RANDOM_PORT, nil
	}
	return host, int(n), nil
}

// URL is where a listening server is reached; empty if it does not listen.
func (s *Server) URL() string {
	addr := s.nats.Addr()
	if addr == nil {
		return ""
	}
	scheme := "nats"
	if s.tls {
		scheme = "tls"
	}
	return scheme + "://" + addr.String()
}

// Close ends all connections and waits until the server is gone.
func (s *Server) Close() {
	s.nats.Shutdown()
	s.nats.WaitForShutdown()
}

// serverLog hands the server's log on. The server reports what keeps it from listening as fatal.
type serverLog struct {
	to     *slog.Logger
	failed chan<- error
}

func (l *serverLog) log(level slog.Level, format string, v []any) {
	if l.to != nil && l.to.Enabled(context.Background(), level) {
		l.to.Log(context.Background(), level, "nats server: "+strings.TrimSpace(fmt.Sprintf(format, v...)))
	}
}

func (l *serverLog) Noticef(format string, v ...any) { l.log(slog.LevelDebug, format, v) }
func (l *serverLog) Debugf(format string, v ...any)  { l.log(slog.LevelDebug, format, v) }
func (l *serverLog) Tracef(format string, v ...any)  { l.log(slog.LevelDebug, format, v) }
func (l *serverLog) Warnf(format string, v ...any)   { l.log(slog.LevelWarn, format, v) }
func (l *serverLog) Errorf(format string, v ...any)  { l.log(slog.LevelError, format, v) }

func (l *serverLog) Fatalf(format string, v ...any) {
	l.log(slog.LevelError, format, v)
	select {
	case l.failed <- errors.New(strings.TrimSpace(fmt.Sprintf(format, v...))):
	default:
	}
}
