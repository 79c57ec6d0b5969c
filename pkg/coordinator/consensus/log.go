package consensus

import (
	"context"
	"io"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// hcLogger is a logger for the raft libraries. What they warn of is an election or a peer that does not answer, and the cluster
// deals with it by itself.
func hcLogger(log *slog.Logger, warn slog.Level) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Debug, Output: io.Discard})
	l.RegisterSink(logSink{log, warn})
	return l
}

type logSink struct {
	to   *slog.Logger
	warn slog.Level // of their warnings
}

// Accept implements [hclog.SinkAdapter].
func (s logSink) Accept(name string, level hclog.Level, msg string, args ...any) {
	l := slog.LevelDebug
	switch level {
	case hclog.Warn:
		l = s.warn
	case hclog.Error:
		l = slog.LevelWarn
	}
	s.to.Log(context.Background(), l, name+": "+msg, args...)
}
