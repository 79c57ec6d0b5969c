package tempering

import (
	"math"
	"testing"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/kelvin-ebm/kelvin/pkg/diagnostics"
	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
)

// gaussianPath is a ladder between centred Gaussians in four dimensions: rung k has precision base + slope·β_k, so that
// V(x) = −slope·‖x‖²/2.
type gaussianPath struct {
	ladder      *Ladder
	base, slope float64
}

type point [4]float64

func (x point) norm2() float64 { return x[0]*x[0] + x[1]*x[1] + x[2]*x[2] + x[3]*x[3] }

func (g gaussianPath) precision(rung int) float64 { return g.base + g.slope*g.ladder.betas[rung] }

// draws are independent points of every rung, rung-major, from N(0, I/precision).
func (g gaussianPath) draws(columns int, stream *rng.Stream, precision func(rung int) float64) []point {
	x := make([]point, g.ladder.NumRungs()*columns)
	for row := range x {
		scale := 1 / math.Sqrt(precision(row/columns))
		for d := range x[row] {
			x[row][d] = scale * stream.Normal()
		}
	}
	return x
}

// explore is one step of an autoregression that leaves the law of every rung as it is.
func (g gaussianPath) explore(x []point, columns int, stream *rng.Stream) {
	const keep = 0.6
	noise := math.Sqrt(1 - keep*keep)
	for row := range x {
		scale := noise / math.Sqrt(g.precision(row/columns))
		for d := range x[row] {
			x[row][d] = keep*x[row][d] + scale*stream.Normal()
		}
	}
}

func (g gaussianPath) energies(x []point) []float64 {
	v := make([]float64, len(x))
	for row := range x {
		v[row] = -g.slope / 2 * x[row].norm2()
	}
	return v
}

func permute(x []point, perm []int32) []point {
	out := make([]point, len(x))
	for row, from := range perm {
		out[row] = x[from]
	}
	return out
}

// leastP is the least p-value, times the number of tests, of the hypothesis that the rows are independent draws of
// N(0, I/precision) of their rungs: each rung's precision·‖x‖² is χ² of 4 by Kolmogorov and Smirnov, and those of
// neighbouring rungs do not correlate.
func leastP(x []point, columns int, precision func(rung int) float64) float64 {
	rungs := len(x) / columns
	cdf := func(y float64) float64 { return -math.Expm1(-y/2) - y/2*math.Exp(-y/2) }
	least := 1.0
	var before []float64
	for k := range rungs {
		y := make([]float64, columns)
		for c := range y {
			y[c] = precision(k) * x[k*columns+c].norm2()
		}
		_, p := diagnostics.KolmogorovSmirnov(y, cdf)
		least = min(least, p)
		for c := range y {
			y[c] = cdf(y[c])
		}
		if k > 0 {
			z := math.Abs(diagnostics.Correlation(before, y)) * math.Sqrt(float64(columns))
			least = min(least, 2*distuv.UnitNormal.Survival(z))
		}
		before = y
	}
	return least * float64(2*rungs-1)
}

// Independent draws of every rung are as good after one scan, exploration and sweep, at level 0.001; and the test that
// says so finds the faults that such code is prone to. Each fault is built here, around the same sweep.
func TestOneScanKeepsTheLawOfEveryRung(t *testing.T) {
	const columns, level = 20_000, 1e-3
	linear := gaussianPath{ladder: uniformLadder(t, 5), base: 1, slope: 9}
	tenth, err := LadderOf([]float64{0.1, 0.2, 0.4, 0.7, 1})
	if err != nil {
		t.Fatal(err)
	}
	power := gaussianPath{ladder: tenth, slope: 10}

	// One scan of a path whose swaps are decided by the energies that see gives for the states.
	scan := func(s Settings, prepare func(*State), path gaussianPath, see func([]point) []float64) float64 {
		s.Ladder, s.Columns, s.Seed = path.ladder, columns, 1
		e := newEnsemble(t, s)
		state := e.Snapshot()
		prepare(&state)
		if err := e.Restore(state); err != nil {
			t.Fatal(err)
		}
		stream := rng.New(3, rng.Dataset, 0, 0)
		x := path.draws(columns, stream, path.precision)
		path.explore(x, columns, stream)
		x = permute(x, sweep(t, e, 0, nil, see(x)).Perm)
		return leastP(x, columns, path.precision)
	}
	even := func(*State) {}
	odd := func(s *State) {
		for c := range s.Scans {
			s.Scans[c] = 1
		}
	}
	// The second scan of a window that has closed half of the pairs, whatever the states are.
	halfClosed := func(s *State) {
		odd(s)
		for i := range s.Swapped {
			s.Swapped[i] = i%2 == 0
		}
	}
	// Both ends of a pair decide on their own: the rows are those of one ensemble below, of another above.
	twoEnds := func(seedBelow, seedAbove uint64) float64 {
		stream := rng.New(3, rng.Dataset, 0, 0)
		x := linear.draws(columns, stream, linear.precision)
		v := linear.energies(x)
		below := sweep(t, newEnsemble(t, Settings{Ladder: linear.ladder, Columns: columns, Seed: seedBelow}), 0, nil, v).Perm
		above := sweep(t, newEnsemble(t, Settings{Ladder: linear.ladder, Columns: columns, Seed: seedAbove}), 0, nil, v).Perm
		for row := range above {
			if row/columns%2 == 0 { // the lower end of an even pair
				above[row] = below[row]
			}
		}
		return leastP(permute(x, above), columns, linear.precision)
	}
	// Momenta at temperature T = 1/β move with their states, scaled by the root of the ratio of temperatures or not.
	momenta := func(scaled bool) float64 {
		stream := rng.New(3, rng.Dataset, 0, 0)
		x := power.draws(columns, stream, power.precision)
		mass := func(rung int) float64 { return power.ladder.betas[rung] }
		p := power.draws(columns, stream, mass)
		perm := sweep(t, newEnsemble(t, Settings{Ladder: power.ladder, Columns: columns, Seed: 1}), 0, nil, power.energies(x)).Perm
		p = permute(p, perm)
		for row, from := range perm {
			if scaled {
				ratio := math.Sqrt(mass(int(from)/columns) / mass(row/columns))
				for d := range p[row] {
					p[row][d] *= ratio
				}
			}
		}
		return leastP(p, columns, mass)
	}
	negated := func(x []point) []float64 {
		v := linear.energies(x)
		for i := range v {
			v[i] = -v[i]
		}
		return v
	}
	stale := gaussianPath{slope: 3} // θ before a step that made the energy three times as steep

	for _, tc := range []struct {
		name string
		p    float64
		good bool
	}{
		{"deo, even pairs", scan(Settings{}, even, linear, linear.energies), true},
		{"deo, odd pairs", scan(Settings{}, odd, linear, linear.energies), true},
		{"deo, power path", scan(Settings{}, even, power, power.energies), true},
		{"seo", scan(Settings{Schedule: "seo"}, even, linear, linear.energies), true},
		{"a window opens", scan(Settings{Schedule: "windowed", Window: 3}, even, linear, linear.energies), true},
		{"a window half closed", scan(Settings{Schedule: "windowed", Window: 3}, halfClosed, linear, linear.energies), true},
		{"two ends with one u", twoEnds(1, 1), true},
		{"momenta scaled to the temperature", momenta(true), true},

		{"the sign of the log ratio turned round", scan(Settings{}, even, linear, negated), false},
		{"the energies of the parameters before", scan(Settings{}, even, linear, stale.energies), false},
		{"two ends with different u", twoEnds(1, 2), false},
		{"momenta of another temperature", momenta(false), false},
	} {
		if good := tc.p >= level; good != tc.good {
			t.Errorf("%s: p = %.3g, accepted as the law of the rungs %t, want %t", tc.name, tc.p, good, tc.good)
		}
	}
}

// The joint test of a conditional model: x ~ N(0, 1) has data y ~ N(x, 1/τ), and the ladder goes from the law of x to that
// of x given y, V = −τ(y − x)²/2. Data given the target's x and, by exploration and sweep, x given the data, in turn, keep
// the law of both: x and √τ·(y − x) stay independent draws of N(0, 1) (J. Geweke, J. Am. Stat. Assoc. 99, 799 (2004)). With
// new data the rungs below the target are drawn from their laws, N(βτy/p, 1/p) with p = 1 + βτ.
func TestDataAndStatesInTurnKeepTheirJointLaw(t *testing.T) {
	const columns, rungs, turns, tau, level = 20_000, 4, 6, 8.0, 1e-3
	ladder := uniformLadder(t, rungs)
	run := func(see func(x, now, before float64) float64) (p float64) {
		e := newEnsemble(t, Settings{Ladder: ladder, Columns: columns, Seed: 1})
		draws := rng.New(5, rng.Dataset, 0, 0)
		x, v := make([]float64, rungs*columns), make([]float64, rungs*columns)
		y, before := make([]float64, columns), make([]float64, columns)
		top := x[(rungs-1)*columns:]
		for c := range top {
			top[c] = draws.Normal()
		}
		for scan := range uint64(turns) {
			copy(before, y)
			for c := range y {
				y[c] = top[c] + draws.Normal()/math.Sqrt(tau)
			}
			for row := range x {
				c, beta := row%columns, ladder.betas[row/columns]
				precision := 1 + beta*tau
				mean := beta * tau * y[c] / precision
				keep := 0.0
				if row/columns == rungs-1 {
					keep = 0.6
				}
				x[row] = mean + keep*(x[row]-mean) + math.Sqrt((1-keep*keep)/precision)*draws.Normal()
				v[row] = see(x[row], y[c], before[c])
			}
			swapped := make([]float64, len(x))
			for row, from := range sweep(t, e, scan, nil, v).Perm {
				swapped[row] = x[from]
			}
			copy(x, swapped)
		}
		off := make([]float64, columns)
		for c := range off {
			off[c] = math.Sqrt(tau) * (y[c] - top[c])
		}
		least := 2 * distuv.UnitNormal.Survival(math.Abs(diagnostics.Correlation(top, off))*math.Sqrt(columns))
		for _, z := range [][]float64{top, off} {
			_, p := diagnostics.KolmogorovSmirnov(z, distuv.UnitNormal.CDF)
			least = min(least, p)
		}
		return 3 * least
	}
	fit := func(x, y float64) float64 { return -tau * (y - x) * (y - x) / 2 }
	if p := run(func(x, now, _ float64) float64 { return fit(x, now) }); p < level {
		t.Errorf("p = %.3g, want the joint law kept", p)
	}
	if p := run(func(x, _, before float64) float64 { return fit(x, before) }); p >= level {
		t.Errorf("p = %.3g with energies of the data before, want them found out", p)
	}
}
