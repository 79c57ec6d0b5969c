package plots

import (
	"image/color"
	"math"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// newAxes returns an empty plot in the package's style: grid lines below the data, no box around it.
func newAxes(th Theme, xLabel, yLabel string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = color.Transparent
	p.TextHandler = style(tickSize, false, nil).Handler
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.LineStyle = draw.LineStyle{Color: th.Muted, Width: 0.6}
		a.Tick.LineStyle = draw.LineStyle{Color: th.Muted, Width: 0.6}
		a.Tick.Length = 3
		a.Padding = 0
		a.Tick.Marker = ticks{}
		label := a.Tick.Label
		label.Font, label.Color = style(tickSize, false, nil).Font, th.Muted
		label.Handler = style(tickSize, false, nil).Handler
		a.Tick.Label = label
		a.Label.TextStyle = style(labelSize, false, th.Foreground)
		a.Label.TextStyle.XAlign, a.Label.TextStyle.YAlign = text.XCenter, text.YBottom
		a.Label.Padding = 3
	}
	p.X.Label.Text, p.Y.Label.Text = xLabel, yLabel
	p.Add(gridLines{th.Grid})
	return p
}

// gridLines draws a line at every labelled tick.
type gridLines struct{ color color.Color }

func (g gridLines) Plot(c draw.Canvas, p *plot.Plot) {
	xs, ys := p.Transforms(&c)
	ls := draw.LineStyle{Color: g.color, Width: 0.6}
	for _, t := range p.X.Tick.Marker.Ticks(p.X.Min, p.X.Max) {
		if !t.IsMinor() && t.Value >= p.X.Min && t.Value <= p.X.Max {
			c.StrokeLine2(ls, xs(t.Value), c.Min.Y, xs(t.Value), c.Max.Y)
		}
	}
	for _, t := range p.Y.Tick.Marker.Ticks(p.Y.Min, p.Y.Max) {
		if !t.IsMinor() && t.Value >= p.Y.Min && t.Value <= p.Y.Max {
			c.StrokeLine2(ls, c.Min.X, ys(t.Value), c.Max.X, ys(t.Value))
		}
	}
}

// ticks places about five labels at multiples of 1, 2 or 5 times a power of ten.
type ticks struct{}

func (ticks) Ticks(lo, hi float64) []plot.Tick {
	step := niceStep((hi - lo) / 5)
	var out []plot.Tick
	for k := math.Ceil(lo/step - 1e-9); k*step <= hi+1e-9*step; k++ {
		out = append(out, plot.Tick{Value: k * step, Label: tickLabel(k*step, step)})
	}
	return out
}

func niceStep(raw float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(raw)))
	switch r := raw / power; {
	case r <= 1.000001:
		return power
	case r <= 2:
		return 2 * power
	case r <= 5:
		return 5 * power
	}
	return 10 * power
}

// tickLabel writes x with the digits that its step needs, thousands apart, and a true minus sign.
func tickLabel(x, step float64) string {
	if math.Abs(x) < step*1e-6 {
		return "0"
	}
	var s string
	if a := math.Abs(x); a >= 1e6 || step < 1e-4 {
		s = strconv.FormatFloat(x, 'g', 3, 64)
		s = strings.Replace(s, "e+0", "e", 1)
		s = strings.Replace(s, "e-0", "e-", 1)
		s = strings.Replace(s, "e+", "e", 1)
	} else {
		digits := max(0, -int(math.Floor(math.Log10(step)+1e-9)))
		s = thousands(strconv.FormatFloat(x, 'f', digits, 64))
	}
	return strings.ReplaceAll(s, "-", "−")
}

func thousands(s string) string {
	whole, frac, _ := strings.Cut(s, ".")
	sign := ""
	if strings.HasPrefix(whole, "-") {
		sign, whole = "-", whole[1:]
	}
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if frac != "" {
		frac = "." + frac
	}
	return sign + whole + frac
}

// logTicks labels powers of ten, and 2 and 5 times them where the axis spans less than two decades.
type logTicks struct{}

func (logTicks) Ticks(lo, hi float64) []plot.Tick {
	var out []plot.Tick
	decades := math.Log10(hi / lo)
	every := max(1, int(math.Ceil(decades/6)))
	for e := int(math.Floor(math.Log10(lo))); e <= int(math.Ceil(math.Log10(hi))); e++ {
		for m := 1; m < 10; m++ {
			v := float64(m) * math.Pow(10, float64(e))
			if v < lo*(1-1e-9) || v > hi*(1+1e-9) {
				continue
			}
			label := ""
			if m == 1 && ((e%every)+every)%every == 0 || decades < 2 && (m == 2 || m == 5) {
				label = tickLabel(v, math.Pow(10, float64(e)))
			}
			out = append(out, plot.Tick{Value: v, Label: label})
		}
	}
	return out
}

// frame returns the part of c in which p's data area is w×h points, at c's top left; p's labels take what they need.
func frame(p *plot.Plot, c draw.Canvas, w, h vg.Length) draw.Canvas {
	inner := p.DataCanvas(c)
	extraX := (c.Max.X - c.Min.X) - (inner.Max.X - inner.Min.X)
	extraY := (c.Max.Y - c.Min.Y) - (inner.Max.Y - inner.Min.Y)
	return draw.Crop(c, 0, w+extraX-(c.Max.X-c.Min.X), (c.Max.Y-c.Min.Y)-(h+extraY), 0)
}

// yLabelWidth is the room that the labels of a y axis from lo to hi take.
func yLabelWidth(lo, hi float64) vg.Length {
	st := style(tickSize, false, nil)
	widest := vg.Length(0)
	for _, t := range (ticks{}).Ticks(lo, hi) {
		widest = max(widest, st.Width(t.Label))
	}
	return vg.Length(math.Ceil(float64(widest))) + 4 + labelSize + 8
}
