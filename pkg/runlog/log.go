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

// NewHandler returns a handler whose lines go to w.
//
//	log := slog.New(runlog.NewHandler(os.Stderr, runlog.LogOptions{Color: true}))
func NewHandler(w io.Writer, o LogOptions) slog.Handler {
	if o.JSON {
		return slog.NewJSONHandler(w, &slog.HandlerOptions{Level: o.Level})
	}
	return tint.NewTextHandler(w, &tint.Options{Level: o.Level, TimeFormat: time.TimeOnly, NoColor: !o.Color})
}
