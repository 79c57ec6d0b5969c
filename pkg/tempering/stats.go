package tempering

import "math"

// Stats are the statistics of the pairs since the last ResetPairs or Reset, and counts since the last Reset.
type Stats struct {
	Pairs           []PairStats // K−1
	Restarts, Trips uint64      // over all columns
	Warming         int         // columns
	NonFinite       uint64      // pairs with a NaN or infinite log ratio, all rejected but those at +Inf
}

// PairStats are the statistics of the pair (i, i+1), over the columns that are not warming.
type PairStats struct {
	Attempts, Accepted uint64
	AlphaSum           float64 // Σ min(1, exp Δ)
}

// Rejection is 1 − mean α, which varies less than the share of rejected swaps; NaN before the first attempt.
func (p PairStats) Rejection() float64 { return 1 - p.AlphaSum/float64(p.Attempts) }

// Attempts is how often the pair with the fewest was tried; 0 without pairs.
func (s Stats) Attempts() uint64 {
	if len(s.Pairs) == 0 {
		return 0
	}
	n := s.Pairs[0].Attempts
	for _, p := range s.Pairs {
		n = min(n, p.Attempts)
	}
	return n
}

// Rejections are the rejection rates of the pairs, lowest rung first; NaN where a pair was not tried yet.
func (s Stats) Rejections() []float64 {
	out := make([]float64, len(s.Pairs))
	for i, p := range s.Pairs {
		out[i] = p.Rejection()
	}
	return out
}

// Stats returns the statistics.
func (e *Ensemble) Stats() Stats {
	s := &e.state
	out := Stats{Pairs: make([]PairStats, e.rungs-1), NonFinite: s.NonFinite}
	for i := range out.Pairs {
		out.Pairs[i] = PairStats{s.Attempts[i], s.Accepted[i], s.AlphaSum[i]}
	}
	for c := range e.columns {
		out.Restarts += s.Restarts[c]
		out.Trips += s.Trips[c]
		if s.Warming[c] {
			out.Warming++
		}
	}
	return out
}

// ResetPairs forgets the statistics of the pairs.
func (e *Ensemble) ResetPairs() {
	clear(e.state.Attempts)
	clear(e.state.Accepted)
	clear(e.state.AlphaSum)
}

// Reset counts anew from here: the statistics of the pairs, restarts, trips, the shares of [Ensemble.UpFraction] and the
// non-finite ratios begin at zero. For the start of a round, and for when the law of the rungs changed: a ladder moved, the
// reference was refitted. Walkers, their directions, lineage numbers, warming columns and the clocks of the columns stay as
// they are, so that whoever is under way from the reference or back to it arrives as if nobody had looked.
func (e *Ensemble) Reset() {
	e.ResetPairs()
	s := &e.state
	clear(s.Restarts)
	clear(s.Trips)
	clear(s.Up)
	clear(s.Down)
	s.NonFinite = 0
	for c, scans := range s.Scans {
		s.Since[c] = max(s.Since[c], scans-min(scans, e.startUp()))
	}
}

// startUp is the number of first scans of a column in which no round trip can end, 2K.
func (e *Ensemble) startUp() uint64 { return 2 * uint64(e.rungs) }

// TripRate is the measured number of round trips a scan and column since the last Reset, of the scans of TripScans; 0 where
// there are none. [PredictedTripRate] is what to compare it with.
func (e *Ensemble) TripRate() float64 {
	scans := e.TripScans()
	if scans == 0 {
		return 0
	}
	var trips uint64
	for _, n := range e.state.Trips {
		trips += n
	}
	return float64(trips) / float64(scans)
}

// TripScans is the number of scans since the last Reset in which trips could end, over all columns: all but the first 2K
// of a column's life.
func (e *Ensemble) TripScans() uint64 {
	var scans uint64
	for c, n := range e.state.Scans {
		n -= e.state.Since[c]
		scans += n - min(n, e.startUp())
	}
	return scans
}

// UpFraction is f(i), [K]: among the walkers recorded on rung i since the last Reset that have been on rung 0, the share
// that has not been on the target since. It falls from 1 to 0, and a cliff locates a bottleneck (Katzgraber et al., J.
// Stat. Mech. 2006). With equal rejections it is a straight line under seo; under deo it steps down at the two ends and
// is the flatter between them the fewer swaps are rejected. Columns that are warming do not count; NaN where no walker
// was counted.
func (e *Ensemble) UpFraction() []float64 {
	out := make([]float64, e.rungs)
	for k := range out {
		up, down := float64(e.state.Up[k]), float64(e.state.Down[k])
		out[k] = math.NaN()
		if up+down > 0 {
			out[k] = up / (up + down)
		}
	}
	return out
}
