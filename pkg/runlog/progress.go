package runlog

import (
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// Status is what the progress shows of a step besides the step.
type Status struct {
	Loss       float64
	SwapAccept []float64 // one a pair of rungs; nil without tempering. Least and mean are shown
	Note       string    // a few words more, such as "cut 3"; may be empty
}

// Progress shows a run to a person. All methods may be called from several goroutines, Update at every step: it costs
// little and shows what is due.
type Progress interface {
	// Update says that a step is done.
	Update(step int, s Status)
	// Round says what the steps since the last round came to, in a training by several replicas: a bar shows it as a line
	// above, plain lines add it to the next of them.
	Round(step int, r Round)
	// Replicas says who works, until it is called again. The slice is kept.
	Replicas(replicas []Replica)
	// Log shows a line of text above the progress. It goes on working after Done.
	Log(line string)
	// Done ends the progress, at its last step or wherever it was interrupted, and shows a closing line unless it is empty.
	// Nothing of the progress runs or writes after it.
	Done(closing string)
}

// ProgressOptions says what NewProgress shows and where.
type ProgressOptions struct {
	Name  string // of the run
	Total int    // steps wanted, at least 1
	Start int    // steps made before, when the run was resumed

	Replicas int // that work on it; several have a line each

	Quiet    bool             // show log lines only
	Terminal bool             // a bar that is redrawn, instead of lines
	Width    int              // columns, when w itself is no terminal; 80 by default
	Color    bool             // with colours
	Now      func() time.Time // time.Now by default
}

// ForTerminal fills in Terminal and Color for what f is: a bar when f is a terminal that can redraw a line, with colours
// unless the environment variable NO_COLOR is set to something (no-color.org).
func (o ProgressOptions) ForTerminal(f *os.File) ProgressOptions {
	return o.forTerminal(term.IsTerminal(int(f.Fd())), os.Getenv)
}

func (o ProgressOptions) forTerminal(isTerminal bool, env func(string) string) ProgressOptions {
	o.Terminal = isTerminal && env("TERM") != "dumb"
	o.Color = o.Terminal && env("NO_COLOR") == ""
	return o
}

// NewProgress starts a progress that writes to w: a bar, plain lines, or nothing but log lines. The caller ends it by Done.
func NewProgress(w io.Writer, o ProgressOptions) Progress {
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Total = max(o.Total, 1)
	switch {
	case o.Quiet:
		return &quiet{w: w}
	case o.Terminal:
		return newBar(w, o)
	}
	return &plain{w: w, o: o, pace: newPace(o)}
}

// quiet shows log lines alone.
type quiet struct {
	mu sync.Mutex
	w  io.Writer
}

func (q *quiet) Update(int, Status) {}
func (q *quiet) Round(int, Round)   {}
func (q *quiet) Replicas([]Replica) {}
func (q *quiet) Done(string)        {}

func (q *quiet) Log(line string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	writeLine(q.w, line)
}

// plain shows a line now and then, for log files and pipes: at the first step, then ever more seldom, as due says.
type plain struct {
	mu       sync.Mutex // guards all below
	w        io.Writer
	o        ProgressOptions
	pace     pace
	seen     bool
	due      time.Duration // since the start: when the next line is due
	shown    int           // step of the last line
	last     Status
	round    Round // the last; zero before
	replicas []Replica
	done     bool
}

// due is when the next line is wanted, given the time that passed: at 1, 2, 5, 10, 20, 30 seconds, every minute up to
// ten minutes, then every five.
func due(passed time.Duration) time.Duration {
	for _, s := range []time.Duration{1, 2, 5, 10, 20, 30, 60} {
		if passed < s*time.Second {
			return s * time.Second
		}
	}
	every := time.Minute
	if passed >= 10*time.Minute {
		every = 5 * time.Minute
	}
	return passed.Truncate(every) + every
}

func (p *plain) Update(step int, s Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done {
		return
	}
	now := p.o.Now()
	p.pace.update(step, now)
	p.last = s
	passed := now.Sub(p.pace.start)
	if p.seen && passed < p.due {
		return
	}
	p.seen, p.due = true, due(passed)
	p.line(s)
}

func (p *plain) line(s Status) {
	p.shown = p.pace.step
	percent := 100 * p.pace.step / p.o.Total
	parts := []string{fmt.Sprintf("step %d/%d", p.pace.step, p.o.Total), fmt.Sprintf("%d%%", percent)}
	if rate := p.pace.rate(); rate > 0 {
		parts = append(parts, formatRate(rate)+" steps/s")
		if p.pace.step < p.o.Total {
			parts = append(parts, formatLeft(p.pace.left())+" left")
		}
	}
	parts = append(parts, statusParts(s)...)
	parts = append(parts, p.round.added()...)
	writeLine(p.w, strings.Join(parts, "  "))
	if len(p.replicas) > 0 {
		writeLine(p.w, replicasLine(p.replicas))
	}
}

func (p *plain) Round(_ int, r Round) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.round = r
}

func (p *plain) Replicas(replicas []Replica) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.replicas = replicas
}

func (p *plain) Log(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	writeLine(p.w, line)
}

func (p *plain) Done(closing string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done {
		return
	}
	p.done = true
	if p.seen && p.shown != p.pace.step {
		p.line(p.last)
	}
	if closing != "" {
		writeLine(p.w, closing)
	}
}

// pace measures how fast steps pass: over the last quarter of the time so far, so that a slow start (compiling) is
// forgotten and a long run's estimate stays calm.
type pace struct {
	start    time.Time
	step     int
	now      time.Time
	total    int
	marks    []mark // steps and their times, oldest first, about evenly spaced
	interval time.Duration
}

type mark struct {
	step int
	at   time.Time
}

const maxMarks = 64

func newPace(o ProgressOptions) pace {
	now := o.Now()
	return pace{start: now, now: now, step: o.Start, total: o.Total, marks: []mark{{o.Start, now}}, interval: 50 * time.Millisecond}
}

func (p *pace) update(step int, now time.Time) {
	if len(p.marks) == 1 && p.step == p.marks[0].step && step > p.step {
		// The first step holds the compiling of the graphs: measure from its end.
		p.marks = append(p.marks, mark{step, now})
	} else if now.Sub(p.marks[len(p.marks)-1].at) >= p.interval {
		p.marks = append(p.marks, mark{step, now})
		if len(p.marks) > maxMarks { // twice as far apart
			kept := p.marks[:0]
			for i := 0; i < len(p.marks); i += 2 {
				kept = append(kept, p.marks[i])
			}
			p.marks, p.interval = kept, 2*p.interval
		}
	}
	p.step, p.now = step, now
}

// rate is in steps a second; 0 while it is not known.
func (p *pace) rate() float64 {
	if len(p.marks) < 2 {
		return 0
	}
	from := p.marks[1]
	since := p.now.Add(-p.now.Sub(p.start) / 4)
	for _, m := range p.marks[2:] {
		if m.at.After(since) {
			break
		}
		from = m
	}
	seconds := p.now.Sub(from.at).Seconds()
	if p.step == from.step || seconds <= 0 {
		return 0
	}
	return float64(p.step-from.step) / seconds
}

// left is the time that the remaining steps take at this rate.
func (p *pace) left() time.Duration {
	rate := p.rate()
	if rate <= 0 {
		return 0
	}
	return time.Duration(float64(p.total-p.step) / rate * float64(time.Second))
}

func formatRate(rate float64) string {
	switch {
	case rate >= 99.5:
		return fmt.Sprintf("%.0f", rate)
	case rate >= 9.95:
		return fmt.Sprintf("%.1f", rate)
	}
	return fmt.Sprintf("%.2f", rate)
}

// formatLeft rounds a time to what a person wants to know: 8s, 3m20s, 2h05m, 3d04h.
func formatLeft(d time.Duration) string {
	d = d.Round(time.Second)
	h, m, s := int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60
	switch {
	case h >= 48:
		return fmt.Sprintf("%dd%02dh", h/24, h%24)
	case h > 0:
		return fmt.Sprintf("%dh%02dm", h, m)
	case m > 0:
		return fmt.Sprintf("%dm%02ds", m, s)
	}
	return fmt.Sprintf("%ds", s)
}

// formatLoss keeps four digits, and the sign's place, so that lines stand below each other.
func formatLoss(x float64) string {
	if a := math.Abs(x); a != 0 && (a < 1e-3 || a >= 1e4) {
		return fmt.Sprintf("%.3e", x)
	}
	return fmt.Sprintf("%.4f", x)
}

func statusParts(s Status) []string {
	parts := []string{"loss " + formatLoss(s.Loss)}
	if len(s.SwapAccept) > 0 {
		least, mean := leastAndMean(s.SwapAccept)
		parts = append(parts, fmt.Sprintf(swapFormat, least, mean))
	}
	if s.Note != "" {
		parts = append(parts, s.Note)
	}
	return parts
}

const swapFormat = "swap %.2f min %.2f mean"

func leastAndMean(accept []float64) (least, mean float64) {
	for _, a := range accept {
		mean += a / float64(len(accept))
	}
	return slices.Min(accept), mean
}

// writeLine writes in one call, so that lines of several writers do not mix. A terminal that went away is no reason to
// end a run: its error is dropped.
func writeLine(w io.Writer, line string) {
	_, _ = io.WriteString(w, strings.TrimSuffix(line, "\n")+"\n")
}
