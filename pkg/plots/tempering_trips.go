package plots

import (
	"errors"
	"fmt"
	"image/color"
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// TripsFigure draws the rate of round trips of every round, measured and as the rejections allow, and the restarts of the
// target so far. It needs Rounds.
func (t Tempering) TripsFigure() (*Figure, error) {
	errs := []error{checkRounds("rounds", t.Rounds)}
	if len(t.Rounds) == 0 {
		errs = append(errs, errors.New("rounds: none, want at least 1"))
	}
	for i, r := range t.Rounds {
		for _, rate := range []struct {
			name  string
			value float64
		}{{"trip rate", r.TripRate}, {"predicted", r.Predicted}, {"bound", r.Bound}} {
			if rate.value < 0 || math.IsInf(rate.value, 0) {
				errs = append(errs, fmt.Errorf("rounds[%d]: %s: %g, want a finite rate, at least 0", i, rate.name, rate.value))
			}
		}
		if r.Restarts < 0 {
			errs = append(errs, fmt.Errorf("rounds[%d]: restarts: %d, want at least 0", i, r.Restarts))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("plots: trips: %w", err)
	}
	title, detail := t.tripsTitle()
	return stack(title, t.subtitle(detail), temperingWidth, 40, 0, t.ratesStrip(), t.restartsStrip()), nil
}

// tripsTitle speaks of the last round that measured a rate.
func (t Tempering) tripsTitle() (title, detail string) {
	for i := len(t.Rounds) - 1; i >= 0; i-- {
		r := t.Rounds[i]
		if math.IsNaN(r.TripRate) {
			continue
		}
		detail = fmt.Sprintf("round %d of %d", i+1, len(t.Rounds))
		if r.Predicted > 0 {
			if r.TripRate < r.Predicted/2 {
				detail += " · below half: exploration forgets too little between swaps"
			}
			return fmt.Sprintf("Round trips at %s of the rate that swaps allow", percent(r.TripRate/r.Predicted)), detail
		}
		return fmt.Sprintf("%s round trips a scan and ladder", shortNumber(r.TripRate)), detail
	}
	return "No round was long enough for a round trip", ""
}

func (t Tempering) ratesStrip() strip {
	n := len(t.Rounds)
	scans, measured, predicted, bound := make([]float64, n), make([]float64, n), make([]float64, n), make([]float64, n)
	most := 0.0
	for i, r := range t.Rounds {
		scans[i], measured[i], predicted[i], bound[i] = float64(r.Scan), r.TripRate, r.Predicted, r.Bound
		for _, y := range []float64{r.TripRate, r.Predicted, r.Bound} {
			if y > most { // not for NaN
				most = y
			}
		}
	}
	if most == 0 {
		most = 1
	}
	keys := func(th Theme) []key {
		return []key{{"measured", th.Model, markLine}, {"predicted", th.Data, markLine}, {"bound", th.Muted, markDashes}}
	}
	return strip{title: "round trips a scan", keys: keys, height: 130, axes: func(th Theme) *plot.Plot {
		p := newAxes(th, "", "")
		scanAxis(&p.X, t.Rounds)
		p.Y.Min, p.Y.Max = 0, 1.1*most
		for _, s := range known(scans, bound) {
			p.Add(dashed{s, th.Muted})
		}
		for _, s := range known(scans, predicted) {
			p.Add(curve{s, th.Data, 1.6})
		}
		for _, s := range known(scans, measured) {
			p.Add(curve{s, th.Model, 1.6})
			if n <= 24 {
				p.Add(dots{s.X, s.Y, func(int) color.Color { return th.Model }, 2.4})
			}
		}
		return p
	}}
}

func (t Tempering) restartsStrip() strip {
	var s Series
	total := 0
	for _, r := range t.Rounds {
		total += r.Restarts
		s.X, s.Y = append(s.X, float64(r.Scan)), append(s.Y, float64(total))
	}
	title := fmt.Sprintf("restarts of the target so far: %s", thousands(fmt.Sprint(total)))
	return strip{title: title, height: 80, axes: func(th Theme) *plot.Plot {
		p := newAxes(th, "scan", "")
		scanAxis(&p.X, t.Rounds)
		p.Y.Min, p.Y.Max = 0, math.Max(1, 1.1*float64(total))
		p.Add(filled{s, withAlpha(th.Series[2], 0.2)}, curve{s, th.Series[2], 1.4})
		return p
	}}
}

// dashed draws a dashed curve, and one point alone as a short line.
type dashed struct {
	s     Series
	color color.Color
}

func (d dashed) Plot(c draw.Canvas, p *plot.Plot) {
	xs, ys := p.Transforms(&c)
	line := make([]vg.Point, len(d.s.X))
	for i := range line {
		line[i] = vg.Point{X: xs(d.s.X[i]), Y: ys(d.s.Y[i])}
	}
	if len(line) == 1 {
		line = []vg.Point{{X: line[0].X - 12, Y: line[0].Y}, {X: line[0].X + 12, Y: line[0].Y}}
	}
	c.StrokeLines(draw.LineStyle{Color: d.color, Width: 1, Dashes: dashes}, c.ClipLinesXY(line)...)
}

// UpFigure draws, for every rung, the share of walkers that were on rung 0 last rather than on the target. An ideal
// ladder gives a straight line from 1 to 0 (Katzgraber, Trebst, Huse and Troyer 2006); a cliff is a bottleneck. It needs
// Up.
func (t Tempering) UpFigure() (*Figure, error) {
	n := len(t.Up)
	err := checkShares("shares", t.Up, max(n, 2))
	if err == nil && len(t.Betas) > 0 && len(t.Betas) != n {
		err = fmt.Errorf("shares: %d, want one for each of %d rungs", n, len(t.Betas))
	}
	if err != nil {
		return nil, fmt.Errorf("plots: up: %w", err)
	}
	rungs, ideal := make([]float64, n), make([]float64, n)
	for i := range rungs {
		rungs[i], ideal[i] = float64(i), 1-float64(i)/float64(n-1)
	}
	keys := func(th Theme) []key { return []key{{"ideal", th.Muted, markDashes}} }
	s := strip{title: "share that was on rung 0 last", keys: keys, height: 150, axes: func(th Theme) *plot.Plot {
		p := newAxes(th, "rung", "")
		rungAxis(&p.X, n)
		p.Y.Min, p.Y.Max = -0.04, 1.06
		p.Y.Tick.Marker = halves{}
		p.Add(dashed{Series{X: rungs, Y: ideal}, th.Muted})
		for _, s := range known(rungs, t.Up) {
			p.Add(curve{s, th.Muted, 0.8}, dots{s.X, s.Y, func(i int) color.Color { return th.orderedColor(int(s.X[i]), n) }, 3})
		}
		return p
	}}
	return stack(t.upTitle(), t.subtitle(), temperingWidth, 40, 0, s), nil
}

func (t Tempering) upTitle() string {
	n := len(t.Up)
	if i := slices.IndexFunc(t.Up, math.IsNaN); i >= 0 {
		return fmt.Sprintf("No walker from either end has reached rung %d", i)
	}
	steepest, drop := -1, 0.0
	for i := 1; i < n; i++ {
		if d := t.Up[i-1] - t.Up[i]; d > drop {
			steepest, drop = i-1, d
		}
	}
	even := 1 / float64(n-1)
	if n > 2 && steepest >= 0 && drop > 0.25 && drop > 2*even {
		return fmt.Sprintf("A bottleneck between rungs %d and %d: a drop of %.2f", steepest, steepest+1, drop)
	}
	return "Walkers flow along the ladder without a bottleneck"
}
