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

// LadderFigure draws β of every rung, the swap acceptance of every pair below it, and, where there are two ladders or more
// of a training or of rounds, how the rungs have moved. It needs Betas and Rejections.
func (t Tempering) LadderFigure() (*Figure, error) {
	errs := []error{checkLadder("betas", t.Betas), checkShares("rejections", t.Rejections, len(t.Betas)-1)}
	rounds, err := ladders("rounds", t.Rounds)
	training, trainErr := ladders("training", t.Training)
	errs = append(errs, err, trainErr)
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("plots: ladder: %w", err)
	}
	suggested := ""
	if t.Suggested > 0 {
		suggested = fmt.Sprintf("the barrier asks for %d", t.Suggested)
	}
	strips := []strip{t.betaStrip(), t.acceptanceStrip()}
	if len(training) > 0 {
		strips = append(strips, historyStrip("ladder over the training", "step", training))
	}
	if len(rounds) > 0 {
		strips = append(strips, historyStrip("ladder of each round", "scan", rounds))
	}
	return stack(t.ladderTitle(), t.subtitle(fmt.Sprintf("%d rungs", len(t.Betas)), suggested), temperingWidth, 40, 0, strips...), nil
}

// ladders are the rounds that name their ladder; none where there is nothing that could have moved.
func ladders(name string, rounds []TemperingRound) ([]TemperingRound, error) {
	errs := []error{checkRounds(name, rounds)}
	var out []TemperingRound
	inner := false // two rungs have none that could move
	for i, r := range rounds {
		if len(r.Betas) == 0 {
			continue
		}
		errs = append(errs, checkLadder(fmt.Sprintf("%s[%d].betas", name, i), r.Betas))
		out = append(out, r)
		inner = inner || len(r.Betas) > 2
	}
	if err := errors.Join(errs...); err != nil || len(out) < 2 || !inner {
		return nil, err
	}
	return out, nil
}

func (t Tempering) ladderTitle() string {
	low, high, tried := -1, -1, 0
	alpha := t.acceptance()
	for i, a := range alpha {
		if math.IsNaN(a) {
			continue
		}
		tried++
		if low < 0 || a < alpha[low] {
			low = i
		}
		if high < 0 || a > alpha[high] {
			high = i
		}
	}
	pair := func(i int) string { return fmt.Sprintf("rungs %d–%d", i, i+1) }
	switch lo, hi := alpha[low], alpha[high]; {
	case lo < leastShare:
		return fmt.Sprintf("Swaps between %s are rare: %s accepted", pair(low), percent(lo))
	case tried == 1:
		return fmt.Sprintf("%s of the swaps between %s are accepted", percent(lo), pair(low))
	case hi > 2*lo:
		return fmt.Sprintf("Uneven swaps: %s at %s, %s at %s", percent(lo), pair(low), percent(hi), pair(high))
	case percent(lo) == percent(hi):
		return fmt.Sprintf("Neighbours swap evenly: %s accepted", percent(lo))
	default:
		return fmt.Sprintf("Neighbours swap evenly: %s to %s accepted", percent(lo), percent(hi))
	}
}

func percent(share float64) string {
	if p := 100 * share; p > 0 && p < 1 {
		return fmt.Sprintf("%.1g %%", p)
	}
	return fmt.Sprintf("%.0f %%", 100*share)
}

// rungColor is the colour of each of n rungs, in all pictures of tempering.
func rungColor(th Theme, n int) func(i int) color.Color {
	return func(i int) color.Color { return th.orderedColor(i, n) }
}

func (t Tempering) betaStrip() strip {
	n := len(t.Betas)
	scale := newBetaScale(t.Betas)
	rungs := make([]float64, n)
	for i := range rungs {
		rungs[i] = float64(i)
	}
	return strip{title: "inverse temperature β", height: 150, axes: func(th Theme) *plot.Plot {
		p := newAxes(th, "", "")
		rungAxis(&p.X, n)
		p.Y.Min, p.Y.Max = scale.pad(t.Betas[0], t.Betas[n-1])
		p.Y.Scale, p.Y.Tick.Marker = scale, scale
		radius := vg.Length(3.4)
		if n > 16 {
			radius = 2.4
		}
		p.Add(curve{Series{X: rungs, Y: t.Betas}, th.Muted, 0.8}, dots{rungs, t.Betas, rungColor(th, n), radius})
		if n <= 12 {
			st := style(tickSize, false, th.Foreground)
			st.XAlign = text.XRight
			for i, b := range t.Betas {
				p.Add(label{float64(i), b, -5, 1, shortNumber(b), st})
			}
		}
		return p
	}}
}

func (t Tempering) acceptanceStrip() strip {
	n := len(t.Betas)
	alpha := t.acceptance()
	sum, tried := 0.0, 0
	for _, a := range alpha {
		if !math.IsNaN(a) {
			sum, tried = sum+a, tried+1
		}
	}
	mean := sum / float64(tried)
	keys := func(th Theme) []key {
		return []key{{fmt.Sprintf("mean %.2f", mean), th.Foreground, markDashes}}
	}
	return strip{title: "swap acceptance", keys: keys, height: 100, axes: func(th Theme) *plot.Plot {
		p := newAxes(th, "rung", "")
		rungAxis(&p.X, n)
		p.Y.Min, p.Y.Max = 0, 1.3 // room for the numbers above the bars
		p.Y.Tick.Marker = halves{}
		p.Add(pairBars{alpha, rungColor(th, n-1)}, level{mean, th.Foreground})
		for i, a := range alpha {
			st := style(tickSize, false, th.Foreground)
			if a < leastShare {
				st = style(tickSize, true, warnColor(th))
			}
			st.XAlign = text.XCenter
			switch {
			case math.IsNaN(a):
				p.Add(label{float64(i) + 0.5, 1.08, 0, 0, "–", st})
			case n <= 13 || a < leastShare:
				p.Add(label{float64(i) + 0.5, 1.08, 0, 0, fmt.Sprintf("%.2f", a), st})
			}
		}
		return p
	}}
}

// halves are the ticks of an axis of shares.
type halves struct{}

func (halves) Ticks(lo, hi float64) []plot.Tick {
	return []plot.Tick{{Value: 0, Label: "0"}, {Value: 0.5, Label: "0.5"}, {Value: 1, Label: "1"}}
}

// pairBars draws a bar between the rungs of every pair.
type pairBars struct {
	y     []float64
	color func(i int) color.Color
}

func (b pairBars) Plot(c draw.Canvas, p *plot.Plot) {
	xs, ys := p.Transforms(&c)
	for i, y := range b.y {
		if math.IsNaN(y) {
			continue
		}
		lo, hi := xs(float64(i)+0.16), xs(float64(i)+0.84)
		c.FillPolygon(b.color(i), []vg.Point{{X: lo, Y: c.Min.Y}, {X: lo, Y: ys(y)}, {X: hi, Y: ys(y)}, {X: hi, Y: c.Min.Y}})
	}
}

// historyStrip draws β of every rung over the rounds. Where the number of rungs changes the lines break.
func historyStrip(title, axis string, rounds []TemperingRound) strip {
	ladders := make([][]float64, len(rounds))
	for i, r := range rounds {
		ladders[i] = r.Betas
	}
	scale := newBetaScale(ladders...)
	lo, hi := math.Inf(1), 0.0
	for _, l := range ladders {
		lo, hi = min(lo, l[0]), max(hi, l[len(l)-1])
	}
	return strip{title: title, height: 130, axes: func(th Theme) *plot.Plot {
		p := newAxes(th, axis, "")
		scanAxis(&p.X, rounds)
		p.Y.Min, p.Y.Max = scale.pad(lo, hi)
		p.Y.Scale, p.Y.Tick.Marker = scale, scale
		for first := 0; first < len(rounds); {
			end, n := first+1, len(ladders[first])
			for end < len(rounds) && len(ladders[end]) == n {
				end++
			}
			for k := range n {
				var s Series
				for _, r := range rounds[first:end] {
					s.X, s.Y = append(s.X, float64(r.Scan)), append(s.Y, r.Betas[k])
				}
				p.Add(curve{s, th.orderedColor(k, n), 1.3})
				if end-first <= 24 {
					p.Add(dots{s.X, s.Y, func(int) color.Color { return th.orderedColor(k, n) }, 1.7})
				}
			}
			first = end
		}
		return p
	}}
}

// scanAxis makes an axis of the scans at which rounds end, logarithmic where rounds grow longer and longer.
func scanAxis(a *plot.Axis, rounds []TemperingRound) {
	first, last := float64(rounds[0].Scan), float64(rounds[len(rounds)-1].Scan)
	a.Min, a.Max = first, last
	middle := float64(rounds[len(rounds)/2].Scan)
	switch {
	case first == last:
		a.Min, a.Max = 0, math.Max(1, 1.15*last)
	case first > 0 && middle < last/4 && last > 8*first:
		a.Scale, a.Tick.Marker = plot.LogScale{}, logTicks{}
	}
}

// checkRounds checks what all pictures of rounds need.
func checkRounds(name string, rounds []TemperingRound) error {
	for i, r := range rounds {
		if r.Scan < 0 || i > 0 && r.Scan <= rounds[i-1].Scan {
			return fmt.Errorf("%s[%d].scan: %d, want at least 0 and rising scans", name, i, r.Scan)
		}
	}
	return nil
}

// betaScale spaces an axis of β as its rungs ask for: evenly, or, where some rung is very hot, by ln β. The stretch from
// 0 to the least positive β, which has no logarithm, then is as long as a mean step of the ladder.
type betaScale struct {
	knee float64 // the least positive β; 0 for an even axis
	unit float64 // length of the stretch from 0 to knee, in nats
}

func newBetaScale(ladders ...[]float64) betaScale {
	least, most, steps := math.Inf(1), 0.0, 1
	for _, l := range ladders {
		positive := l
		if l[0] == 0 {
			positive = l[1:]
		}
		least, most = min(least, positive[0]), max(most, positive[len(positive)-1])
		steps = max(steps, len(positive)-1)
	}
	if least > most/25 {
		return betaScale{}
	}
	return betaScale{least, math.Log(most/least) / float64(max(steps, 4))}
}

// at is the place of β on the axis, in nats from the knee.
func (s betaScale) at(beta float64) float64 {
	switch {
	case s.knee == 0:
		return beta
	case beta < s.knee:
		return s.unit * (beta/s.knee - 1)
	default:
		return math.Log(beta / s.knee)
	}
}

// beta is the inverse of at.
func (s betaScale) beta(at float64) float64 {
	switch {
	case s.knee == 0:
		return at
	case at < 0:
		return s.knee * (1 + at/s.unit)
	default:
		return s.knee * math.Exp(at)
	}
}

// pad gives some room at both ends.
func (s betaScale) pad(lo, hi float64) (float64, float64) {
	a, b := s.at(lo), s.at(hi)
	room := 0.06 * (b - a)
	return s.beta(a - room), s.beta(b + room)
}

// Normalize makes betaScale a plot.Normalizer.
func (s betaScale) Normalize(lo, hi, beta float64) float64 {
	return (s.at(beta) - s.at(lo)) / (s.at(hi) - s.at(lo))
}

// Ticks makes betaScale a plot.Ticker.
func (s betaScale) Ticks(lo, hi float64) []plot.Tick {
	if s.knee == 0 {
		return ticks{}.Ticks(lo, hi)
	}
	out := logTicks{}.Ticks(max(lo, s.knee), hi)
	if lo <= 0 {
		out = append([]plot.Tick{{Value: 0, Label: "0"}}, out...)
	}
	return out
}
