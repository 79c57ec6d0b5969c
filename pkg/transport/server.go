package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// ServerOptions say how an embedded NATS server is reached.
type ServerOptions struct {
	// Listen is host:port, port 0 for a free one; empty: only connections within the process.
	Listen string
	// TLS encrypts what comes in by Listen; nil only on a loopback address.
	TLS *tls.Config
	// Token, if not empty, is what every connection must show, see [Options]; those within the process do by themselves.
	Token string
	// Log gets what the server has to say, its notices at the debug level; nil: nothing is logged.
	Log *slog.Logger
}

// Server is a NATS server in this process, without persistence. Close it.
type Server struct {
	nats  *server.Server
	tls   bool
	token string
}

// StartServer starts a server and returns once it takes connections.
func StartServer(ctx context.Context, o ServerOptions) (*Server, error) {
	opts := &server.Options{
		ServerName:    "kelvin",
		DontListen:    o.Listen == "",
		MaxPayload:    1 << 20,
		NoSigs:        true, // signals belong to the program
		TLSConfig:     o.TLS,
		TLSTimeout:    5,
		Authorization: o.Token,
	}
	if o.Listen != "" {
		if err := o.listen(opts); err != nil {
			return nil, fmt.Errorf("transport: server: %w", err)
		}
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		return nil, fmt.Errorf("transport: server: %w", err)
	}
	failed := make(chan error, 1)
	srv.SetLoggerV2(&serverLog{o.Log, failed}, false, false, false)
	srv.Start()
	s := &Server{nats: srv, tls: o.TLS != nil, token: o.Token}
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

func (o ServerOptions) listen(opts *server.Options) error {
	host, port, err := net.SplitHostPort(o.Listen)
	if err != nil {
		return fmt.Errorf("listen: %q, want host:port", o.Listen)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fmt.Errorf("listen: port %q, want 0 to 65535", port)
	}
	if ip := net.ParseIP(host); o.TLS == nil && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("listen: %q without TLS, want TLS or a loopback address", o.Listen)
	}
	opts.Host, opts.Port = host, int(n)
	if n == 0 {
		opts.Port = server.RANDOM_PORT
	}
	return nil
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
