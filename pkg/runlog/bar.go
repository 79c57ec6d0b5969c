package runlog

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// SGR sequences of the bar, readable on dark and light grounds. The words have none: mpb would count them as columns.
const (
	sgrReset = "\x1b[0m"
	sgrFaint = "\x1b[2m"
	sgrFill  = "\x1b[38;5;208m"
)

// bar is a line that is redrawn at the bottom of the terminal:
//
//	two-moons   42% ━━━━━━━━━━╸────────── 4032/9600  212/s  26s left  loss 0.1234  swap 0.41 min 0.62 mean
//
// Several replicas have a line each below it, see rows.
type bar struct {
	w        io.Writer
	progress *mpb.Progress
	bar      *mpb.Bar

	o ProgressOptions

	gate sync.RWMutex // held by Log while it writes, so that Done waits for it
	done bool         // guarded by gate

	mu       sync.Mutex // guards all below
	pace     pace
	status   Status
	seen     bool
	replicas []Replica
	width    int // of the terminal, as last drawn
}

func newBar(w io.Writer, o ProgressOptions) *bar {
	if o.Width <= 0 {
		o.Width = 80
	}
	out, width, height := sized(w, o)
	b := &bar{w: w, o: o, pace: newPace(o), width: width}
	b.progress = mpb.New(mpb.WithOutput(out), mpb.WithWidth(o.Width), mpb.ForceTTY(), mpb.WithAutoRefresh())
	style := mpb.BarStyle().Lbound("").Rbound("").Filler("━").Tip("╸").Padding("─").
		FillerMeta(b.paint(sgrFill)).TipMeta(b.paint(sgrFill)).PaddingMeta(b.paint(sgrFaint))
	// The bar takes what the words leave. On a narrow terminal words go first: the width decides which, in right.
	// It has no total at first, so that it does not end by itself at the last step: lines logged then would be lost.
	b.bar = b.progress.New(0, style,
		mpb.PrependDecorators(decor.Any(b.left)),
		mpb.AppendDecorators(decor.Any(b.right)),
		b.rows(height),
	)
	b.bar.SetTotal(int64(o.Total), false)
	b.bar.SetCurrent(int64(o.Start))
	return b
}

// noHeight is the number of lines of a terminal that does not say it.
const noHeight = 24

// sized returns what to draw on and its size. It hides from mpb that w is a terminal when the terminal does not know its
// size, as in some containers: mpb would find no room for the bar.
func sized(w io.Writer, o ProgressOptions) (out io.Writer, width, height int) {
	f, ok := w.(*os.File)
	if !ok {
		return w, o.Width, noHeight
	}
	if width, height, err := term.GetSize(int(f.Fd())); err == nil && width > 0 && height > 0 {
		return w, width, height
	}
	return struct{ io.Writer }{w}, o.Width, noHeight
}

func (b *bar) paint(sgr string) func(string) string {
	return func(s string) string {
		if !b.o.Color || s == "" {
			return s
		}
		return sgr + s + sgrReset
	}
}

// minBar is the width below which the bar itself is worth less than the words beside it.
const minBar = 8

func (b *bar) left(s decor.Statistics) string {
	b.mu.Lock()
	b.width = s.AvailableWidth
	b.mu.Unlock()
	percent := fmt.Sprintf("%3d%%", 100*s.Current/max(s.Total, 1))
	if b.o.Name == "" || s.AvailableWidth < 90+len([]rune(b.o.Name)) { // the numbers are worth more
		return percent
	}
	return b.o.Name + "  " + percent
}

// right writes the words in the order of their use, as many as the width holds beside a bar of the least width.
func (b *bar) right(s decor.Statistics) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	parts := []string{fmt.Sprintf("%d/%d", s.Current, s.Total)}
	if rate := b.pace.rate(); rate > 0 {
		parts = append(parts, formatRate(rate)+"/s")
		if !s.Completed && !s.Aborted {
			parts = append(parts, formatLeft(b.pace.left())+" left")
		}
	}
	if b.seen {
		parts = append(parts, statusParts(b.status)...)
	}
	room := s.AvailableWidth - minBar - 2
	line := ""
	for i, part := range parts {
		if i > 0 {
			part = "  " + part
		}
		if len([]rune(line+part)) > room {
			part, _, _ = strings.Cut(part, " min ") // of the swap acceptance only the least
		}
		if len([]rune(line+part)) > room {
			break
		}
		line += part
	}
	return line
}

func (b *bar) Update(step int, s Status) {
	b.gate.RLock()
	defer b.gate.RUnlock()
	if b.done {
		return
	}
	b.mu.Lock()
	b.pace.update(step, b.o.Now())
	b.status, b.seen = s, true
	b.mu.Unlock() // before asking the bar, which may be asking for the words
	b.bar.SetCurrent(int64(step))
}

func (b *bar) Log(line string) {
	b.gate.RLock()
	defer b.gate.RUnlock()
	line = strings.TrimSuffix(line, "\n")
	if !b.done {
		if _, err := io.WriteString(b.progress, line+"\n"); err == nil {
			return
		} // it gave up: the terminal cannot be written to any more
	}
	writeLine(b.w, line)
}

func (b *bar) Done(closing string) {
	b.gate.Lock()
	defer b.gate.Unlock()
	if b.done {
		return
	}
	b.done = true
	if b.bar.Current() >= int64(b.o.Total) {
		b.bar.EnableTriggerComplete()
	} else {
		b.bar.Abort(false) // keeps the line as it is
	}
	b.progress.Wait()
	if closing != "" {
		writeLine(b.w, closing)
	}
}
