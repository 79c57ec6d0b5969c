package plots

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// BarrierFigure draws the local communication barrier λ(β), with the rungs on its axis, and below it Λ(β), which an
// ideal ladder cuts into equal shares. It needs Betas, GridBeta, GridLambda, GridBarrier and Barrier.
func (t Tempering) BarrierFigure() (*Figure, error) {
	errs := []error{checkLadder("betas", t.Betas), checkLadder("grid β", t.GridBeta), checkFinite("λ", t.GridLambda), checkFinite("Λ", t.GridBarrier)}
	if n := len(t.GridBeta); len(t.GridLambda) != n || len(t.GridBarrier) != n {
		errs = append(errs, fmt.Errorf("grid: %d β, %d λ and %d Λ, want as many of each", n, len(t.GridLambda), len(t.GridBarrier)))
	}
	for i, l := range t.GridLambda {
		if l < 0 {
			errs = append(errs, fmt.Errorf("λ[%d]: %g, want at least 0", i, l))
			break
		}
	}
	if !(t.Barrier >= 0) || math.IsInf(t.Barrier, 0) {
		errs = append(errs, fmt.Errorf("barrier: %g, want a finite number, at least 0", t.Barrier))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("plots: barrier: %w", err)
	}
	scale := newBetaScale(t.Betas)
	local := strip{title: "local barrier λ(β), per unit of β", height: 120, axes: t.localBarrierAxes(scale)}
	global := strip{title: "barrier from the hottest rung on, Λ(β)", height: 120, axes: t.globalBarrierAxes(scale)}
	return stack(t.barrierTitle(), t.subtitle(fmt.Sprintf("%d rungs", len(t.Betas)), t.barrierNote()), temperingWidth, 40, 0, local, global), nil
}

func (t Tempering) barrierTitle() string {
	sign := "="
	if t.LowerBound {
		sign = "≥"
	}
	s := fmt.Sprintf("Barrier Λ %s %.2f", sign, t.Barrier)
	last := len(t.GridBarrier) - 1
	if half := t.GridBarrier[last] / 2; half > 0 {
		i := sort.SearchFloat64s(t.GridBarrier, half)
		s += ", half of it below β = " + fmt.Sprintf("%.2g", t.GridBeta[i])
	}
	return s
}

func (t Tempering) barrierNote() string {
	switch {
	case t.LowerBound:
		return "a lower bound: some pair rejected every swap"
	case t.Suggested > 0:
		return fmt.Sprintf("the barrier asks for %d", t.Suggested)
	}
	return ""
}

// betaAxis makes x an axis of β over the ladder and the grid.
func (t Tempering) betaAxis(a *plot.Axis, scale betaScale) {
	a.Min, a.Max = min(t.Betas[0], t.GridBeta[0]), max(t.Betas[len(t.Betas)-1], t.GridBeta[len(t.GridBeta)-1])
	a.Scale, a.Tick.Marker = scale, scale
}

func (t Tempering) localBarrierAxes(scale betaScale) func(th Theme) *plot.Plot {
	lambda := Series{X: t.GridBeta, Y: t.GridLambda}
	return func(th Theme) *plot.Plot {
		p := newAxes(th, "", "")
		t.betaAxis(&p.X, scale)
		p.Y.Min, p.Y.Max = 0, 1.08*slices.Max(t.GridLambda)
		if scale.knee > 0 { // λ then spans decades as β does
			if least := leastPositive(t.GridLambda); least > 0 && p.Y.Max > 30*least {
				p.Y.Min, p.Y.Max = max(least/1.5, p.Y.Max/1e6), 1.4*p.Y.Max
				p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, logTicks{}
				lambda.Y = slices.Clone(t.GridLambda)
				for i, y := range lambda.Y {
					lambda.Y[i] = max(y, p.Y.Min)
				}
			}
		}
		if p.Y.Max == 0 {
			p.Y.Max = 1
		}
		p.Add(filled{lambda, withAlpha(th.Series[0], 0.2)}, curve{lambda, th.Series[0], 1.4}, rungMarks{t.Betas, th})
		return p
	}
}

func (t Tempering) globalBarrierAxes(scale betaScale) func(th Theme) *plot.Plot {
	at := make([]float64, len(t.Betas))
	for i, b := range t.Betas {
		at[i] = interpolate(t.GridBeta, t.GridBarrier, b)
	}
	return func(th Theme) *plot.Plot {
		p := newAxes(th, "β", "")
		t.betaAxis(&p.X, scale)
		p.Y.Min, p.Y.Max = 0, 1.08*slices.Max(t.GridBarrier)
		if p.Y.Max == 0 {
			p.Y.Max = 1
		}
		radius := vg.Length(3)
		if len(t.Betas) > 16 {
			radius = 2.2
		}
		p.Add(shares{t.Betas, at, th}, curve{Series{X: t.GridBeta, Y: t.GridBarrier}, th.Series[0], 1.4}, dots{t.Betas, at, rungColor(th, len(t.Betas)), radius})
		return p
	}
}

func leastPositive(xs []float64) float64 {
	least := math.Inf(1)
	for _, x := range xs {
		if x > 0 {
			least = min(least, x)
		}
	}
	if math.IsInf(least, 1) {
		return 0
	}
	return least
}

// interpolate is the value at x of the line through points of rising xs; beyond them that of the nearest.
func interpolate(xs, ys []float64, x float64) float64 {
	i := sort.SearchFloat64s(xs, x)
	switch {
	case i == 0:
		return ys[0]
	case i == len(xs):
		return ys[i-1]
	}
	u := (x - xs[i-1]) / (xs[i] - xs[i-1])
	return ys[i-1] + u*(ys[i]-ys[i-1])
}

// rungMarks draws a mark on the x axis at every rung.
type rungMarks struct {
	betas []float64
	th    Theme
}

func (m rungMarks) Plot(c draw.Canvas, p *plot.Plot) {
	xs, _ := p.Transforms(&c)
	for i, b := range m.betas {
		x := xs(b)
		c.StrokeLine2(draw.LineStyle{Color: m.th.orderedColor(i, len(m.betas)), Width: 2}, x, c.Min.Y, x, c.Min.Y+8)
	}
}

// shares draws faint lines from the rungs on a rising curve to its y axis: they are equally far apart on an ideal ladder.
type shares struct {
	x, y []float64
	th   Theme
}

func (s shares) Plot(c draw.Canvas, p *plot.Plot) {
	xs, ys := p.Transforms(&c)
	for i := range s.x {
		c.StrokeLine2(draw.LineStyle{Color: withAlpha(s.th.orderedColor(i, len(s.x)), 0.5), Width: 0.7}, c.Min.X, ys(s.y[i]), xs(s.x[i]), ys(s.y[i]))
	}
}
