package plots

import (
	"errors"
	"fmt"
	"image/color"
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// EnergiesFigure draws the energy histogram of every rung, the hottest on top, with the overlap of neighbours between them
// where it is known. It needs Histograms. Hot rungs reach far: the axis ends where the colder half of the ladder would
// be pressed flat, and rows say what share lies beyond. All histograms are as high at their peaks, but for those that
// spread wider than a third of the axis: these are lower, as their area asks for.
func (t Tempering) EnergiesFigure() (*Figure, error) {
	n := len(t.Histograms)
	var errs []error
	if n < 2 {
		errs = append(errs, fmt.Errorf("histograms: %d, want one for each of at least 2 rungs", n))
	}
	if len(t.Betas) > 0 && len(t.Betas) != n {
		errs = append(errs, fmt.Errorf("histograms: %d, want one for each of %d rungs", n, len(t.Betas)))
	}
	for i, h := range t.Histograms {
		if err := h.check(); err != nil {
			errs = append(errs, fmt.Errorf("histograms[%d]: %w", i, err))
		}
	}
	if len(t.Overlap) > 0 {
		errs = append(errs, checkShares("overlap", t.Overlap, n-1))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("plots: energies: %w", err)
	}
	lo, hi := energyRange(t.Histograms)
	pitch := max(11, min(30, 300/vg.Length(n)))
	left, rungColumn := vg.Length(28), vg.Length(-6)
	if len(t.Betas) > 0 {
		left, rungColumn = 68, -48
	}
	right := vg.Length(0)
	if len(t.Overlap) > 0 {
		right = 46
	}
	name := t.EnergyName
	if name == "" {
		name = "energy (nats)"
	}
	// A ridge may rise over the row above it, which the first row has no need of.
	const rise = 1.7
	s := strip{title: "histogram on every rung", height: pitch * (vg.Length(n-1) + rise), axes: func(th Theme) *plot.Plot {
		p := newAxes(th, name, "")
		p.X.Min, p.X.Max = lo, hi
		p.Y.Min, p.Y.Max = 0, float64(n-1)+rise
		p.Y.Tick.Marker = noTicks{}
		st := style(tickSize, false, th.Muted)
		st.XAlign = text.XRight
		p.Add(label{lo, float64(n), rungColumn, 2, "rung", st})
		if len(t.Betas) > 0 {
			p.Add(label{lo, float64(n), -6, 2, "β", st})
		}
		for i, h := range t.Histograms {
			row := float64(n - 1 - i)
			p.Add(ridge{h, row, rise * 0.92, h.peak(hi - lo), th.orderedColor(i, n), th})
			p.Add(label{lo, row, rungColumn, 0, fmt.Sprint(i), st})
			if len(t.Betas) > 0 {
				p.Add(label{lo, row, -6, 0, shortNumber(t.Betas[i]), st})
			}
			if beyond := h.beyond(lo, hi); beyond >= 0.01 {
				// On the left, where it lies, and where the ridge of the next rung seldom reaches.
				note := style(tickSize, false, th.Muted)
				note.XAlign = text.XLeft
				p.Add(label{lo, row, 4, 3, percent(beyond) + " beyond", note})
			}
		}
		if len(t.Overlap) > 0 {
			p.Add(overlaps{t.Overlap, th})
		}
		return p
	}}
	return stack(t.energiesTitle(), t.subtitle(), temperingWidth, left, right, s), nil
}

func (t Tempering) energiesTitle() string {
	low := -1
	for i, o := range t.Overlap {
		if !math.IsNaN(o) && (low < 0 || o < t.Overlap[low]) {
			low = i
		}
	}
	switch {
	case low < 0:
		return "Energies on every rung"
	case t.Overlap[low] < leastShare:
		return fmt.Sprintf("Energies of rungs %d and %d hardly overlap: %.2f", low, low+1, t.Overlap[low])
	default:
		return fmt.Sprintf("Energies of neighbours overlap, least on rungs %d and %d: %.2f", low, low+1, t.Overlap[low])
	}
}

func (h EnergyHistogram) check() error {
	if err := errors.Join(checkFinite("edges", []float64{h.Lo, h.Hi}), rising("edges", h.Lo, h.Hi)); err != nil {
		return err
	}
	for i, c := range h.Counts {
		if c < 0 {
			return fmt.Errorf("counts[%d]: %d, want at least 0", i, c)
		}
	}
	if h.total() == 0 {
		return errors.New("counts: none, want at least 1")
	}
	return nil
}

func (h EnergyHistogram) total() (n int) {
	for _, c := range h.Counts {
		n += c
	}
	return n
}

// edge is the lower edge of bin i.
func (h EnergyHistogram) edge(i int) float64 {
	return h.Lo + (h.Hi-h.Lo)*float64(i)/float64(len(h.Counts))
}

// quantile is the edge below which at least a share of the counts lies.
func (h EnergyHistogram) quantile(share float64) float64 {
	want, sum := share*float64(h.total()), 0
	for i, c := range h.Counts {
		sum += c
		if float64(sum) >= want {
			return h.edge(i + 1)
		}
	}
	return h.Hi
}

// beyond is the share of the counts outside a range, every bin's counts spread evenly over it.
func (h EnergyHistogram) beyond(lo, hi float64) float64 {
	inside := 0.0
	for i, c := range h.Counts {
		a, b := h.edge(i), h.edge(i+1)
		inside += float64(c) * max(0, min(b, hi)-max(a, lo)) / (b - a)
	}
	return 1 - inside/float64(h.total())
}

// energyRange holds 99 % of every rung's counts, but reaches no further than twice the width of the colder half of the
// ladder beyond that half.
func energyRange(rungs []EnergyHistogram) (lo, hi float64) {
	extent := func(part []EnergyHistogram) (lo, hi float64) {
		lo, hi = math.Inf(1), math.Inf(-1)
		for _, h := range part {
			width := (h.Hi - h.Lo) / float64(len(h.Counts))
			lo, hi = min(lo, h.quantile(0.005)-width), max(hi, h.quantile(0.995))
		}
		return lo, hi
	}
	coldLo, coldHi := extent(rungs[len(rungs)/2:])
	lo, hi = extent(rungs)
	reach := 2 * (coldHi - coldLo)
	return max(lo, coldLo-reach), min(hi, coldHi+reach)
}

// peak is the count of a bin that a ridge draws in full height: the greatest one, or, where it is more, that of a law
// which spreads evenly over a third of the axis.
func (h EnergyHistogram) peak(axis float64) float64 {
	width := (h.Hi - h.Lo) / float64(len(h.Counts))
	return max(float64(slices.Max(h.Counts)), 3*width/axis*float64(h.total()))
}

// ridge draws a histogram that stands on a row, rise rows high where a bin counts peak, over what is behind it.
type ridge struct {
	h               EnergyHistogram
	row, rise, peak float64
	color           color.NRGBA
	th              Theme
}

func (r ridge) Plot(c draw.Canvas, p *plot.Plot) {
	xs, ys := p.Transforms(&c)
	base := ys(r.row)
	var line []vg.Point
	for i, count := range r.h.Counts {
		y := ys(r.row + r.rise*float64(count)/r.peak)
		line = append(line, vg.Point{X: xs(r.h.edge(i)), Y: y}, vg.Point{X: xs(r.h.edge(i + 1)), Y: y})
	}
	line = append([]vg.Point{{X: line[0].X, Y: base}}, append(line, vg.Point{X: line[len(line)-1].X, Y: base})...)
	area := c.ClipPolygonX(line)
	c.FillPolygon(withAlpha(r.th.Background, 0.75), area)
	c.FillPolygon(withAlpha(r.color, 0.45), area)
	c.StrokeLines(draw.LineStyle{Color: r.th.Grid, Width: 0.6}, []vg.Point{{X: c.Min.X, Y: base}, {X: c.Max.X, Y: base}})
	c.StrokeLines(draw.LineStyle{Color: r.color, Width: 1}, c.ClipLinesX(line)...)
}

// overlaps writes the overlap of every pair between its rows, to the right of the data area.
type overlaps struct {
	values []float64
	th     Theme
}

func (o overlaps) Plot(c draw.Canvas, p *plot.Plot) {
	_, ys := p.Transforms(&c)
	head := style(tickSize, false, o.th.Muted)
	head.XAlign = text.XRight
	c.FillText(head, vg.Point{X: c.Max.X + 44, Y: ys(float64(len(o.values)+1)) + 2}, "overlap")
	for i, v := range o.values {
		st := style(tickSize, false, o.th.Foreground)
		if v < leastShare {
			st = style(tickSize, true, warnColor(o.th))
		}
		st.XAlign, st.YAlign = text.XRight, text.YCenter
		s := fmt.Sprintf("%.2f", v)
		if math.IsNaN(v) {
			s = "–"
		}
		row := float64(len(o.values)-i) - 0.5
		c.FillText(st, vg.Point{X: c.Max.X + 44, Y: ys(row)}, s)
	}
}
