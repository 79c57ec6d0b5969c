package plots

import (
	"errors"
	"fmt"
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// SamplesOptions says how SamplesAgainstData draws.
type SamplesOptions struct {
	Title, Subtitle string
	// Box is the box shown, {x0, x1, y0, y1}, such as the landscape's; a box around the data where it is zero. Points
	// outside it are counted in the panel's heading, not drawn.
	Box            [4]float64
	XLabel, YLabel string // "x" and "y" by default
}

// SamplesAgainstData draws two panels side by side with the same axes, equally scaled: the data and a model's samples,
// both [n, 2].
func SamplesAgainstData(data, samples []float64, o SamplesOptions) (*Figure, error) {
	if err := errors.Join(checkPoints("data", data), checkPoints("samples", samples)); err != nil {
		return nil, fmt.Errorf("plots: samples: %w", err)
	}
	box := o.Box
	if box == [4]float64{} {
		g, err := GridAround(data, 0.25, 2)
		if err != nil {
			return nil, err
		}
		box = [4]float64{g.X0, g.X1, g.Y0, g.Y1}
	}
	if err := errors.Join(checkFinite("box", box[:]), rising("box", box[0], box[1]), rising("box", box[2], box[3])); err != nil {
		return nil, fmt.Errorf("plots: samples: %w", err)
	}
	if o.XLabel == "" && o.YLabel == "" {
		o.XLabel, o.YLabel = "x", "y"
	}
	w, h := dataSize(box[1]-box[0], box[3]-box[2], 300)
	const bottom, gap, heading = 30, 18, 18
	left := yLabelWidth(box[2], box[3])
	f := &Figure{
		width:  2*margin + 2*(left+w) + gap,
		height: 2*margin + headerHeight(o.Title, o.Subtitle) + heading + h + bottom,
	}
	f.draw = func(c draw.Canvas, th Theme) {
		c = header(inset(c), th, o.Title, o.Subtitle)
		for i, panel := range []struct {
			name   string
			points []float64
			color  color.NRGBA
		}{{"data", data, th.Data}, {"model", samples, th.Model}} {
			part := c
			part.Min.X += vg.Length(i) * (left + w + gap)
			part.Max.X = part.Min.X + left + w + 4
			p := newAxes(th, o.XLabel, o.YLabel)
			p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = box[0], box[1], box[2], box[3]
			p.Add(cloud{panel.points, withAlpha(panel.color, samplesAlpha(len(panel.points)/2)), 1.4}, edges{th})
			area := frame(p, draw.Crop(part, 0, 0, 0, -heading), w, h)
			p.Draw(area)
			inner := p.DataCanvas(area)
			st := style(panelSize, true, th.Foreground)
			st.YAlign = text.YTop
			c.FillText(st, vg.Point{X: inner.Min.X, Y: part.Max.Y}, panel.name)
			note := style(labelSize, false, th.Muted)
			note.YAlign = text.YTop
			c.FillText(note, vg.Point{X: inner.Min.X + st.Width(panel.name) + 8, Y: part.Max.Y - 0.5}, countNote(panel.points, box))
		}
	}
	return f, nil
}

// countNote says how many points there are, and how many of them the box leaves out.
func countNote(points []float64, box [4]float64) string {
	outside := 0
	for i := 0; i < len(points); i += 2 {
		if points[i] < box[0] || points[i] > box[1] || points[i+1] < box[2] || points[i+1] > box[3] {
			outside++
		}
	}
	s := thousands(fmt.Sprint(len(points)/2)) + " points"
	if outside > 0 {
		s += ", " + thousands(fmt.Sprint(outside)) + " of them outside"
	}
	return s
}

func samplesAlpha(n int) float64 { return min(0.85, max(0.2, 20/math.Sqrt(float64(n)))) }

func rising(name string, lo, hi float64) error {
	if !(lo < hi) {
		return fmt.Errorf("%s: edges %g and %g, want rising ones", name, lo, hi)
	}
	return nil
}

// edges closes the data area with thin lines at the top and on the right.
type edges struct{ th Theme }

func (e edges) Plot(c draw.Canvas, _ *plot.Plot) {
	ls := draw.LineStyle{Color: e.th.Grid, Width: 0.6}
	c.StrokeLine2(ls, c.Min.X, c.Max.Y, c.Max.X, c.Max.Y)
	c.StrokeLine2(ls, c.Max.X, c.Min.Y, c.Max.X, c.Max.Y)
}
