package tempering

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

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
	// Schedule is one of [Schedules]; "" is deo.
	Schedule string
	Window   int // scans that windowed holds a parity, 0 stands for 1, see [Window]; not read by the other schedules
	// Uniform gives u in (0, 1] of a pair, by its lower rung; nil is the counter-based draw at (scan, ladder, pair).
	// Tests replay recorded draws through it.
	Uniform func(scan uint64, ladder, pair uint32) float64
}

// Ensemble keeps the walkers of M columns of K rungs. A walker is a label that swaps move between the rungs of its
// column. Each column counts its own scans, which give the parity of its pairs, so that a column of a replay buffer
// alternates however seldom it is drawn. An Ensemble is not safe for concurrent use.
type Ensemble struct {
	settings              Settings
	betas                 []float64
	rungs                 int
	columns               int
	window                uint64
	state                 State
	live                  []int32    // all columns in order
	seen                  []bool     // [M], scratch
	turns                 [2][]int32 // places in live of the columns that try the pairs of a parity
	deltas, alphas, draws []float64  // of a pair, by place in a turn
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
	if s.Schedule == "" {
		s.Schedule = Schedules[0]
	}
	if !slices.Contains(Schedules, s.Schedule) {
		errs = append(errs, fmt.Errorf("tempering: ensemble: schedule %q, want one of %s", s.Schedule, strings.Join(Schedules, ", ")))
	}
	if s.Window < 0 {
		errs = append(errs, fmt.Errorf("tempering: ensemble: window of %d scans, want at least 1, or 0 for 1", s.Window))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	e := &Ensemble{
		settings: s, betas: s.Ladder.Betas(), rungs: k, columns: m, window: uint64(max(s.Window, 1)),
		state: newState(k, m), live: make([]int32, m), seen: make([]bool, m),
		deltas: make([]float64, m), alphas: make([]float64, m), draws: make([]float64, m),
	}
	for c := range e.live {
		e.live[c] = int32(c)
	}
	return e, nil
}

// NumRungs is K, NumColumns is M.
func (e *Ensemble) NumRungs() int   { return e.rungs }
func (e *Ensemble) NumColumns() int { return e.columns }

// Ladder is the ladder of the next sweep.
func (e *Ensemble) Ladder() *Ladder { return e.settings.Ladder }

// SetLadder replaces the ladder from the next sweep on by one of as many rungs. The statistics stay; [Ensemble.Reset]
// forgets them. The ladder is no part of [State]: who cuts a run keeps it beside the state.
func (e *Ensemble) SetLadder(l *Ladder) error {
	if l == nil {
		return errors.New("tempering: set ladder: no ladder")
	}
	if l.NumRungs() != e.rungs {
		return fmt.Errorf("tempering: set ladder: %d rungs, want %d", l.NumRungs(), e.rungs)
	}
	e.settings.Ladder, e.betas = l, l.Betas()
	return nil
}

// Window is the number of scans for which the windowed schedule holds a parity.
func (e *Ensemble) Window() int { return int(e.window) }

// SetWindow replaces the number of scans that the windowed schedule holds a parity. Pairs that swapped in the window
// that this breaks off may swap again. Like the ladder, the window is no part of [State].
func (e *Ensemble) SetWindow(scans int) error {
	if scans < 1 {
		return fmt.Errorf("tempering: set window: %d scans, want at least 1", scans)
	}
	e.window = uint64(scans)
	clear(e.state.Swapped)
	return nil
}

// Swept is what one sweep decided.
type Swept struct {
	// Perm, [K·B] rung-major: row k·B+b goes on with the state of row Perm[k·B+b]. It belongs to the caller.
	Perm []int32
	// Restarted, [B]: a walker of the column that came from rung 0 was found on the target rung, a tempered restart.
	Restarted []bool

	Attempted, Accepted int // pairs
	NonFinite           int // pairs whose log ratio was NaN or infinite
	Restarts, Trips     int

	// Alpha and Tried, [K−1] by pair, are Σ min(1, exp Δ) and the number of attempts, warming columns left out.
	Alpha []float64
	Tried []int
	// Target, [B], is the acceptance min(1, exp Δ) of the pair (K−2, K−1) of each column, NaN where it was not tried;
	// TargetSwapped says where it was accepted.
	Target        []float64
	TargetSwapped []bool
}

func newSwept(rungs, live int) Swept {
	out := Swept{
		Perm: make([]int32, rungs*live), Restarted: make([]bool, live),
		Alpha: make([]float64, rungs-1), Tried: make([]int, rungs-1), Target: make([]float64, live), TargetSwapped: make([]bool, live),
	}
	for row := range out.Perm {
		out.Perm[row] = int32(row)
	}
	for j := range out.Target {
		out.Target[j] = math.NaN()
	}
	return out
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
	out := newSwept(e.rungs, b)
	e.record(live, &out)
	e.turns[0], e.turns[1] = e.turns[0][:0], e.turns[1][:0]
	for j, c := range live {
		e.openWindow(int(c))
		parity := e.parity(int(c)) & 1
		e.turns[parity] = append(e.turns[parity], int32(j))
		e.state.Scans[c]++
	}
	for parity, turn := range e.turns {
		if len(turn) == 0 {
			continue
		}
		for i := range Pairs(e.rungs, uint64(parity)) {
			e.sweepPair(scan, i, live, turn, v, &out)
		}
	}
	e.state.NonFinite += uint64(out.NonFinite)
	return out, nil
}

// sweepPair tries the pair (i, i+1) of the columns at the places turn of live. Every sum over columns is in their order. What
// a swap changes is computed, not branched to: no processor foretells what the draws say.
func (e *Ensemble) sweepPair(scan uint64, i int, live, turn []int32, v []float64, out *Swept) {
	s, b := &e.state, len(live)
	vLower, vUpper := v[i*b:][:b], v[(i+1)*b:][:b]
	fromLower, fromUpper := out.Perm[i*b:][:b], out.Perm[(i+1)*b:][:b]
	lower, upper := s.Labels[i*e.columns:][:e.columns], s.Labels[(i+1)*e.columns:][:e.columns]
	swapped := s.Swapped[i*e.columns:][:e.columns]
	betaLower, betaUpper := e.betas[i], e.betas[i+1]
	windowed, target := e.settings.Schedule == "windowed", i == e.rungs-2
	attempted, accepted, tried, counted := 0, 0, 0, 0
	sum, total := 0.0, s.AlphaSum[i]
	deltas, alphas, draws := e.deltas[:len(turn)], e.alphas[:len(turn)], e.draws[:len(turn)]
	for n, j := range turn {
		deltas[n] = LogRatio(betaLower, betaUpper, vLower[j], vUpper[j])
		alphas[n] = acceptance(deltas[n])
	}
	for n, j := range turn {
		draws[n] = e.uniform(scan, live[j], i)
	}
	for n, j := range turn {
		c := live[j]
		if windowed && swapped[c] {
			continue
		}
		delta, alpha, u := deltas[n], alphas[n], draws[n]
		accept := u < alpha
		if near(u, alpha) {
			accept = AcceptSwap(delta, u)
		}
		yes := int32(0)
		if accept {
			yes = 1
		}
		fromLower[j] += yes * int32(b)
		fromUpper[j] -= yes * int32(b)
		difference := yes * (lower[c] - upper[c])
		lower[c] -= difference
		upper[c] += difference
		attempted++
		accepted += int(yes)
		if windowed {
			swapped[c] = accept
		}
		if delta-delta != 0 { // it is NaN or infinite
			out.NonFinite++
		}
		if target {
			out.Target[j], out.TargetSwapped[j] = alpha, accept
		}
		if s.Warming[c] {
			continue
		}
		tried++
		counted += int(yes)
		sum += alpha
		total += alpha
	}
	out.Attempted += attempted
	out.Accepted += accepted
	out.Tried[i], out.Alpha[i] = tried, sum
	s.Attempts[i] += uint64(tried)
	s.Accepted[i] += uint64(counted)
	s.AlphaSum[i] = total
}

func (e *Ensemble) uniform(scan uint64, column int32, pair int) float64 {
	ladder := e.settings.Offset + uint32(column)
	if e.settings.Uniform != nil {
		return e.settings.Uniform(scan, ladder, uint32(pair))
	}
	return rng.Uniform(e.settings.Seed, rng.Swap, scan, ladder, uint32(pair))
}

// parity is the number whose last bit says which pairs a column tries at the present scan of its own count.
func (e *Ensemble) parity(column int) uint64 {
	scan := e.state.Scans[column]
	switch e.settings.Schedule {
	case "seo":
		return rng.Uint64(e.settings.Seed, rng.Parity, scan, e.settings.Offset+uint32(column), 0)
	case "windowed":
		return scan / e.window
	default:
		return scan
	}
}

// openWindow lets every pair swap again where the windowed schedule begins a window.
func (e *Ensemble) openWindow(column int) {
	if e.settings.Schedule != "windowed" || e.state.Scans[column]%e.window != 0 {
		return
	}
	for i := range e.rungs - 1 {
		e.state.Swapped[i*e.columns+column] = false
	}
}

// record moves the label machines of the walkers at the two ends of the columns, then counts where their walkers stand.
func (e *Ensemble) record(live []int32, out *Swept) {
	if e.rungs == 1 {
		return
	}
	s := &e.state
	for j, c := range live {
		column := int(c)
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
			out.Restarted[j] = true
		}
	}
	for k := range e.rungs {
		labels := s.Labels[k*e.columns:][:e.columns]
		var up, down uint64
		for _, column := range live {
			if s.Warming[column] {
				continue
			}
			direction := s.Direction[int(labels[column])*e.columns+int(column)]
			up += uint64(direction & upward) // no branches, which nothing could foretell
			down += uint64(direction & downward / downward)
		}
		s.Up[k] += up
		s.Down[k] += down
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

// Positions writes the rung of each walker of a column into into, [K] by label.
func (e *Ensemble) Positions(column int, into []int32) {
	for k := range e.rungs {
		into[e.Label(k, column)] = int32(k)
	}
}

// Warming reports whether a column was refilled and no walker has travelled from rung 0 to the target since; its
// target rung is no sample of the model yet.
func (e *Ensemble) Warming(column int) bool { return e.state.Warming[column] }
