package tempering

import (
	"fmt"
	"math"
	"slices"

	"github.com/kelvin-ebm/kelvin/pkg/diagnostics"
)

// LogZ are estimates of log Z(1) − log Z(β_0) in nats, with V of rung i at β_i and δ_i = β_{i+1} − β_i. On the linear path
// from a normalised reference Z(β_0) is 1; elsewhere the caller adds log Z(β_0), or has a ratio.
//
// The value to report is the bridge. Forward and reverse are printed beside it and never averaged: forward is low and
// reverse high on average, and where V has a heavy lower tail, as for an energy that grows faster than a Gaussian
// reference falls, the weights of the reverse estimate have no variance. Its Pareto shape says so.
//
// Errors are standard errors by the jackknife over ladders, which are independent, whatever the correlation in time of
// their scans; NaN for fewer than two ladders, and rough below eight.
type LogZ struct {
	// Bridge is Σ c_i, c_i the root of Σ_k σ(δ_i V_k − c) over rung i = Σ_k σ(c − δ_i V_k) over rung i+1, σ the logistic
	// function (C. H. Bennett, J. Comput. Phys. 22, 245 (1976)).
	Bridge    float64 `json:"bridge"`
	BridgeErr float64 `json:"bridge_err"`
	// Forward is the stepping stone Σ ln mean exp(δ_i V), the mean over rung i (Xie, Lewis, Fan, Kuo and Chen, Syst. Biol.
	// 60, 150 (2011)). Its exponential is unbiased for independent draws.
	Forward    float64 `json:"forward"`
	ForwardErr float64 `json:"forward_err"`
	ForwardK   float64 `json:"forward_k"` // Pareto shape k̂ of the weights of the worst pair; above 0.7 the estimate is unreliable
	// Reverse is −Σ ln mean exp(−δ_i V), the mean over rung i+1.
	Reverse    float64 `json:"reverse"`
	ReverseErr float64 `json:"reverse_err"`
	ReverseK   float64 `json:"reverse_k"`
	// Thermodynamic is ∫ E_β[V] dβ by trapezia with the correction of their ends, dE_β[V]/dβ = Var_β(V): a check, whose bias
	// comes from the ladder and does not shrink with samples.
	Thermodynamic float64 `json:"thermodynamic"`
	// Rungs are log Z(β_j) − log Z(β_0) by the bridge, [K].
	Rungs []float64 `json:"rungs"`
}

// LogZ estimates log Z along the ladder at which the scans were recorded. V = −Inf is a weight of zero, as that of a draw
// of the reference which the energy forbids; forward and bridge hold, and what then is infinite is reported so. Where no
// weight is left on a rung, and where a V is NaN or +Inf, the error names the place. Sums run in a fixed
// order: by ladder, then by scan.
func (r *Record) LogZ(betas []float64) (LogZ, error) {
	fail := func(err error) (LogZ, error) { return LogZ{}, fmt.Errorf("tempering: log Z: %w", err) }
	if r.rungs < 2 {
		return fail(fmt.Errorf("%d rung, want at least 2", r.rungs))
	}
	if len(betas) != r.rungs {
		return fail(fmt.Errorf("%d β for %d rungs, want one a rung", len(betas), r.rungs))
	}
	if len(r.kept) == 0 {
		return fail(fmt.Errorf("no scans, want at least 1"))
	}
	if _, err := LadderOf(betas); err != nil {
		return fail(err)
	}
	if u := r.unweighed; u != nil {
		return fail(fmt.Errorf("%s, want a finite number, or -Inf for a weight of zero", u))
	}

	out := LogZ{ForwardK: math.NaN(), ReverseK: math.NaN(), Rungs: make([]float64, 1, r.rungs)}
	forward, reverse, bridge := newEstimate(r.ladders), newEstimate(r.ladders), newEstimate(r.ladders)
	upper := r.rung(0)
	mean, variance := moments(upper)
	for i := range r.rungs - 1 {
		lower, meanLower, varianceLower := upper, mean, variance
		upper = r.rung(i + 1)
		mean, variance = moments(upper)

		delta := betas[i+1] - betas[i]
		up, down := scaled(delta, lower), scaled(-delta, upper)
		f, b := logMean(r.byLadder(up)), logMean(r.byLadder(down)).negative()
		c, err := bridgePair(r.byLadder(up), r.byLadder(down), f, b)
		if err != nil {
			return fail(fmt.Errorf("rungs %d–%d: %w", i, i+1, err))
		}
		forward.add(f)
		reverse.add(b)
		bridge.add(c)
		out.Rungs = append(out.Rungs, bridge.value)
		out.ForwardK = worst(out.ForwardK, diagnostics.ParetoK(up))
		out.ReverseK = worst(out.ReverseK, diagnostics.ParetoK(down))
		out.Thermodynamic += delta*(meanLower+mean)/2 - delta*delta/12*(variance-varianceLower)
	}
	out.Forward, out.ForwardErr = forward.value, forward.standardError()
	out.Reverse, out.ReverseErr = reverse.value, reverse.standardError()
	out.Bridge, out.BridgeErr = bridge.value, bridge.standardError()
	return out, nil
}

// byLadder cuts the samples of a rung, ladder-major, into ladders.
func (r *Record) byLadder(samples []float64) [][]float64 {
	return slices.Collect(slices.Chunk(samples, len(r.kept)))
}

func scaled(by float64, v []float64) []float64 {
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = by * x
	}
	return out
}

func moments(v []float64) (mean, variance float64) {
	for _, x := range v {
		mean += x
	}
	mean /= float64(len(v))
	for _, x := range v {
		variance += (x - mean) * (x - mean)
	}
	return mean, variance / float64(len(v))
}

// worst is the larger shape; a shape that could not be told counts for nothing.
func worst(a, b float64) float64 {
	if math.IsNaN(a) || b > a {
		return b
	}
	return a
}

// estimate is a quantity from all ladders, and from all but one.
type estimate struct {
	value   float64
	without []float64 // [B]
}

func newEstimate(ladders int) estimate { return estimate{without: make([]float64, ladders)} }

func (e *estimate) add(o estimate) {
	e.value += o.value
	for b, x := range o.without {
		e.without[b] += x
	}
}

func (e estimate) negative() estimate {
	return estimate{-e.value, scaled(-1, e.without)}
}

// standardError is that of the jackknife, √((B−1)/B Σ_b (θ_b − mean θ)²), θ_b the estimate without ladder b.
func (e estimate) standardError() float64 {
	n := float64(len(e.without))
	if n < 2 {
		return math.NaN()
	}
	_, variance := moments(e.without)
	return math.Sqrt((n - 1) * variance)
}

// logMean is ln mean exp(w) of the samples of each ladder.
func logMean(w [][]float64) estimate {
	sums := make([]logSum, len(w))
	for b := range w {
		for _, x := range w[b] {
			sums[b].add(x)
		}
	}
	all, without := leaveOneOut(sums, logSum.merge)
	n := float64(len(w[0]))
	out := newEstimate(len(w))
	out.value = all.log() - math.Log(n*float64(len(w)))
	for b, s := range without {
		out.without[b] = s.log() - math.Log(n*float64(len(w)-1))
	}
	return out
}

// logSum is Σ exp(x) as exp(max)·sum, so that it neither overflows nor vanishes. The zero value is empty.
type logSum struct{ max, sum float64 }

func (s *logSum) add(x float64) {
	if !math.IsInf(x, -1) { // a weight of zero
		*s = s.merge(logSum{x, 1})
	}
}

func (s logSum) merge(o logSum) logSum {
	switch {
	case s.sum == 0:
		return o
	case o.sum == 0:
		return s
	case o.max > s.max:
		s, o = o, s
	}
	if math.IsInf(s.max, 1) {
		return logSum{s.max, 1}
	}
	return logSum{s.max, s.sum + o.sum*math.Exp(o.max-s.max)}
}

func (s logSum) log() float64 { return s.max + math.Log(s.sum) }

// leaveOneOut merges the parts, and all parts but each, without ever subtracting.
func leaveOneOut[T any](parts []T, merge func(a, b T) T) (all T, without []T) {
	without = make([]T, len(parts))
	for b, p := range parts { // what is left of b
		without[b] = all
		all = merge(all, p)
	}
	var right T
	for b, p := range slices.Backward(parts) {
		without[b] = merge(without[b], right)
		right = merge(p, right)
	}
	return all, without
}

// balance holds both sides of the equation for c, and how fast they change.
type balance struct{ up, upSlope, down, downSlope float64 }

func (s balance) merge(o balance) balance {
	return balance{s.up + o.up, s.upSlope + o.upSlope, s.down + o.down, s.downSlope + o.downSlope}
}

// excess is ln(up/down), which the fixed-point iteration c ← c + ln(up/down) adds to c. It falls as c rises.
func (s balance) excess() float64 { return math.Log(s.up / s.down) }

// slope is −d excess/dc, between 0 and 2. Where neighbours overlap little it is 2, and the fixed-point iteration would
// swing to and fro; Newton's step excess/slope does not.
func (s balance) slope() float64 { return s.upSlope/s.up + s.downSlope/s.down }

// bridgePair solves Σ σ(up − c) = Σ σ(c + down) for c, with up = δV of the lower rung and down = −δV of the upper one, by
// ladder. forward and reverse are the two one-sided estimates of c. Of the estimates without one ladder it takes the
// first Newton step from c.
func bridgePair(up, down [][]float64, forward, reverse estimate) (estimate, error) {
	sums := make([]balance, len(up))
	at := func(c float64) (all balance, without []balance) {
		for b := range up {
			var s balance
			for _, w := range up[b] {
				p := logistic(w - c)
				s.up += p
				s.upSlope += p * (1 - p)
			}
			for _, w := range down[b] {
				p := logistic(c + w)
				s.down += p
				s.downSlope += p * (1 - p)
			}
			sums[b] = s
		}
		return leaveOneOut(sums, balance.merge)
	}

	// As c falls, the left side rises to the number of weights on the lower rung that are not zero, and the right side falls
	// to that of states on the upper one whose weight is.
	lo, hi := math.Inf(1), math.Inf(-1)
	samples, weighty, forbidden := 0, 0, 0
	for b := range up {
		samples += len(up[b])
		for _, w := range up[b] {
			if !math.IsInf(w, -1) {
				weighty++
				lo, hi = min(lo, w), max(hi, w)
			}
		}
		for _, w := range down[b] {
			if math.IsInf(w, 1) {
				forbidden++
				continue
			}
			lo, hi = min(lo, -w), max(hi, -w)
		}
	}
	if weighty <= forbidden {
		return estimate{}, fmt.Errorf("bridge: V is finite for %d states of the lower rung and -Inf for %d of the upper one, want more of the first", weighty, forbidden)
	}
	// Above all δV the left side has only terms below a half and the right side only terms above; far enough below them,
	// the left side is within e^−L·samples of its largest and the right side within as much of its least.
	lo -= math.Log(2 * float64(samples) / float64(weighty-forbidden))

	out := newEstimate(len(up))
	out.value = min(max((forward.value+reverse.value)/2, lo), hi) // the reverse estimate may be infinite
	for range 200 {
		c := out.value
		all, without := at(c)
		if max(all.up, all.down) < 1e-280 {
			// The rungs share no energy at all. There σ(x) is exp(x), and the root is the mean of the one-sided estimates.
			for b := range out.without {
				out.without[b] = (forward.without[b] + reverse.without[b]) / 2
			}
			return out, nil
		}
		excess := all.excess()
		if excess > 0 {
			lo = c
		} else {
			hi = c
		}
		next := c + excess/all.slope()
		if !(next >= lo && next <= hi) {
			next = lo + (hi-lo)/2
		}
		if math.Abs(next-c) <= 1e-12*(1+math.Abs(c)) {
			for b, s := range without {
				out.without[b] = c + s.excess()/s.slope()
			}
			return out, nil
		}
		out.value = next
	}
	return estimate{}, fmt.Errorf("bridge: no root between %g and %g", lo, hi)
}

func logistic(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// From is z where log Z at β = 0 is not 0 but logZ0: every absolute number moves by it.
func (z LogZ) From(logZ0 float64) LogZ {
	z.Bridge += logZ0
	z.Forward += logZ0
	z.Reverse += logZ0
	z.Thermodynamic += logZ0
	return z
}
