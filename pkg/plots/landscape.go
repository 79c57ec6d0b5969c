package plots

import (
	"errors"
	"fmt"
	"image"
	"image/color"
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Quantity says what a landscape's values are.
type Quantity int

const (
	Density Quantity = iota // a density, at least 0: bright is likely; contours enclose half, 90 % and 99 % of the mass
	Energy                  // an energy: bright is low, thus likely too; contours are equally spaced
)

// LandscapeOptions says how Landscape draws.
type LandscapeOptions struct {
	Title, Subtitle string
	Quantity        Quantity
	// Depth limits an energy's colours to this many nats above the lowest value, since an energy's walls would take all of
	// them; 12 by default.
	Depth  float64
	Points []float64 // [n, 2] drawn over it; may be empty
	Label  string    // of Points, "data" by default

	XLabel, YLabel string // "x" and "y" by default
}

// Landscape draws a density or an energy over a box, equally scaled along both axes, with contours and a colour bar.
func Landscape(g Grid, o LandscapeOptions) (*Figure, error) {
	if err := g.check(); err != nil {
		return nil, fmt.Errorf("plots: landscape: %w", err)
	}
	var errs []error
	if len(o.Points) > 0 {
		errs = append(errs, checkPoints("points", o.Points))
	}
	if o.Depth == 0 {
		o.Depth = 12
	}
	if !(o.Depth > 0) || math.IsInf(o.Depth, 0) {
		errs = append(errs, fmt.Errorf("depth: %g, want a finite number above 0", o.Depth))
	}
	least := slices.Min(g.Values)
	if o.Quantity == Density && least < 0 {
		errs = append(errs, fmt.Errorf("grid: density %g, want at least 0", least))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("plots: landscape: %w", err)
	}
	if o.XLabel == "" && o.YLabel == "" {
		o.XLabel, o.YLabel = "x", "y"
	}
	if o.Label == "" {
		o.Label = "data"
	}
	scale, levels, note := landscapeScale(g, o)
	w, h := dataSize(g.X1-g.X0, g.Y1-g.Y0, 340)
	const bottom = 30
	left := yLabelWidth(g.Y0, g.Y1)
	right := barGap + barWidth + scale.labelWidth()
	var keys []key
	if len(o.Points) > 0 {
		keys = append(keys, key{name: o.Label, color: pointColor, mark: markDot})
	}
	if note != "" {
		keys = append(keys, key{name: note, mark: markLine})
	}
	f := &Figure{
		width:  2*margin + left + w + right,
		height: 2*margin + headerHeight(o.Title, o.Subtitle) + legendRow*vg.Length(min(1, len(keys))) + 6 + h + bottom,
	}
	f.draw = func(c draw.Canvas, th Theme) {
		c = header(inset(c), th, o.Title, o.Subtitle)
		for i := range keys {
			if keys[i].mark == markLine {
				keys[i].color = th.Muted
			}
		}
		if len(keys) > 0 {
			c = legend(c, th, [][]key{keys})
		}
		c = draw.Crop(c, 0, 0, 0, -6)
		p := newAxes(th, o.XLabel, o.YLabel)
		p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = g.X0, g.X1, g.Y0, g.Y1
		p.Add(heat{g, scale}, contours{g, levels, color.NRGBA{255, 255, 255, 150}})
		if len(o.Points) > 0 {
			p.Add(cloud{o.Points, withAlpha(pointColor, cloudAlpha(len(o.Points)/2)), 1.1})
		}
		area := frame(p, c, w, h)
		p.Draw(area)
		inner := p.DataCanvas(area)
		scale.bar(c, th, vg.Rectangle{Min: vg.Point{X: inner.Max.X + barGap, Y: inner.Min.Y}, Max: vg.Point{X: inner.Max.X + barGap + barWidth, Y: inner.Max.Y}})
	}
	return f, nil
}

// pointColor stands out from every colour of Heat.
var pointColor = rgb(0x5fd3f3)

// cloudAlpha lets many points shine through each other.
func cloudAlpha(n int) float64 { return min(0.9, max(0.25, 25/math.Sqrt(float64(n)))) }

// dataSize is the size of a data area with equal scales, at most longest wide and somewhat more than that high.
func dataSize(dx, dy float64, longest vg.Length) (w, h vg.Length) {
	ratio := math.Min(8, math.Max(1.0/8, dy/dx))
	w = longest
	h = vg.Length(math.Round(float64(w) * ratio))
	if h > 1.2*longest {
		h = vg.Length(math.Round(1.2 * float64(longest)))
		w = vg.Length(math.Round(float64(h) / ratio))
	}
	return w, h
}

// colorScale maps values to colours.
type colorScale struct {
	lo, hi  float64
	flip    bool    // low is bright
	gamma   float64 // the colour is ((v−lo)/(hi−lo))^gamma along the palette; 0 stands for 1
	label   string
	clipped bool // values above hi have hi's colour
}

// share is the place of v along the palette, in [0, 1].
func (s colorScale) share(v float64) float64 {
	t := 0.0
	if s.hi > s.lo {
		t = math.Min(1, math.Max(0, (v-s.lo)/(s.hi-s.lo)))
	}
	if s.gamma != 0 {
		t = math.Pow(t, s.gamma)
	}
	if s.flip {
		t = 1 - t
	}
	return t
}

func (s colorScale) at(v float64) color.NRGBA { return Heat[int(math.Round(255*s.share(v)))] }

func landscapeScale(g Grid, o LandscapeOptions) (s colorScale, levels []float64, note string) {
	lo, hi := slices.Min(g.Values), slices.Max(g.Values)
	if o.Quantity == Energy {
		s = colorScale{lo: lo, hi: min(hi, lo+o.Depth), flip: true, label: "energy (nats)", clipped: hi > lo+o.Depth}
		step := niceStep((s.hi - s.lo) / 6)
		if s.hi > s.lo {
			for v := lo + step; v < s.hi; v += step {
				levels = append(levels, v)
			}
			note = fmt.Sprintf("contours %s nats apart", tickLabel(step, step))
		}
		return s, levels, note
	}
	s = colorScale{lo: 0, hi: hi, label: "density"}
	if lo == hi { // flat: nothing to enclose
		return s, nil, ""
	}
	levels = g.massLevels([]float64{0.99, 0.9, 0.5})
	levels = slices.DeleteFunc(levels, func(v float64) bool { return v <= lo || v >= hi })
	if len(levels) > 0 {
		note = "contours around 50, 90, 99 % of the mass"
	}
	return s, slices.Compact(levels), note
}

const (
	barGap   = 14 // between the data area and the colour bar
	barWidth = 12
)

// labels are the bar's labels with their values.
func (s colorScale) labels() []plot.Tick {
	if s.hi <= s.lo {
		return []plot.Tick{{Value: s.lo, Label: tickLabel(s.lo, math.Max(1e-3, math.Abs(s.lo)))}}
	}
	list := ticks{}.Ticks(s.lo, s.hi)
	for i, t := range list {
		if s.clipped && t.Value > s.hi-1e-6*(s.hi-s.lo) {
			list[i].Label = "≥ " + t.Label
		}
	}
	return list
}

// labelWidth is the room that the labels and the name of the scale take beside the bar.
func (s colorScale) labelWidth() vg.Length {
	st := style(tickSize, false, nil)
	widest := vg.Length(0)
	for _, t := range s.labels() {
		widest = max(widest, st.Width(t.Label))
	}
	return vg.Length(math.Ceil(float64(widest))) + 5 + 6 + labelSize + 2
}

// bar draws the scale with its labels to the right.
func (s colorScale) bar(c draw.Canvas, th Theme, r vg.Rectangle) {
	const n = 256
	strip := image.NewNRGBA(image.Rect(0, 0, 1, n))
	for i := range n {
		strip.SetNRGBA(0, i, s.at(s.lo+(s.hi-s.lo)*float64(n-1-i)/(n-1)))
	}
	c.DrawImage(r, strip)
	st := style(tickSize, false, th.Muted)
	st.YAlign = text.YCenter
	for _, t := range s.labels() {
		y := (r.Min.Y + r.Max.Y) / 2
		if s.hi > s.lo {
			y = r.Min.Y + (r.Max.Y-r.Min.Y)*vg.Length((t.Value-s.lo)/(s.hi-s.lo))
			c.StrokeLine2(draw.LineStyle{Color: th.Muted, Width: 0.6}, r.Max.X, y, r.Max.X+3, y)
		}
		c.FillText(st, vg.Point{X: r.Max.X + 5, Y: y}, t.Label)
	}
	st = style(labelSize, false, th.Foreground)
	st.Rotation = math.Pi / 2
	st.XAlign, st.YAlign = text.XCenter, text.YBottom
	c.FillText(st, vg.Point{X: r.Max.X + s.labelWidth() - 2, Y: (r.Min.Y + r.Max.Y) / 2}, s.label)
}

// heat fills the data area with a grid's colours. The values are interpolated, not the colours.
type heat struct {
	g     Grid
	scale colorScale
}

func (h heat) Plot(c draw.Canvas, _ *plot.Plot) {
	size := c.Size()
	w, ht := int(math.Ceil(size.X.Dots(dpi))), int(math.Ceil(size.Y.Dots(dpi)))
	img := image.NewNRGBA(image.Rect(0, 0, w, ht))
	for y := range ht {
		for x := range w {
			img.SetNRGBA(x, y, h.scale.at(h.g.at((float64(x)+0.5)/float64(w), 1-(float64(y)+0.5)/float64(ht))))
		}
	}
	c.DrawImage(c.Rectangle, img)
}

// contours strokes the lines on which a grid has given values.
type contours struct {
	g      Grid
	levels []float64
	color  color.Color
}

// Dims, Z, X and Y make contours a plotter.GridXYZ.
func (k contours) Dims() (columns, rows int) { return k.g.NX, k.g.NY }
func (k contours) Z(i, j int) float64        { return k.g.Values[j*k.g.NX+i] }
func (k contours) X(i int) float64           { return k.g.x(i) }
func (k contours) Y(j int) float64           { return k.g.y(j) }

func (k contours) Plot(c draw.Canvas, p *plot.Plot) {
	if len(k.levels) == 0 {
		return
	}
	lines := plotter.NewContour(k, k.levels, nil)
	lines.LineStyles = []draw.LineStyle{{Color: k.color, Width: 0.7}}
	lines.Plot(c, p)
}

// cloud draws points [n, 2], those inside the axes only.
type cloud struct {
	points []float64
	color  color.NRGBA
	radius vg.Length
}

func (k cloud) Plot(c draw.Canvas, p *plot.Plot) {
	xs, ys := p.Transforms(&c)
	st := draw.GlyphStyle{Color: k.color, Radius: k.radius, Shape: draw.CircleGlyph{}}
	for i := 0; i < len(k.points); i += 2 {
		at := vg.Point{X: xs(k.points[i]), Y: ys(k.points[i+1])}
		if c.Contains(at) {
			c.DrawGlyph(st, at)
		}
	}
}
