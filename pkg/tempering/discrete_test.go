package tempering

import (
	"math"
	"math/bits"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
)

// spins is a state of a small discrete model: a bit a unit. All its states can be counted, so that every number is known.
type spins uint16

// discrete is a model of few units, with V = −E.
type discrete struct {
	units int
	v     func(spins) float64
	// explore draws every unit in turn from its law given the others at β. At β = 0 that is an independent draw.
	explore func(s *rng.Stream, beta float64, x spins) spins
}

// bit is a unit of x as 0 or 1.
func (x spins) bit(i int) float64 { return float64(x >> i & 1) }

func (x spins) with(i int, on bool) spins {
	if on {
		return x | 1<<i
	}
	return x &^ (1 << i)
}

// enumerate sums exp(βV) and statistics of the states over all of them.
func (m discrete) enumerate(beta float64, statistics ...func(spins) float64) (logZ float64, means []float64) {
	var z float64
	means = make([]float64, len(statistics))
	for x := range 1 << m.units {
		p := math.Exp(beta * m.v(spins(x)))
		z += p
		for i, f := range statistics {
			means[i] += p * f(spins(x))
		}
	}
	for i := range means {
		means[i] /= z
	}
	return math.Log(z), means
}

// temper runs scans of exploration and sweeps, after a tenth as many that nobody looks at. visit sees the states of every
// kept scan, [K·B], before the sweep.
func (m discrete) temper(t *testing.T, ladder *Ladder, ladders, scans int, seed uint64, visit func(states []spins)) (*Record, *Ensemble) {
	t.Helper()
	betas := ladder.Betas()
	ensemble := newEnsemble(t, Settings{Ladder: ladder, Columns: ladders, Seed: seed, Fresh: true})
	record := newRecord(t, len(betas), ladders, scans)
	draws := rng.New(seed, rng.Explore, 0, 0)
	states, next := make([]spins, len(betas)*ladders), make([]spins, len(betas)*ladders)
	v := make([]float64, len(states))
	for scan := range scans + scans/10 {
		for row, x := range states {
			states[row] = m.explore(draws, betas[row/ladders], x)
			v[row] = m.v(states[row])
		}
		if scan >= scans/10 {
			record.Add(v)
			visit(states)
		}
		swept := sweep(t, ensemble, uint64(scan), nil, v)
		for row, from := range swept.Perm {
			next[row] = states[from]
		}
		states, next = next, states
	}
	return record, ensemble
}

// ising is the 4×4 Ising model on a torus, J = 1: E = −Σ s_i s_j over the 32 neighbouring pairs, s = ±1.
func ising() discrete {
	const side = 4
	var neighbours [side * side]spins
	for i := range neighbours {
		row, column := i/side, i%side
		for _, j := range []int{row*side + (column+1)%side, row*side + (column+3)%side, (row+1)%side*side + column, (row+3)%side*side + column} {
			neighbours[i] = neighbours[i].with(j, true)
		}
	}
	// field is the sum of the four spins around i.
	field := func(x spins, i int) float64 { return float64(2*bits.OnesCount16(uint16(x&neighbours[i])) - 4) }
	return discrete{
		units: side * side,
		v: func(x spins) float64 {
			sum := 0.0
			for i := range neighbours {
				sum += (2*x.bit(i) - 1) * field(x, i)
			}
			return sum / 2 // each pair was met twice
		},
		explore: func(s *rng.Stream, beta float64, x spins) spins {
			for i := range neighbours {
				x = x.with(i, s.Float64() < logistic(2*beta*field(x, i)))
			}
			return x
		},
	}
}

func magnetisation(x spins) float64 { return math.Abs(float64(2*bits.OnesCount16(uint16(x))-16)) / 16 }

// The Ising model at and far below its critical temperature: one ladder from independent spins gives log Z at all of them.
// The true values were computed elsewhere and are checked here by counting all states.
func TestTemperingOfIsing(t *testing.T) {
	const ladders, scans, critical = 64, 1200, 5
	m := ising()
	betas := []float64{0, 0.1, 0.2, 0.3, 0.37, math.Log(1+math.Sqrt2) / 2, 0.51, 0.6, 0.75, 1}
	ladder, err := LadderOf(betas)
	if err != nil {
		t.Fatal(err)
	}
	energy := func(x spins) float64 { return -m.v(x) }
	means := [2][]float64{make([]float64, ladders), make([]float64, ladders)} // by ladder, on the critical rung
	record, ensemble := m.temper(t, ladder, ladders, scans, 11, func(states []spins) {
		for b, x := range states[critical*ladders : (critical+1)*ladders] {
			means[0][b] += energy(x) / scans
			means[1][b] += magnetisation(x) / scans
		}
	})
	z := logZ(t, record, betas)
	for rung, want := range map[int]float64{0: 11.090355, 2: 11.771470, critical: 15.521915, 7: 20.056533, 9: 32.698721} {
		exact, _ := m.enumerate(betas[rung])
		if math.Abs(exact-want) > 1e-6 {
			t.Errorf("β = %g: log Z %.6f over all states, want %.6f", betas[rung], exact, want)
		}
		if got := 16*math.Ln2 + z.Rungs[rung]; math.Abs(got-want) > 0.05 {
			t.Errorf("β = %g: log Z %.4f, want %.4f ± 0.05", betas[rung], got, want)
		}
	}
	if z.BridgeErr > 0.01 || math.Abs(16*math.Ln2+z.Bridge-32.698721) > 5*z.BridgeErr {
		t.Errorf("log Z %.4f ± %.4f, want 32.6987 within 5 errors of at most 0.01", 16*math.Ln2+z.Bridge, z.BridgeErr)
	}
	_, exact := m.enumerate(betas[critical], energy, magnetisation)
	for i, tc := range []struct {
		name       string
		want, most float64 // the largest standard error
	}{{"⟨E⟩", -25.04998, 0.15}, {"⟨|m|⟩", 0.84386, 0.003}} {
		if math.Abs(exact[i]-tc.want) > 1e-5 {
			t.Errorf("%s %.6f over all states, want %.6f", tc.name, exact[i], tc.want)
		}
		mean, variance := moments(means[i])
		se := math.Sqrt(variance / (ladders - 1))
		if se > tc.most || math.Abs(mean-tc.want) > 5*se {
			t.Errorf("%s %.4f ± %.4f, want %.4f within 5 errors of at most %g", tc.name, mean, se, tc.want, tc.most)
		}
	}
	if restarts := ensemble.Stats().Restarts; restarts < 10*ladders {
		t.Errorf("%d restarts of %d ladders, want at least 10 of each", restarts, ladders)
	}
}

// rbm is a restricted Boltzmann machine of 3 visible units, the low bits, and 2 hidden ones, all 0 or 1:
// E = −vWh − bv − ch, W_ij = 0.1·(−1)^(i+j)·(i+1)·(j+1), b_i = 0.1·i, c_j = −0.2·j.
func rbm() discrete {
	const visible, hidden = 3, 2
	weight := func(i, j int) float64 { return 0.1 * float64(1-2*((i+j)%2)) * float64((i+1)*(j+1)) }
	return discrete{
		units: visible + hidden,
		v: func(x spins) float64 {
			sum := 0.0
			for i := range visible {
				sum += 0.1 * float64(i) * x.bit(i)
				for j := range hidden {
					sum += x.bit(i) * weight(i, j) * x.bit(visible+j)
				}
			}
			for j := range hidden {
				sum -= 0.2 * float64(j) * x.bit(visible+j)
			}
			return sum
		},
		explore: func(s *rng.Stream, beta float64, x spins) spins {
			for j := range hidden {
				field := -0.2 * float64(j)
				for i := range visible {
					field += x.bit(i) * weight(i, j)
				}
				x = x.with(visible+j, s.Float64() < logistic(beta*field))
			}
			for i := range visible {
				field := 0.1 * float64(i)
				for j := range hidden {
					field += weight(i, j) * x.bit(visible+j)
				}
				x = x.with(i, s.Float64() < logistic(beta*field))
			}
			return x
		},
	}
}

func TestTemperingOfRestrictedBoltzmannMachine(t *testing.T) {
	m := rbm()
	betas := []float64{0, 0.5, 1}
	ladder, err := LadderOf(betas)
	if err != nil {
		t.Fatal(err)
	}
	record, _ := m.temper(t, ladder, 16, 1000, 12, func([]spins) {})
	z := logZ(t, record, betas)
	for rung, want := range []float64{3.46573590, 3.47771386, 3.51282318} {
		if exact, _ := m.enumerate(betas[rung]); math.Abs(exact-want) > 1e-8 {
			t.Errorf("β = %g: log Z %.8f over all states, want %.8f", betas[rung], exact, want)
		}
		if got := 5*math.Ln2 + z.Rungs[rung]; math.Abs(got-want) > 0.01 {
			t.Errorf("β = %g: log Z %.5f ± %.5f, want %.5f ± 0.01", betas[rung], got, z.BridgeErr, want)
		}
	}
	if z.BridgeErr > 0.002 {
		t.Errorf("error %.5f, want at most 0.002: a fifth of the tolerance", z.BridgeErr)
	}
}
