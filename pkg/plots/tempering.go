package plots

import (
	"errors"
	"fmt"
	"image/color"
	"math"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Tempering is what a run has measured about its ladder of K rungs, of which rung 0 is the hottest and the last one the
// target. Every picture needs some of it, and is an error that says what is missing where it is not there:
//
//	t := plots.Tempering{Name: "two-moons", Betas: []float64{0, 0.2, 1}, Rejections: []float64{0.3, 0.32}}
//	figure, err := t.LadderFigure()
//	if err != nil {
//		return err
//	}
//	err = figure.Save("ladder.png")
//
// Where NaN is said to stand for what was not measured, it leaves a gap in the picture.
type Tempering struct {
	Name       string
	Betas      []float64 // β of every rung, [K], rising
	Rejections []float64 // share of rejected swaps of every pair of neighbours, [K-1]; NaN: not tried
	Up         []float64 // share of the walkers seen on a rung that were on rung 0 last, not on the target, [K]; NaN: none seen
	Overlap    []float64 // shared mass of the energy histograms of neighbours, [K-1]; NaN: not known

	GridBeta    []float64 // rising β, as fine as the curves are to look
	GridLambda  []float64 // local communication barrier λ(β) on it
	GridBarrier []float64 // Λ(β) = ∫λ from the first β on it
	Barrier     float64   // Λ, over the whole ladder
	LowerBound  bool      // Λ is at least that: some pair rejected every swap
	Suggested   int       // rungs that Λ asks for; 0: not said

	Rounds   []TemperingRound // in their order
	Training []TemperingRound // the ladder while a model was trained, Scan being the training step; only their Betas are read

	Index       [][]int32 // rung of some walkers, [rows, walkers]; 16 of them are drawn at most
	IndexStride int       // scans from one row to the next; 0 is 1

	Histograms []EnergyHistogram // of the energy on every rung, [K]
	EnergyName string            // what the histograms count, "energy (nats)" by default
}

// TemperingRound is what one round of scans, with the ladder held still, has measured.
type TemperingRound struct {
	Scan      int       // scans since the run's start, by the round's end
	Betas     []float64 // the ladder of the round; another round's may have another number of rungs
	TripRate  float64   // round trips a scan and ladder, summed over its walkers; NaN: too few scans for any
	Predicted float64   // the rate that the rejections allow if exploration forgets the energy; NaN: not known
	Bound     float64   // the rate of infinitely many rungs, 1/(2 + 2Λ); NaN: not known
	Restarts  int       // walkers that came from rung 0 to the target within the round
}

// EnergyHistogram counts the energies of a rung in bins of equal width from Lo to Hi.
type EnergyHistogram struct {
	Lo, Hi float64
	Counts []int
}

// Section draws every picture that there are data for, and tables the rungs. The pictures' titles are names for their
// files, such as "ladder.png".
func (t Tempering) Section() (Section, error) {
	s := Section{Title: "Tempering"}
	var errs []error
	for _, p := range []struct {
		there   bool
		draw    func() (*Figure, error)
		file    string
		caption string
		wide    bool
	}{
		{len(t.Rejections) > 0, t.LadderFigure, "ladder.png", "Inverse temperature of every rung and how often neighbours swap.", false},
		{len(t.GridBeta) > 0, t.BarrierFigure, "barrier.png", "Where along the ladder swaps are lost. An ideal ladder cuts Λ(β) into equal shares.", false},
		{len(t.Rounds) > 0, t.TripsFigure, "trips.png", "Round trips from the hottest rung to the target and back, measured and as the rejections allow.", false},
		{len(t.Up) > 2, t.UpFigure, "updown.png", "Walkers on their way from the hottest rung. A straight line is ideal; a cliff is a bottleneck.", false},
		{len(t.Histograms) > 0, t.EnergiesFigure, "energies.png", "Energies on every rung. Neighbours swap where their histograms overlap.", false},
		{len(t.Index) > 1, t.IndexFigure, "index.png", "The rung of every walker, scan by scan.", true},
	} {
		if !p.there {
			continue
		}
		fig, err := p.draw()
		errs = append(errs, err)
		s.Figures = append(s.Figures, ReportFigure{Figure: fig, Title: p.file, Caption: p.caption, Wide: p.wide})
	}
	if err := errors.Join(errs...); err != nil {
		return Section{}, err
	}
	if len(t.Betas) > 0 {
		s.Tables = []DataTable{t.table()}
	}
	return s, nil
}

// table lists the rungs; what belongs to a pair stands in the row of its hotter rung.
func (t Tempering) table() DataTable {
	d := DataTable{Title: "Rungs, from the hottest to the target", Columns: []string{"rung", "β"}}
	for i, b := range t.Betas {
		d.Rows = append(d.Rows, []string{fmt.Sprint(i), shortNumber(b)})
	}
	column := func(name string, xs []float64) {
		if len(xs) == 0 {
			return
		}
		d.Columns = append(d.Columns, name)
		for i := range d.Rows {
			cell := "–"
			if i < len(xs) && !math.IsNaN(xs[i]) {
				cell = fmt.Sprintf("%.3f", xs[i])
			}
			d.Rows[i] = append(d.Rows[i], cell)
		}
	}
	column("swaps accepted with the next", t.acceptance())
	column("energy overlap with the next", t.Overlap)
	column("walkers from rung 0", t.Up)
	return d
}

func (t Tempering) acceptance() []float64 {
	a := make([]float64, len(t.Rejections))
	for i, r := range t.Rejections {
		a[i] = 1 - r
	}
	return a
}

// checkLadder checks the β of a ladder.
func checkLadder(name string, betas []float64) error {
	if len(betas) < 2 {
		return fmt.Errorf("%s: %d, want at least 2 rungs", name, len(betas))
	}
	if err := checkFinite(name, betas); err != nil {
		return err
	}
	if betas[0] < 0 {
		return fmt.Errorf("%s[0]: %g, want at least 0", name, betas[0])
	}
	return checkRising(name, betas)
}

func checkRising(name string, xs []float64) error {
	for i := 1; i < len(xs); i++ {
		if !(xs[i] > xs[i-1]) {
			return fmt.Errorf("%s[%d]: %g after %g, want rising values", name, i, xs[i], xs[i-1])
		}
	}
	return nil
}

// checkShares checks n numbers from 0 to 1, of which some, not all, may be NaN.
func checkShares(name string, xs []float64, n int) error {
	if len(xs) != n {
		return fmt.Errorf("%s: %d, want %d", name, len(xs), n)
	}
	known := 0
	for i, x := range xs {
		if x < 0 || x > 1 {
			return fmt.Errorf("%s[%d]: %g, want a share from 0 to 1", name, i, x)
		}
		if !math.IsNaN(x) {
			known++
		}
	}
	if known == 0 {
		return fmt.Errorf("%s: all NaN, want at least one share", name)
	}
	return nil
}

// subtitle joins what is known about a picture, after the run's name.
func (t Tempering) subtitle(parts ...string) string {
	all := slices.DeleteFunc(append([]string{t.Name}, parts...), func(s string) bool { return s == "" })
	return strings.Join(all, " · ")
}

// shortNumber writes x with three digits and a true minus sign.
func shortNumber(x float64) string {
	s := strconv.FormatFloat(x, 'g', 3, 64)
	s = strings.Replace(strings.Replace(s, "e-0", "e-", 1), "e+0", "e", 1)
	return strings.ReplaceAll(s, "-", "−")
}

// warnColor marks a number that a reader should not miss, in either theme.
func warnColor(th Theme) color.NRGBA { return th.Model }

// fewest of swaps or of shared mass that a pair should have.
const leastShare = 0.1

// temperingWidth lets two figures of tempering stand side by side in a report.
const temperingWidth = 420

// strip is one pair of axes of a stack.
type strip struct {
	title  string
	keys   func(th Theme) []key // beside the title; may be nil
	height vg.Length            // of the data area
	axes   func(th Theme) *plot.Plot
}

// stack draws strips below each other, with data areas of one width. The right margin is room for marks that stand
// outside the data area.
func stack(title, subtitle string, width, left, right vg.Length, strips ...strip) *Figure {
	const heading, gap, tickRoom, labelRoom = 20, 12, 13, 15
	heights := make([]vg.Length, len(strips)) // of the data area and what is below it
	height := 2*margin + headerHeight(title, subtitle) - gap
	for i, s := range strips {
		heights[i] = s.height + tickRoom
		if s.axes(Light).X.Label.Text != "" {
			heights[i] += labelRoom
		}
		height += heading + heights[i] + gap
	}
	f := &Figure{width: width, height: height}
	f.draw = func(c draw.Canvas, th Theme) {
		c = header(inset(c), th, title, subtitle)
		for i, s := range strips {
			axes := s.axes(th)
			st := style(panelSize, true, th.Foreground)
			st.YAlign = text.YTop
			x := c.Min.X + left
			c.FillText(st, vg.Point{X: x, Y: c.Max.Y}, s.title)
			if s.keys != nil {
				keys := c
				keys.Min.X = x + st.Width(s.title) + 14
				keys.Max.Y++
				legend(keys, th, [][]key{s.keys(th)})
			}
			c = draw.Crop(c, 0, 0, 0, -heading)
			area := draw.Crop(c, 0, -right, 0, 0)
			inner := axes.DataCanvas(area)
			area.Min.X += x - inner.Min.X
			area.Max.X += area.Max.X - inner.Max.X
			area.Min.Y = area.Max.Y - s.height - (inner.Min.Y - area.Min.Y) - (area.Max.Y - inner.Max.Y)
			axes.Draw(area)
			c = draw.Crop(c, 0, 0, 0, -heights[i]-gap)
		}
	}
	return f
}

// rungAxis makes an axis of n rungs, or of the pairs between them: half a rung of room at each end, whole numbers only.
func rungAxis(a *plot.Axis, n int) {
	a.Min, a.Max = -0.5, float64(n)-0.5
	a.Tick.Marker = rungTicks(n)
}

// rungTicks labels every rung of a short ladder, and every second, fifth, … of a longer one.
type rungTicks int

func (n rungTicks) Ticks(lo, hi float64) []plot.Tick {
	step := 1
	if n > 16 {
		step = int(math.Max(1, niceStep(float64(n)/8)))
	}
	var out []plot.Tick
	for i := 0; i < int(n); i += step {
		if x := float64(i); x >= lo && x <= hi {
			out = append(out, plot.Tick{Value: x, Label: fmt.Sprint(i)})
		}
	}
	return out
}

// dots draws points, each with its colour.
type dots struct {
	x, y   []float64
	color  func(i int) color.Color
	radius vg.Length
}

func (d dots) Plot(c draw.Canvas, p *plot.Plot) {
	xs, ys := p.Transforms(&c)
	for i := range d.x {
		c.DrawGlyph(draw.GlyphStyle{Color: d.color(i), Radius: d.radius, Shape: draw.CircleGlyph{}}, vg.Point{X: xs(d.x[i]), Y: ys(d.y[i])})
	}
}

// label is a text at a place of the axes, moved by some points.
type label struct {
	x, y   float64
	dx, dy vg.Length
	text   string
	style  text.Style
}

func (l label) Plot(c draw.Canvas, p *plot.Plot) {
	xs, ys := p.Transforms(&c)
	c.FillText(l.style, vg.Point{X: xs(l.x) + l.dx, Y: ys(l.y) + l.dy}, l.text)
}

// filled fills the area from a curve down to the axis.
type filled struct {
	s     Series
	color color.Color
}

func (f filled) Plot(c draw.Canvas, p *plot.Plot) {
	xs, ys := p.Transforms(&c)
	n := len(f.s.X)
	area := make([]vg.Point, 0, n+2)
	for i := range n {
		area = append(area, vg.Point{X: xs(f.s.X[i]), Y: max(c.Min.Y, ys(f.s.Y[i]))})
	}
	area = append(area, vg.Point{X: area[n-1].X, Y: c.Min.Y}, vg.Point{X: area[0].X, Y: c.Min.Y})
	c.FillPolygon(f.color, c.ClipPolygonXY(area))
}

// known returns the part of a curve that is not NaN, as pieces without gaps.
func known(x, y []float64) (pieces []Series) {
	open := false
	for i := range x {
		if math.IsNaN(y[i]) {
			open = false
			continue
		}
		if !open {
			pieces, open = append(pieces, Series{}), true
		}
		s := &pieces[len(pieces)-1]
		s.X, s.Y = append(s.X, x[i]), append(s.Y, y[i])
	}
	return pieces
}
