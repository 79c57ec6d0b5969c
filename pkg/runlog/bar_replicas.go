package runlog

import (
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

const (
	maxRows = 16 // of replicas below the bar; the last sums up the rest
	workBar = 16 // columns of a replica's bar
)

// rows are lines below the bar, one for each replica, that show what part of its time it works:
//
//	0  ━━━━━━━━━━━━━╸──  shards 0-1  wait 18 %  1.3 KiB/scan  120 steps
//
// Their number is fixed, since mpb must know it; one that has nothing to show takes no line.
func (b *bar) rows(height int) mpb.BarOption {
	if b.o.Replicas < 2 {
		return nil
	}
	// The bar, a line above it and the cursor need room too.
	n := min(b.o.Replicas, maxRows, max(height-3, 0))
	fillers := make([]mpb.BarFiller, n)
	for i := range fillers {
		fillers[i] = mpb.BarFillerFunc(func(w io.Writer, s decor.Statistics) error {
			b.mu.Lock()
			lines := b.replicaRows(n, s.AvailableWidth)
			b.mu.Unlock()
			if i >= len(lines) {
				return nil
			}
			_, err := io.WriteString(w, lines[i]+"\n")
			return err
		})
	}
	return mpb.BarBtmExtender(fillers...)
}

// replicaRows are at most n lines of at most width columns. The caller holds the lock.
func (b *bar) replicaRows(n, width int) []string {
	shown := b.replicas
	switch {
	case n == 0:
		return nil
	case len(shown) > n:
		shown = shown[:n-1]
	}
	id, work := 0, 0
	for _, r := range shown {
		id, work = max(id, columns(r.ID)), max(work, columns(r.work()))
	}
	var lines []string
	for _, r := range shown {
		line := fit(fmt.Sprintf("%*s", id, r.ID), width)
		space := width - columns(line)
		add := func(text string, columns int) {
			if space >= columns+2 {
				line, space = line+"  "+text, space-columns-2
			} else {
				space = 0 // nothing behind a gap
			}
		}
		if width >= 60 {
			add(b.workBar(r), workBar)
		}
		words := []string{fmt.Sprintf("%-*s", work, r.work())}
		if r.busy() {
			words = append(words, fmt.Sprintf("wait %3.0f %%", 100*r.Traffic.WaitShare), fmt.Sprintf("%10s/scan", formatBytes(r.Traffic.BytesPerScan)))
		}
		if !r.Gone && r.Steps > 0 {
			words = append(words, fmt.Sprintf("%d steps", r.Steps))
		}
		for _, word := range words {
			add(word, columns(word))
		}
		lines = append(lines, strings.TrimRight(line, " "))
	}
	if more := len(b.replicas) - len(shown); more > 0 {
		lines = append(lines, fit(fmt.Sprintf("and %d more", more), width))
	}
	return lines
}

// fit cuts off what is beyond the width.
func fit(text string, width int) string {
	runes := []rune(text)
	return string(runes[:min(len(runes), width)])
}

// workBar shows the share of the time that a replica does not wait; without traffic it is empty.
func (b *bar) workBar(r Replica) string {
	full := 0
	if r.busy() {
		full = min(max(int(math.Round((1-r.Traffic.WaitShare)*workBar)), 0), workBar)
	}
	return b.paint(sgrFill)(strings.Repeat("━", full)) + b.paint(sgrFaint)(strings.Repeat("─", workBar-full))
}

func (b *bar) Replicas(replicas []Replica) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.replicas = replicas
}

func (b *bar) Round(step int, r Round) {
	b.mu.Lock()
	width := b.width
	b.mu.Unlock()
	b.Log(r.line(step, b.o.Total, width))
}
