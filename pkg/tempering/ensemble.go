package tempering

import (
	"errors"
	"fmt"
	"math"

	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
)

// Settings fix an Ensemble.
type Settings struct {
	Ladder  *Ladder
	Columns int    // M, columns kept; with a replay buffer more than the columns of one scan
	Offset  uint32 // number of the first column, counted over the whole experiment
	Seed    uint64
	// Fresh says that rung 0 is an independent draw of the reference at every scan, as on the linear path.
	Fresh bool
	// Uniform gives u in (0, 1] of a pair, by its lower rung; nil is the counter-based draw at (scan, ladder, pair).
	// Tests replay recorded draws through it.
	Uniform func(scan uint64, ladder, pair uint32) float64
}

// Ensemble keeps the walkers of M columns of K rungs. A walker is a label that swaps move between the rungs of its
// column. Each column counts its own scans, which give the parity of its pairs, so that a column of a replay buffer
// alternates however seldom it is drawn. An Ensemble is not safe for concurrent use.
type Ensemble struct {
	settings Settings
	betas    []float64
	rungs    int
	columns  int
	state    State
	live     []int32 // all columns in order
	seen     []bool  // [M], scratch
}

// The label machine of a walker: 0 →(rung 0) 1 →(rung K−1: a restart) 2 →(rung 0: a round trip) 1.
const (
	undirected uint8 = iota
	upward
	downward
)

// NewEnsemble returns an ensemble with walker k of every column on rung k.
func NewEnsemble(s Settings) (*Ensemble, error) {
	var errs []error
	if s.Ladder == nil {
		return nil, errors.New("tempering: ensemble: no ladder")
	}
	k, m := s.Ladder.NumRungs(), s.Columns
	if m < 1 || m > math.MaxInt32/k {
		errs = append(errs, fmt.Errorf("tempering: ensemble: %d columns of %d rungs, want at least 1 and at most %d rows", m, k, math.MaxInt32))
	} else if uint64(s.Offset)+uint64(m) > math.MaxUint32 {
		errs = append(errs, fmt.Errorf("tempering: ensemble: %d columns from number %d, want numbers below %d", m, s.Offset, uint32(math.MaxUint32)))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if s.Uniform == nil {
		seed := s.Seed
		s.Uniform = func(scan uint64, ladder, pair uint32) float64 { return rng.Uniform(seed, rng.Swap, scan, ladder, pair) }
	}
	e := &Ensemble{
		settings: s, betas: s.Ladder.Betas(), rungs: k, columns: m,
		state: newState(k, m), live: make([]int32, m), seen: make([]bool, m),
	}
	for c := range e.live {
		e.live[c] = int32(c)
	}
	return e, nil
}

// NumRungs is K, NumColumns is M.
func (e *Ensemble) NumRungs() int   { return e.rungs }
func (e *Ensemble) NumColumns() int { return e.columns }

// Swept is what one sweep decided.
type Swept struct {
	// Perm, [K·B] rung-major: row k·B+b goes on with the state of row Perm[k·B+b]. It belongs to the caller.
	Perm []int32
	// Restarted, [B]: a walker of the column that came from rung 0 was found on the target rung, a tempered restart.
	Restarted []bool

	Attempted, Accepted int // pairs
	NonFinite           int // pairs whose log ratio was NaN or infinite
	Restarts, Trips     int
}

// Sweep ends scan t of the columns in live, each named at most once; nil means all of them in order. v holds V of the
// explored chains, [K·B] with B = len(live), rung-major: v[k·B+b] belongs to rung k of column live[b]. First the
// positions of the walkers are recorded, then every column tries the pairs of its own parity, all at once. Nothing
// changes when an error is returned.
func (e *Ensemble) Sweep(scan uint64, live []int32, v []float64) (Swept, error) {
	if live == nil {
		live = e.live
	}
	b := len(live)
	if len(v) != e.rungs*b {
		return Swept{}, fmt.Errorf("tempering: sweep: %d energies, want %d for %d rungs of %d columns", len(v), e.rungs*b, e.rungs, b)
	}
	if err := e.distinct(live); err != nil {
		return Swept{}, fmt.Errorf("tempering: sweep: %w", err)
	}
	out := Swept{Perm: make([]int32, e.rungs*b), Restarted: make([]bool, b)}
	for row := range out.Perm {
		out.Perm[row] = int32(row)
	}
	s := &e.state
	for j, c := range live {
		column := int(c)
		e.record(column, j, &out)
		for i := range Pairs(e.rungs, s.Scans[column]) {
			lower, upper := i*b+j, (i+1)*b+j
			delta := LogRatio(e.betas[i], e.betas[i+1], v[lower], v[upper])
			accept := AcceptSwap(delta, e.settings.Uniform(scan, e.settings.Offset+uint32(c), uint32(i)))
			out.Attempted++
			if math.IsNaN(delta) || math.IsInf(delta, 0) {
				out.NonFinite++
			}
			if accept {
				out.Accepted++
				out.Perm[lower], out.Perm[upper] = int32(upper), int32(lower)
				x, y := i*e.columns+column, (i+1)*e.columns+column
				s.Labels[x], s.Labels[y] = s.Labels[y], s.Labels[x]
			}
			if !s.Warming[column] {
				s.Attempts[i]++
				s.AlphaSum[i] += acceptance(delta)
				if accept {
					s.Accepted[i]++
				}
			}
		}
		s.Scans[column]++
	}
	s.NonFinite += uint64(out.NonFinite)
	return out, nil
}

// record moves the label machines of the walkers at the two ends of a column.
func (e *Ensemble) record(column, live int, out *Swept) {
	if e.rungs == 1 {
		return
	}
	s := &e.state
	hot := int(s.Labels[column])*e.columns + column
	cold := int(s.Labels[(e.rungs-1)*e.columns+column])*e.columns + column
	if e.settings.Fresh {
		s.Lineage[hot]++
	}
	if s.Direction[hot] == downward {
		s.Trips[column]++
		out.Trips++
	}
	s.Direction[hot] = upward
	if s.Direction[cold] == upward {
		s.Direction[cold] = downward
		s.Restarts[column]++
		s.Warming[column] = false
		out.Restarts++
		out.Restarted[live] = true
	}
}

// Refill notes that the columns got fresh states on every rung. Walkers keep their labels and rungs, their lineage
// numbers rise, and their direction is forgotten. The column is warming, and counts in no pair statistic, until one of
// its walkers has travelled from rung 0 to the target.
func (e *Ensemble) Refill(columns []int32) error {
	if err := e.distinct(columns); err != nil {
		return fmt.Errorf("tempering: refill: %w", err)
	}
	for _, c := range columns {
		for label := range e.rungs {
			at := label*e.columns + int(c)
			e.state.Lineage[at]++
			e.state.Direction[at] = undirected
		}
		e.state.Warming[c] = e.rungs > 1
	}
	return nil
}

func (e *Ensemble) distinct(columns []int32) error {
	var err error
	done := 0
	for _, c := range columns {
		if c < 0 || int(c) >= e.columns {
			err = fmt.Errorf("column %d, want 0 to %d", c, e.columns-1)
			break
		}
		if e.seen[c] {
			err = fmt.Errorf("column %d twice", c)
			break
		}
		e.seen[c] = true
		done++
	}
	for _, c := range columns[:done] {
		e.seen[c] = false
	}
	return err
}

// Label is the walker on a rung of a column.
func (e *Ensemble) Label(rung, column int) int { return int(e.state.Labels[rung*e.columns+column]) }

// Warming reports whether a column was refilled and no walker has travelled from rung 0 to the target since; its
// target rung is no sample of the model yet.
func (e *Ensemble) Warming(column int) bool { return e.state.Warming[column] }

// Stats are the statistics of the pairs since the last ResetPairs, and counts over the whole run.
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

// ResetPairs forgets the statistics of the pairs: at the end of a round, or when θ was replaced.
func (e *Ensemble) ResetPairs() {
	clear(e.state.Attempts)
	clear(e.state.Accepted)
	clear(e.state.AlphaSum)
}

// TripRate is the measured number of round trips a scan and column. The first 2K scans of a column do not count, for no
// trip can end there; the rate is 0 until then. [PredictedTripRate] is what to compare it with.
func (e *Ensemble) TripRate() float64 {
	var trips, scans uint64
	for c := range e.columns {
		trips += e.state.Trips[c]
		scans += e.state.Scans[c] - min(e.state.Scans[c], 2*uint64(e.rungs))
	}
	if scans == 0 {
		return 0
	}
	return float64(trips) / float64(scans)
}
