package runlog

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// clock is a hand-set time.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func newClock() *clock { return &clock{time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }

// buffer is a bytes.Buffer that the bar's own goroutine may write to.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func train(p Progress, c *clock, steps, every int) {
	c.t = c.t.Add(1500 * time.Millisecond) // compiling
	for s := every; s <= steps; s += every {
		p.Update(s, Status{Loss: 2 * math.Exp(-float64(s)/3000), SwapAccept: []float64{0.4, 0.7, 0.5}})
		c.t = c.t.Add(time.Duration(every) * 5 * time.Millisecond)
		if s == 2000 {
			p.Log("cut 1 at step 2000\n")
		}
	}
}

func TestPlainLinesBecomeSeldom(t *testing.T) {
	var out bytes.Buffer
	c := newClock()
	p := NewProgress(&out, ProgressOptions{Name: "two-moons", Total: 9600, Now: c.now})
	train(p, c, 9600, 1)
	p.Done("trained in 49.5 s")
	p.Log("a word after the end")
	p.Update(9601, Status{})
	p.Done("again")
	golden(t, "plain.txt", out.Bytes())
}

func TestPlainInterruptedRunSaysItsLastStep(t *testing.T) {
	var out bytes.Buffer
	c := newClock()
	p := NewProgress(&out, ProgressOptions{Total: 100, Start: 40, Now: c.now})
	for s := 41; s <= 50; s++ {
		c.t = c.t.Add(20 * time.Millisecond)
		p.Update(s, Status{Loss: -3e-5, Note: "cut 3"})
	}
	p.Done("")
	want := "step 41/100  41%  loss -3.000e-05  cut 3\nstep 50/100  50%  50.0 steps/s  1s left  loss -3.000e-05  cut 3\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestQuietShowsLogLinesAlone(t *testing.T) {
	var out bytes.Buffer
	c := newClock()
	p := NewProgress(&out, ProgressOptions{Total: 3000, Quiet: true, Terminal: true, Now: c.now})
	train(p, c, 3000, 1000)
	p.Done("trained")
	if out.String() != "cut 1 at step 2000\n" {
		t.Errorf("%q", out.String())
	}
}

// screen plays what was written to a terminal and returns its lines: text, newline, cursor up, erase below, colours.
func screen(t *testing.T, written string) []string {
	t.Helper()
	lines := []string{""}
	row := 0
	for len(written) > 0 {
		if rest, ok := strings.CutPrefix(written, "\x1b["); ok {
			end := strings.IndexFunc(rest, func(r rune) bool { return r >= '@' && r <= '~' })
			n := 0
			switch rest[end] {
			case 'A':
				fmt.Sscan(rest[:end], &n)
				row -= n
				if row < 0 {
					t.Fatal("the cursor left the screen")
				}
			case 'J':
				lines = append(lines[:row], "")
			case 'm':
			default:
				t.Fatalf("sequence %q", rest[:end+1])
			}
			written = rest[end+1:]
			continue
		}
		if written[0] == '\n' {
			row++
			if row == len(lines) {
				lines = append(lines, "")
			}
		} else {
			lines[row] += written[:1]
		}
		written = written[1:]
	}
	return lines[:len(lines)-1]
}

func TestTheBarAndLogLinesDoNotGarbleEachOther(t *testing.T) {
	for _, color := range []bool{false, true} {
		var out buffer
		c := newClock()
		p := NewProgress(&out, ProgressOptions{Name: "two-moons", Total: 9600, Terminal: true, Width: 110, Color: color, Now: c.now})
		train(p, c, 9600, 100)
		for i := range 20 {
			p.Log(fmt.Sprintf("late i=%d", i))
		}
		p.Done("trained in 49.5 s")
		p.Log("after")
		lines := screen(t, out.String())
		if len(lines) != 24 {
			t.Fatalf("%d lines:\n%s", len(lines), strings.Join(lines, "\n"))
		}
		if lines[0] != "cut 1 at step 2000" || !strings.HasSuffix(lines[20], "late i=19") || lines[22] != "trained in 49.5 s" || lines[23] != "after" {
			t.Errorf("screen:\n%s", strings.Join(lines, "\n"))
		}
		bar := lines[21]
		if n := len([]rune(bar)); n != 110 {
			t.Errorf("the bar has %d columns: %q", n, bar)
		}
		for _, want := range []string{"two-moons  100% ━━━━", "9600/9600  200/s  loss 0.0815  swap 0.40 min 0.53 mean"} {
			if !strings.Contains(bar, want) {
				t.Errorf("%q lacks %q", bar, want)
			}
		}
		if strings.Contains(out.String(), "\x1b[38") != color {
			t.Errorf("colours are there: %v, want %v", !color, color)
		}
	}
}

func TestANarrowBarLeavesWordsOut(t *testing.T) {
	for _, width := range []int{10, 20, 40, 60, 80} {
		var out buffer
		c := newClock()
		p := NewProgress(&out, ProgressOptions{Name: "eight-gaussians", Total: 9600, Terminal: true, Width: width, Now: c.now})
		train(p, c, 4800, 100)
		p.Done("")
		lines := screen(t, out.String())
		last := lines[len(lines)-1]
		if n := len([]rune(last)); n > width || !strings.Contains(last, "50%") {
			t.Errorf("width %d: %d columns: %q", width, n, last)
		}
		if width >= 80 && !strings.Contains(last, "4800/9600  200/s  loss 0.4038  swap 0.40") {
			t.Errorf("width %d: %q", width, last)
		}
	}
}

func TestABarEndsWhereARunWasInterrupted(t *testing.T) {
	var out buffer
	p := NewProgress(&out, ProgressOptions{Total: 100, Start: 40, Terminal: true})
	p.Update(60, Status{Loss: 1})
	p.Done("interrupted: go on with --resume")
	p.Update(70, Status{})
	p.Done("again")
	lines := screen(t, out.String())
	if len(lines) != 2 || !strings.Contains(lines[0], " 60%") || lines[1] != "interrupted: go on with --resume" {
		t.Errorf("%q", lines)
	}
}

// A file stands for a terminal of unknown size.
func TestABarIsDrawnWithoutATerminalSize(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "terminal"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := NewProgress(f, ProgressOptions{Total: 10, Terminal: true, Width: 60})
	p.Update(5, Status{Loss: 1})
	p.Done("")
	data, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if lines := screen(t, string(data)); len(lines) != 1 || !strings.Contains(lines[0], "50% ━━━") {
		t.Errorf("%q", lines)
	}
}

func TestTerminals(t *testing.T) {
	for _, tc := range []struct {
		name            string
		isTerminal      bool
		env             map[string]string
		terminal, color bool
	}{
		{"terminal", true, nil, true, true},
		{"no terminal", false, nil, false, false},
		{"NO_COLOR", true, map[string]string{"NO_COLOR": "1"}, true, false},
		{"dumb", true, map[string]string{"TERM": "dumb"}, false, false},
	} {
		o := ProgressOptions{}.forTerminal(tc.isTerminal, func(key string) string { return tc.env[key] })
		if o.Terminal != tc.terminal || o.Color != tc.color {
			t.Errorf("%s: %+v", tc.name, o)
		}
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if o := (ProgressOptions{}).ForTerminal(f); o.Terminal {
		t.Error("a file is no terminal")
	}
}

func TestLogHandlers(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tc := range []struct {
		name string
		o    LogOptions
		want string
	}{
		{"plain", LogOptions{}, "03:04:05 WRN swap rung=3\n"},
		{"json", LogOptions{JSON: true}, `{"time":"2026-01-02T03:04:05Z","level":"WARN","msg":"swap","rung":3}` + "\n"},
		{"level", LogOptions{Level: slog.LevelError}, ""},
	} {
		var out bytes.Buffer
		h := NewHandler(&out, tc.o)
		if h.Enabled(context.Background(), slog.LevelWarn) {
			r := slog.NewRecord(at, slog.LevelWarn, "swap", 0)
			r.Add("rung", 3)
			if err := h.Handle(context.Background(), r); err != nil {
				t.Fatal(err)
			}
		}
		if out.String() != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, out.String(), tc.want)
		}
	}
}

func TestTimesLeft(t *testing.T) {
	for d, want := range map[time.Duration]string{
		7600 * time.Millisecond: "8s", 200 * time.Second: "3m20s", 2*time.Hour + 5*time.Minute: "2h05m", 76 * time.Hour: "3d04h", 0: "0s",
	} {
		if got := formatLeft(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func TestThePaceFollowsAChange(t *testing.T) {
	c := newClock()
	p := newPace(ProgressOptions{Total: 1e6, Now: c.now})
	step := 0
	run := func(seconds int, each time.Duration) {
		for end := c.t.Add(time.Duration(seconds) * time.Second); c.t.Before(end); {
			step++
			c.t = c.t.Add(each)
			p.update(step, c.t)
		}
	}
	run(20, 10*time.Millisecond)
	if got := p.rate(); math.Abs(got-100) > 1 {
		t.Errorf("rate %g, want 100", got)
	}
	run(20, 40*time.Millisecond)
	if got := p.rate(); math.Abs(got-25) > 1 {
		t.Errorf("rate %g, want 25", got)
	}
	if len(p.marks) > maxMarks {
		t.Errorf("%d marks", len(p.marks))
	}
}
