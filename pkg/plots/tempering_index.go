package plots

import (
	"fmt"
	"image"
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// mostWalkers is how many walkers IndexFigure draws.
const mostWalkers = 16

// IndexFigure draws the index process: the walker that came from rung 0 to the target most often as a line, and every
// walker as a stripe in the colours of the rungs it was on. It needs Index, and Betas for the number of rungs where the
// walkers have not visited all.
func (t Tempering) IndexFigure() (*Figure, error) {
	rungs, err := t.checkIndex()
	if err != nil {
		return nil, fmt.Errorf("plots: index: %w", err)
	}
	walkers := min(len(t.Index[0]), mostWalkers)
	stride := max(1, t.IndexStride)
	restarts, best, bestRestarts, still := 0, 0, -1, 0
	for w := range walkers {
		n, held := t.walk(w, int32(rungs-1))
		restarts += n
		if n > bestRestarts {
			best, bestRestarts = w, n
		}
		if held*stride > 10*rungs {
			still++
		}
	}
	scans := thousands(fmt.Sprint((len(t.Index)-1)*stride + 1))
	title := fmt.Sprintf("Walkers came from rung 0 to the target %s times in %s scans", thousands(fmt.Sprint(restarts)), scans)
	switch {
	case still > 0:
		title = fmt.Sprintf("%d of %d walkers stood on one rung for more than %d scans", still, walkers, 10*rungs)
	case restarts == 0:
		title = fmt.Sprintf("No walker came from rung 0 to the target in %s scans", scans)
	case restarts == 1:
		title = fmt.Sprintf("One walker came from rung 0 to the target in %s scans", scans)
	}
	shown := fmt.Sprintf("%d walkers", walkers)
	if all := max(rungs, len(t.Index[0])); all > walkers {
		shown = fmt.Sprintf("%d of %d walkers", walkers, all)
	}
	every := ""
	if stride > 1 {
		every = fmt.Sprintf("every %s scan", ordinal(stride))
	}
	const width, left = 660, 40
	row := max(7, min(16, 200/vg.Length(walkers)))
	name := fmt.Sprintf("rung of walker %d", best)
	if bestRestarts > 0 {
		name += ", which came to the target most often"
	}
	line := strip{title: name, height: 110, axes: t.walkAxes(best, rungs)}
	stripes := strip{title: "rung of every walker", keys: rungKeys(rungs), height: row * vg.Length(walkers), axes: t.stripeAxes(best, walkers, rungs)}
	return stack(title, t.subtitle(shown, fmt.Sprintf("%d rungs", rungs), every), width, left, 0, line, stripes), nil
}

// checkIndex returns the number of rungs.
func (t Tempering) checkIndex() (rungs int, err error) {
	if len(t.Index) < 2 || len(t.Index[0]) == 0 {
		return 0, fmt.Errorf("index: %d rows, want at least 2, of at least 1 walker", len(t.Index))
	}
	if t.IndexStride < 0 {
		return 0, fmt.Errorf("index stride: %d, want at least 0", t.IndexStride)
	}
	rungs = len(t.Betas)
	for i, row := range t.Index {
		if len(row) != len(t.Index[0]) {
			return 0, fmt.Errorf("index[%d]: %d walkers, want %d", i, len(row), len(t.Index[0]))
		}
		for w, k := range row {
			if k < 0 || len(t.Betas) > 0 && int(k) >= len(t.Betas) {
				return 0, fmt.Errorf("index[%d][%d]: rung %d, want one of %d", i, w, k, len(t.Betas))
			}
			rungs = max(rungs, int(k)+1)
		}
	}
	return max(rungs, 2), nil
}

// walk counts how often a walker came from rung 0 to the target, and the steps of its longest stand on one rung.
func (t Tempering) walk(walker int, target int32) (restarts, still int) {
	fromHot, since := false, 0
	for i, row := range t.Index {
		switch k := row[walker]; {
		case k == 0:
			fromHot = true
		case k == target && fromHot:
			fromHot = false
			restarts++
		}
		if row[walker] != t.Index[since][walker] {
			since = i
		}
		still = max(still, i-since)
	}
	return restarts, still
}

func ordinal(n int) string {
	suffix := "th"
	if n%100 < 11 || n%100 > 13 {
		switch n % 10 {
		case 1:
			suffix = "st"
		case 2:
			suffix = "nd"
		case 3:
			suffix = "rd"
		}
	}
	return fmt.Sprint(n) + suffix
}

func rungKeys(rungs int) func(th Theme) []key {
	return func(th Theme) []key {
		return []key{{"rung 0, the hottest", th.orderedColor(0, rungs), markDot}, {fmt.Sprintf("rung %d, the target", rungs-1), th.orderedColor(rungs-1, rungs), markDot}}
	}
}

func (t Tempering) scans() []float64 {
	x := make([]float64, len(t.Index))
	for i := range x {
		x[i] = float64(i * max(1, t.IndexStride))
	}
	return x
}

func (t Tempering) walkAxes(walker, rungs int) func(th Theme) *plot.Plot {
	path := Series{X: t.scans(), Y: make([]float64, len(t.Index))}
	for i, row := range t.Index {
		path.Y[i] = float64(row[walker])
	}
	return func(th Theme) *plot.Plot {
		p := newAxes(th, "", "")
		p.X.Min, p.X.Max = 0, path.X[len(path.X)-1]
		rungAxis(&p.Y, rungs)
		p.Y.Tick.Marker = endTicks(rungs)
		p.Add(curve{path, th.Foreground, 1.3})
		return p
	}
}

// endTicks labels the first and the last rung, and those between where there is room.
type endTicks int

func (n endTicks) Ticks(lo, hi float64) []plot.Tick {
	step := int(math.Max(1, niceStep(float64(n)/5)))
	last := int(n) - 1
	var out []plot.Tick
	for i := 0; 5*(last-i) >= 3*step; i += step {
		out = append(out, plot.Tick{Value: float64(i), Label: fmt.Sprint(i)})
	}
	return append(out, plot.Tick{Value: float64(last), Label: fmt.Sprint(last)})
}

func (t Tempering) stripeAxes(best, walkers, rungs int) func(th Theme) *plot.Plot {
	x := t.scans()
	return func(th Theme) *plot.Plot {
		p := newAxes(th, "scan", "")
		p.X.Min, p.X.Max = 0, x[len(x)-1]
		p.Y.Min, p.Y.Max = -0.5, float64(walkers)-0.5
		p.Y.Tick.Marker = noTicks{}
		colors := make([]color.NRGBA, rungs)
		for k := range colors {
			colors[k] = th.orderedColor(k, rungs)
		}
		p.Add(stripes{t.Index, walkers, colors})
		for w := range walkers {
			st := style(tickSize, false, th.Muted)
			if w == best {
				st = style(tickSize, true, th.Foreground)
			}
			st.XAlign, st.YAlign = text.XRight, text.YCenter
			p.Add(label{0, float64(walkers - 1 - w), -6, 0, fmt.Sprint(w), st})
		}
		return p
	}
}

// noTicks leaves an axis bare.
type noTicks struct{}

func (noTicks) Ticks(lo, hi float64) []plot.Tick { return nil }

// stripes draws one row a walker, the first on top, a column of pixels showing the scan in its middle.
type stripes struct {
	index   [][]int32
	walkers int
	colors  []color.NRGBA
}

func (s stripes) Plot(c draw.Canvas, _ *plot.Plot) {
	size := c.Size()
	w, h := int(math.Ceil(size.X.Dots(dpi))), int(math.Ceil(size.Y.Dots(dpi)))
	img := image.NewNRGBA(image.Rect(0, 0, w, h))
	const gap = 2 // pixels between stripes
	for y := range h {
		walker := y * s.walkers / h
		if y-walker*h/s.walkers < gap {
			continue
		}
		for x := range w {
			row := int((float64(x) + 0.5) / float64(w) * float64(len(s.index)))
			img.SetNRGBA(x, y, s.colors[s.index[row][walker]])
		}
	}
	c.DrawImage(c.Rectangle, img)
}
