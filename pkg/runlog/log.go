package runlog

import (
	"io"
	"log/slog"
	"time"

	"github.com/lmittmann/tint"
)

// LogOptions says how a handler writes.
type LogOptions struct {
	Level slog.Leveler // slog.LevelInfo when nil
	Color bool         // for a terminal
	JSON  bool         // one JSON object a line, for machines; Color is then of no effect
}

// NewLogHandler returns a handler whose lines go through a progress, so that they and the bar do not garble each other.
//
//	log := slog.New(runlog.NewLogHandler(progress, runlog.LogOptions{Color: options.Color}))
func NewLogHandler(p Progress, o LogOptions) slog.Handler { return NewHandler(lineWriter{p}, o) }

// NewHandler returns a handler for a program without a progress.
func NewHandler(w io.Writer, o LogOptions) slog.Handler {
	if o.JSON {
		return slog.NewJSONHandler(w, &slog.HandlerOptions{Level: o.Level})
	}
	return tint.NewTextHandler(w, &tint.Options{Level: o.Level, TimeFormat: time.TimeOnly, NoColor: !o.Color})
}

// lineWriter hands every Write, which handlers make once a line, to a progress.
type lineWriter struct{ p Progress }

var _ io.Writer = lineWriter{}

func (w lineWriter) Write(line []byte) (int, error) {
	w.p.Log(string(line))
	return len(line), nil
}
