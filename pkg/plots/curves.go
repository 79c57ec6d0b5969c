package plots

import (
	"errors"
	"fmt"
	"image/color"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Series is one curve: X rises, such as steps, and Y has as many numbers.
type Series struct {
	Name string
	X, Y []float64
}

// Level is a dashed horizontal line, such as the entropy of the data law below a loss.
type Level struct {
	Name string
	Y    float64
}

// Panel is one pair of axes of Curves.
type Panel struct {
	Title  string // what is measured, with its unit
	Series []Series
	Levels []Level
	LogY   bool       // all Y and levels above 0
	Range  [2]float64 // of the y axis where it rises; else what the curves need
	// Ordered says that the series have an order, such as pairs of rungs from the hottest to the coldest: their colours
	// then run from warm to cool.
	Ordered bool
	// Smooth draws noisy curves as faint bands, with a bold mean over one fiftieth of the axis on top.
	Smooth bool
}

// CurvesOptions says how Curves draws.
type CurvesOptions struct {
	Title, Subtitle string
	XLabel          string // "step" by default
	LogX            bool
}

// Curves stacks panels with one x axis for all. Where a few values would press a curve flat, the y axis leaves them out
// and the panel's title says how many.
func Curves(o CurvesOptions, panels ...Panel) (*Figure, error) {
	if len(panels) == 0 {
		return nil, errors.New("plots: curves: no panels")
	}
	var errs []error
	lo, hi := math.Inf(1), math.Inf(-1)
	for i, p := range panels {
		if err := p.check(o.LogX); err != nil {
			errs = append(errs, fmt.Errorf("plots: curves: panel %d (%s): %w", i, p.Title, err))
			continue
		}
		for _, s := range p.Series {
			lo, hi = min(lo, s.X[0]), max(hi, s.X[len(s.X)-1])
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if lo == hi {
		lo, hi = lo-0.5, hi+0.5
		if o.LogX {
			lo = hi / 2
		}
	}
	if o.XLabel == "" {
		o.XLabel = "step"
	}
	const width, panelHeight, heading, left, bottom, gap = 660, 150, 17, 50, 30, 14
	rows := make([]int, len(panels))
	height := 2*margin + headerHeight(o.Title, o.Subtitle) + bottom - gap
	for i, p := range panels {
		rows[i] = len(legendRows(p.keys(Light), width-2*margin-left))
		if p.ramp() {
			rows[i] = 1
		}
		height += heading + legendRow*vg.Length(rows[i]) + 3 + panelHeight + 12 + gap
	}
	f := &Figure{width: width, height: height}
	f.draw = func(c draw.Canvas, th Theme) {
		c = header(inset(c), th, o.Title, o.Subtitle)
		for i, p := range panels {
			last := i == len(panels)-1
			label := ""
			if last {
				label = o.XLabel
			}
			axes := newAxes(th, label, "")
			axes.X.Min, axes.X.Max = lo, hi
			if o.LogX {
				axes.X.Scale, axes.X.Tick.Marker = plot.LogScale{}, logTicks{}
			}
			outside := p.yRange(axes)
			if p.LogY {
				axes.Y.Scale, axes.Y.Tick.Marker = plot.LogScale{}, logTicks{}
			}
			for _, l := range p.Levels {
				axes.Add(level{l.Y, th.Foreground})
			}
			for k, s := range p.Series {
				col := p.color(th, k)
				if p.Smooth && len(s.X) > 100 {
					axes.Add(band{s, withAlpha(col, 0.28)}, curve{smooth(s, o.LogX, axes.Y.Min, axes.Y.Max), col, 1.6})
				} else {
					axes.Add(curve{s, col, 1.4})
				}
			}
			x := c.Min.X + left
			st := style(panelSize, true, th.Foreground)
			st.YAlign = text.YTop
			c.FillText(st, vg.Point{X: x, Y: c.Max.Y}, p.Title)
			if outside > 0 {
				note := style(labelSize, false, th.Muted)
				note.YAlign, note.XAlign = text.YTop, text.XRight
				c.FillText(note, vg.Point{X: c.Max.X, Y: c.Max.Y}, thousands(fmt.Sprint(outside))+" values outside the axis"+map[bool]string{true: ", left out of the mean"}[p.Smooth])
			}
			c = draw.Crop(c, 0, 0, 0, -heading)
			keys := c
			keys.Min.X = x
			if p.ramp() {
				p.drawRamp(keys, th)
			} else {
				legend(keys, th, legendRows(p.keys(th), keys.Max.X-keys.Min.X))
			}
			c = draw.Crop(c, 0, 0, 0, -legendRow*vg.Length(rows[i])-3)
			// The data areas stand below each other, whatever their labels' widths.
			area := c
			inner := axes.DataCanvas(area)
			area.Min.X += x - inner.Min.X
			area.Min.Y = area.Max.Y - panelHeight - (inner.Min.Y - area.Min.Y)
			axes.Draw(area)
			c = draw.Crop(c, 0, 0, 0, -panelHeight-12-gap)
		}
	}
	return f, nil
}

func (p Panel) check(logX bool) error {
	var errs []error
	if len(p.Series) == 0 {
		errs = append(errs, errors.New("no series"))
	}
	for _, s := range p.Series {
		if len(s.X) == 0 || len(s.X) != len(s.Y) {
			errs = append(errs, fmt.Errorf("series %q: %d x and %d y, want as many of both, at least one", s.Name, len(s.X), len(s.Y)))
			continue
		}
		for i := range s.X {
			switch x, y := s.X[i], s.Y[i]; {
			case math.IsNaN(x) || math.IsInf(x, 0) || i > 0 && !(x > s.X[i-1]) || logX && x <= 0:
				errs = append(errs, fmt.Errorf("series %q: x[%d] = %g, want finite, rising values%s", s.Name, i, x, above(logX)))
			case math.IsNaN(y) || math.IsInf(y, 0) || p.LogY && y <= 0:
				errs = append(errs, fmt.Errorf("series %q: at x = %g: %g, want a finite value%s", s.Name, x, y, above(p.LogY)))
			default:
				continue
			}
			break // one fault a series says enough
		}
	}
	for _, l := range p.Levels {
		if math.IsNaN(l.Y) || math.IsInf(l.Y, 0) || p.LogY && l.Y <= 0 {
			errs = append(errs, fmt.Errorf("level %q: %g, want a finite value%s", l.Name, l.Y, above(p.LogY)))
		}
	}
	if err := checkFinite("range", p.Range[:]); err != nil {
		errs = append(errs, err)
	} else if p.Range[0] < p.Range[1] && p.LogY && p.Range[0] <= 0 {
		errs = append(errs, fmt.Errorf("range: from %g, want it above 0 on a logarithmic axis", p.Range[0]))
	}
	return errors.Join(errs...)
}

func above(logarithmic bool) string {
	if logarithmic {
		return " above 0 on a logarithmic axis"
	}
	return ""
}

// yRange sets the y axis and returns how many values it leaves out.
func (p Panel) yRange(axes *plot.Plot) (outside int) {
	var all []float64
	for _, s := range p.Series {
		all = append(all, s.Y...)
	}
	slices.Sort(all)
	forward, back := func(x float64) float64 { return x }, func(x float64) float64 { return x }
	if p.LogY {
		forward, back = math.Log, math.Exp
	}
	at := func(q float64) float64 { return forward(all[int(math.Round(q*float64(len(all)-1)))]) }
	lo, hi := at(0), at(1)
	if low, high := at(0.01), at(0.99); high > low && hi-lo > 6*(high-low) {
		lo, hi = max(lo, low-0.5*(high-low)), min(hi, high+0.5*(high-low))
	}
	for _, l := range p.Levels {
		lo, hi = min(lo, forward(l.Y)), max(hi, forward(l.Y))
	}
	if lo == hi {
		pad := 0.05 * math.Abs(lo)
		if pad == 0 {
			pad = 0.5
		}
		lo, hi = lo-pad, hi+pad
	}
	pad := 0.04 * (hi - lo)
	axes.Y.Min, axes.Y.Max = back(lo-pad), back(hi+pad)
	if p.Range[0] < p.Range[1] {
		axes.Y.Min, axes.Y.Max = p.Range[0], p.Range[1]
	}
	for _, y := range all {
		if y < axes.Y.Min || y > axes.Y.Max {
			outside++
		}
	}
	return outside
}

func (p Panel) color(th Theme, i int) color.NRGBA {
	if p.Ordered {
		return th.orderedColor(i, len(p.Series))
	}
	return th.Series[i%len(th.Series)]
}

func (p Panel) keys(th Theme) []key {
	var keys []key
	for i, s := range p.Series {
		if s.Name != "" {
			keys = append(keys, key{s.Name, p.color(th, i), markLine})
		}
	}
	for _, l := range p.Levels {
		keys = append(keys, key{l.Name, th.Foreground, markDashes})
	}
	return keys
}

// ramp says that a panel has so many ordered series that their first and last names with the colours between say more
// than a list.
func (p Panel) ramp() bool { return p.Ordered && len(p.Series) > 10 }

func (p Panel) drawRamp(c draw.Canvas, th Theme) {
	st := style(labelSize, false, th.Foreground)
	st.YAlign = text.YCenter
	y := c.Max.Y - legendRow/2
	first, last := p.Series[0].Name, p.Series[len(p.Series)-1].Name
	c.FillText(st, vg.Point{X: c.Min.X, Y: y}, first)
	x := c.Min.X + st.Width(first) + 6
	const width = 9
	for i := range p.Series {
		c.StrokeLine2(draw.LineStyle{Color: p.color(th, i), Width: 5}, x, y, x+width, y)
		x += width
	}
	c.FillText(st, vg.Point{X: x + 6, Y: y}, last)
	x += 6 + st.Width(last) + keyGap
	rest := Panel{Levels: p.Levels}
	c.Min.X = x
	legend(c, th, [][]key{rest.keys(th)})
}

// smooth is the mean of a series over windows one fiftieth of its extent wide (of its logarithm's, on such an axis), as far
// as the ends leave room. Values outside the axis are left out.
func smooth(s Series, logX bool, lo, hi float64) Series {
	var pos []float64
	out := Series{Name: s.Name}
	sums := []float64{0}
	for i, y := range s.Y {
		if y < lo || y > hi {
			continue
		}
		x := s.X[i]
		out.X = append(out.X, x)
		if logX {
			x = math.Log(x)
		}
		pos = append(pos, x)
		sums = append(sums, sums[len(sums)-1]+y)
	}
	n := len(pos)
	if n == 0 {
		return s
	}
	half := (pos[n-1] - pos[0]) / 100
	out.Y = make([]float64, n)
	for i, a, b := 0, 0, 0; i < n; i++ {
		for pos[a] < pos[i]-half {
			a++
		}
		for b < n && pos[b] <= pos[i]+half {
			b++
		}
		out.Y[i] = (sums[b] - sums[a]) / float64(b-a)
	}
	return out
}

// level draws a dashed line across.
type level struct {
	y     float64
	color color.NRGBA
}

func (l level) Plot(c draw.Canvas, p *plot.Plot) {
	_, ys := p.Transforms(&c)
	y := ys(l.y)
	if y >= c.Min.Y && y <= c.Max.Y {
		c.StrokeLine2(draw.LineStyle{Color: l.color, Width: 1, Dashes: dashes}, c.Min.X, y, c.Max.X, y)
	}
}

// curve draws a series, thinned to what the eye can tell apart and cut at the axes' edges.
type curve struct {
	s     Series
	color color.NRGBA
	width vg.Length
}

func (k curve) Plot(c draw.Canvas, p *plot.Plot) {
	xs, ys := p.Transforms(&c)
	line := make([]vg.Point, len(k.s.X))
	for i := range line {
		line[i] = vg.Point{X: xs(k.s.X[i]), Y: ys(k.s.Y[i])}
	}
	line = thin(line, 0.5)
	ls := draw.LineStyle{Color: k.color, Width: k.width}
	if len(line) == 1 {
		c.DrawGlyph(draw.GlyphStyle{Color: k.color, Radius: 2, Shape: draw.CircleGlyph{}}, line[0])
		return
	}
	c.StrokeLines(ls, c.ClipLinesXY(line)...)
}

// band fills the range that a dense series has in every column of a width; a sparse one it draws as a thin line.
type band struct {
	s     Series
	color color.NRGBA
}

func (k band) Plot(c draw.Canvas, p *plot.Plot) {
	xs, ys := p.Transforms(&c)
	const width = 1
	inside := func(y vg.Length) vg.Length { return min(c.Max.Y, max(c.Min.Y, y)) }
	var upper, lower []vg.Point
	for i, x := range k.s.X {
		at := vg.Length(math.Floor(float64(xs(x)/width))+0.5) * width
		at = min(c.Max.X, max(c.Min.X, at))
		y := inside(ys(k.s.Y[i]))
		if n := len(upper) - 1; n >= 0 && upper[n].X == at {
			upper[n].Y, lower[n].Y = max(upper[n].Y, y), min(lower[n].Y, y)
			continue
		}
		upper, lower = append(upper, vg.Point{X: at, Y: y}), append(lower, vg.Point{X: at, Y: y})
	}
	if len(k.s.X) < 2*len(upper) {
		curve{k.s, k.color, 0.7}.Plot(c, p)
		return
	}
	slices.Reverse(lower)
	c.FillPolygon(k.color, append(upper, lower...))
}

// thin keeps the first, lowest, highest and last point of every column of a width.
func thin(line []vg.Point, width vg.Length) []vg.Point {
	var out []vg.Point
	for i := 0; i < len(line); {
		column := math.Floor(float64(line[i].X / width))
		lo, hi, end := i, i, i+1
		for ; end < len(line) && math.Floor(float64(line[end].X/width)) == column; end++ {
			if line[end].Y < line[lo].Y {
				lo = end
			}
			if line[end].Y > line[hi].Y {
				hi = end
			}
		}
		kept := []int{i, min(lo, hi), max(lo, hi), end - 1}
		for n, k := range kept {
			if n == 0 || k != kept[n-1] {
				out = append(out, line[k])
			}
		}
		i = end
	}
	return out
}

// PairNames are names for the pairs of n+1 rungs, hottest first: "0–1", "1–2", ….
func PairNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%d–%d", i, i+1)
	}
	return names
}

// SeriesOf makes one series for each list of numbers, such as runlog.ListSeries returns, named by a prefix and names[i].
func SeriesOf(prefix string, names []string, x, y [][]float64) []Series {
	series := make([]Series, len(y))
	for i := range y {
		name := fmt.Sprint(i)
		if i < len(names) {
			name = names[i]
		}
		series[i] = Series{Name: strings.TrimSpace(prefix + " " + name), X: x[i], Y: y[i]}
	}
	return series
}
