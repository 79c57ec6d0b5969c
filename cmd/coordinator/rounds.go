package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/kelvin-ebm/kelvin/pkg/local"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// roundTable shows rounds as they end, a row each, in columns that are as wide as their numbers usually are.
type roundTable struct {
	w       io.Writer
	started bool
	err     error // of writing, the first
}

// widths are those of the columns of [tempering.Round.Row], after the round's number.
var widths = []int{5, 5, 8, 5, 5, 6, 9, 20, 9, 5, 6, 7}

func (t *roundTable) add(r *tempering.Round) {
	if !t.started {
		t.line(append([]string{"round"}, r.Header()...))
		t.started = true
	}
	name := fmt.Sprint(r.Number)
	if r.Kind == "measure" {
		name = "final"
	}
	t.line(append([]string{name}, r.Row()...))
}

func (t *roundTable) line(cells []string) {
	var b strings.Builder
	for i, c := range cells {
		b.WriteString(strings.Repeat(" ", max(widths[i]-utf8.RuneCountInString(c), 0)) + c)
		if i < len(cells)-1 {
			b.WriteString("  ")
		}
	}
	if err := printf(t.w, "%s\n", b.String()); t.err == nil {
		t.err = err
	}
}

// rungTable has a row a rung; what belongs to a pair stands in the row of its hotter rung.
func rungTable(w io.Writer, r *tempering.Round) {
	t := newTable(w, "rung", "β", "step size", "swaps", "accept", "ρ_V", "overlap", "up")
	t.SetTitle("%d rungs, %d ladders, %s path, %s, %s", len(r.Betas), r.Ladders, r.Path, r.Schedule, r.Explorer)
	for k, beta := range r.Betas {
		swaps := math.NaN()
		if k < len(r.Rejections) {
			swaps = 1 - r.Rejections[k]
		}
		step, accept := share("%.3g", r.StepSizes, k), share("%.3f", r.Accept, k)
		if k == 0 && r.Path == "linear" {
			step, accept = "drawn", "–"
		}
		t.AppendRow(table.Row{k, fmt.Sprintf("%.4g", beta), step, share("%.3f", []float64{swaps}, 0), accept, share("%.2f", r.RhoV, k), share("%.3f", r.Overlap, k), share("%.2f", r.Up, k)})
	}
	var right []table.ColumnConfig
	for i := range 8 {
		right = append(right, table.ColumnConfig{Number: i + 1, Align: text.AlignRight, AlignHeader: text.AlignRight})
	}
	t.SetColumnConfigs(right)
	t.Render()
}

// share is a number of a list, a dash where there is none.
func share(format string, v []float64, i int) string {
	if i >= len(v) || math.IsNaN(v[i]) {
		return "–"
	}
	return fmt.Sprintf(format, v[i])
}

// swapLines say how the last round swapped, and what ended it.
func swapLines(t *local.Tempering, stop *stopFlags) []string {
	r := t.Final()
	accept := make([]float64, len(r.Rejections))
	for i, x := range r.Rejections {
		accept[i] = 1 - x
	}
	return []string{fmt.Sprintf("swap acceptance %s, %d %s; %s", local.Shares(accept), r.Restarts, plural(int(r.Restarts), "restart"), stop.ended(t, true))}
}

// yieldLine says what the last round's time and gradients bought; empty where that is not known.
func yieldLine(r *tempering.Round) []string {
	name, samples, perSecond, perGradient := r.Yield()
	if math.IsNaN(samples) {
		return nil
	}
	return []string{fmt.Sprintf("effective samples: %.0f of %s, the least; %.3g a second, %.3g a thousand gradients", samples, name, perSecond, 1e3*perGradient)}
}

// logZLines say what the last round knows of log Z; known is the true value, nil where there is none.
func logZLines(t *local.Tempering, known *float64) []string {
	r := t.Final()
	if r.LogZ == nil {
		switch {
		case r.LogZFault != "":
			return []string{"log Z not known: " + r.LogZFault}
		case r.Path == "power":
			return []string{"log Z not measured: the power path has no rung with a known one"}
		case r.Explorer == "langevin":
			return []string{"log Z not measured: langevin is biased, want a sampler with a Metropolis test"}
		}
		return nil
	}
	z := r.LogZ
	line := fmt.Sprintf("log Z %s by the bridge", local.Uncertain(z.Bridge, z.BridgeErr))
	if known != nil {
		line += fmt.Sprintf(", known %.4f", *known)
	}
	relation := "between"
	if z.Forward > z.Bridge || z.Bridge > z.Reverse {
		relation = "beside"
	}
	return []string{line, fmt.Sprintf("  %s forward %s (%s) and reverse %s (%s)", relation,
		local.Uncertain(z.Forward, z.ForwardErr), local.ParetoRemark(z.ForwardK), local.Uncertain(z.Reverse, z.ReverseErr), local.ParetoRemark(z.ReverseK))}
}

// lineWidth is where long sentences are broken.
const lineWidth = 100

// verdictLines are the verdict and the warnings beside it.
func verdictLines(t *local.Tempering) (lines []string) {
	sentence := func(prefix, s string) {
		indent := "\n" + strings.Repeat(" ", utf8.RuneCountInString(prefix))
		var wrapped []string
		for line := range strings.SplitSeq(text.WrapSoft(s, lineWidth), "\n") {
			wrapped = append(wrapped, strings.TrimRight(line, " "))
		}
		lines = append(lines, prefix+strings.Join(wrapped, indent))
	}
	sentence("verdict: ", t.Final().Verdict())
	for _, s := range t.Warnings() {
		sentence("warning: ", s)
	}
	return lines
}
