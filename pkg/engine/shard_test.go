package engine

import (
	"math"
	"slices"
	"testing"

	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/samplers"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
)

// bowl is E(x) = ½κ Σ(x−m)², with log κ and m as parameters: a model whose maximum likelihood is known in closed form.
type bowl struct {
	dim     int
	κ, mean float64
	fixed   bool // no parameters
}

func (b bowl) Dim() int { return b.dim }

func (b bowl) Params() []models.Param {
	if b.fixed {
		return nil
	}
	at := func(v float64) models.Init {
		return func([]int, *rng.Stream) []float64 { return slices.Repeat([]float64{v}, 1) }
	}
	return []models.Param{{Name: "log_precision", Shape: []int{1}, Init: at(math.Log(b.κ))}, {Name: "mean", Shape: []int{1}, Init: at(b.mean)}}
}

func (b bowl) Energy(x *Node, w []*Node) *Node {
	if b.fixed {
		return MulScalar(ReduceSum(Square(AddScalar(x, -b.mean)), -1), b.κ/2)
	}
	return MulScalar(Mul(ReduceSum(Square(Sub(x, ExpandAxes(w[1], 0))), -1), Exp(w[0])), 0.5)
}

func ones(n int) []float64 { return slices.Repeat([]float64{1}, n) }

func identity(n int) []int32 {
	p := make([]int32, n)
	for i := range p {
		p[i] = int32(i)
	}
	return p
}

// start makes a shard whose chains are standard normal and whose rungs have the given β and step sizes.
func start(t *testing.T, b *backend.Backend, spec Spec, betas, steps []float64) *Shard {
	t.Helper()
	s, err := NewShard(b, spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	live := to32(rng.New(5, rng.InitChains, 0, 0).Normals(spec.rows() * spec.dim()))
	var pool []float32
	if spec.pooled() {
		pool = to32(rng.New(6, rng.InitChains, 0, 0).Normals(spec.Rungs * spec.Pool * spec.dim()))
	}
	if err := s.Load(s.NewState(to32(models.InitParams(spec.Network, 1)), live, pool)); err != nil {
		t.Fatal(err)
	}
	s.SetLadder(betas, steps)
	s.SetTables(ones(spec.Sampler.Steps), ones(spec.Sampler.Steps))
	return s
}

func variance(x []float32, mean float64) float64 {
	sum := 0.0
	for _, v := range x {
		sum += (float64(v) - mean) * (float64(v) - mean)
	}
	return sum / float64(len(x))
}

// A long chain on N(0, 1/κ) has variance 1/κ under MALA and 1/(κ(1 − εκ/2)) under Langevin (samplers spec §2). One case has
// 55 steps a scan, which are blocks of 50 and 5. The tolerance is five standard errors of a variance from independent
// rows, √(2/n), the rows being the chains' last states.
func TestChainReachesItsKnownVariance(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for _, tc := range []struct {
			kind         string
			steps, scans int
			eps, κ       float64
			variance     float64
		}{
			{"langevin", 55, 1, 0.4, 1, 1.25},
			{"langevin", 10, 6, 0.1, 4, 0.3125},
			{"mala", 10, 6, 0.4, 1, 1},
			{"mala", 10, 6, 0.1, 4, 0.25},
		} {
			t.Run(tc.kind, func(t *testing.T) {
				const chains = 4000
				s := start(t, b, Spec{Network: bowl{dim: 3, κ: tc.κ, fixed: true}, Rungs: 1, Chains: chains, Pool: chains,
					Sampler: samplers.Config{Kind: tc.kind, Steps: tc.steps}, Seed: 3}, []float64{1}, []float64{tc.eps})
				var r Result
				for scan := range tc.scans {
					var err error
					if r, err = s.Scan(uint64(scan), Draw{Perm: identity(chains)}); err != nil {
						t.Fatal(err)
					}
				}
				st, err := s.State()
				if err != nil {
					t.Fatal(err)
				}
				if got, tol := variance(st.Live, 0), 5*tc.variance*math.Sqrt(2./(3*chains)); math.Abs(got-tc.variance) > tol {
					t.Errorf("variance %.4f, want %.4f ± %.4f", got, tc.variance, tol)
				}
				if a := r.Accept[0]; tc.kind == "langevin" && a != 1 || tc.kind == "mala" && !(a > 0.6 && a < 1) {
					t.Errorf("acceptance %g", a)
				}
			})
		}
	})
}

// On the linear path from q = N(1, 2²) to N(0, 1/κ) every rung is a Gaussian with precision (1−β)/4 + βκ and mean
// (1−β)/4 / precision. Rung 0 is drawn anew at every scan.
func TestRungsOfALinearPathHaveTheirLaws(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for _, base := range []bool{false, true} {
			const chains, κ = 3000, 5.0
			q := &models.Gaussian{Mean: []float64{1, 1}, Std: []float64{2, 2}}
			betas := []float64{0, 0.1, 0.4, 1}
			spec := Spec{Network: bowl{dim: 2, κ: κ, fixed: true}, Reference: q, Rungs: 4, Chains: chains, Pool: chains,
				Sampler: samplers.Config{Kind: "mala", Steps: 10}, Seed: 4}
			target := κ
			if base { // E = f − log q: one quarter more of precision, and the mean moves at β = 1 as well
				spec.Base, target = q, κ+0.25
			}
			steps := samplers.StepSizes(0.1, betas, q.Std)
			s := start(t, b, spec, betas, steps)
			for scan := range uint64(8) {
				if _, err := s.Scan(scan, Draw{Perm: identity(4 * chains)}); err != nil {
					t.Fatal(err)
				}
			}
			first, err := s.State()
			if err != nil {
				t.Fatal(err)
			}
			for k, beta := range betas {
				pull := (1 - beta) / 4
				if base {
					pull = 0.25
				}
				precision := (1-beta)/4 + beta*target
				mean := pull / precision
				rows := first.Live[k*chains*2 : (k+1)*chains*2]
				if got, want := variance(rows, mean), 1/precision; math.Abs(got-want) > 5*want*math.Sqrt(2./(2*chains)) {
					t.Errorf("base %v rung %d: variance about %.3f is %.4f, want %.4f", base, k, mean, got, want)
				}
			}
			r, err := s.Scan(8, Draw{Perm: identity(4 * chains)})
			if err != nil {
				t.Fatal(err)
			}
			second, err := s.State()
			if err != nil {
				t.Fatal(err)
			}
			for row := 0; row < 4*chains; row += 997 { // V = −f − log q of the state that the scan ended with, without base
				f, logq := 0.0, -math.Log(2*math.Pi*4)
				for _, x := range second.Live[2*row : 2*row+2] {
					f += κ / 2 * float64(x) * float64(x)
					logq -= (float64(x) - 1) * (float64(x) - 1) / 8
				}
				want := -f
				if !base {
					want -= logq
				}
				if math.Abs(r.V[row]-want) > 1e-4*(1+math.Abs(want)) {
					t.Errorf("base %v row %d: V = %g, want %g", base, row, r.V[row], want)
				}
			}
			if slices.Equal(first.Live[:2*chains], second.Live[:2*chains]) {
				t.Error("rung 0 was not drawn anew")
			}
		}
	})
}

// PCD on one Gaussian must reach the data's own mean and precision (tempering spec §6.3).
func TestPersistentCDLearnsAGaussian(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		const n, chains = 20_000, 256
		stream := rng.New(9, rng.Dataset, 0, 0)
		data := make([]float32, n)
		mean := 0.0
		for i := range data {
			data[i] = float32(1 + 0.5*stream.Normal())
			mean += float64(data[i]) / n
		}
		precision := 1 / variance(data, mean)
		spec := Spec{Network: bowl{dim: 1, κ: 1}, Rungs: 1, Chains: chains, Pool: chains, Batch: chains,
			Sampler:   samplers.Config{Kind: "mala", Steps: 10, StepSize: schedules.Constant(0.1)},
			Optimizer: OptimizerConfig{Kind: "adam", Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-8, EMA: 0.99}, Seed: 2}
		s := start(t, b, spec, []float64{1}, []float64{0.1})
		steps := 800
		for step := range steps {
			lr := 0.05
			if step > steps/2 {
				lr = 0.005
			}
			at := step * chains % (n - chains)
			if _, err := s.Train(uint64(step), step, lr, data[at:at+chains], Draw{Perm: identity(chains)}); err != nil {
				t.Fatal(err)
			}
		}
		st, err := s.State()
		if err != nil {
			t.Fatal(err)
		}
		if got := float64(st.EMA[1]); math.Abs(got-mean) > 0.02 {
			t.Errorf("mean %.4f, want %.4f ± 0.02", got, mean)
		}
		if got := math.Exp(float64(st.EMA[0])); math.Abs(got-precision) > 0.2 {
			t.Errorf("precision %.3f, want %.3f ± 0.2", got, precision)
		}
	})
}

// With the step size at zero the chains stand still, and what moves rows is the plan alone.
func TestDrawMovesRowsAsPlanned(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		spec := Spec{Network: bowl{dim: 1, κ: 1, fixed: true}, Rungs: 1, Chains: 2, Pool: 3, Mix: true,
			Loss: losses.Config{}, Sampler: samplers.Config{Kind: "langevin", Steps: 1}, Seed: 1}
		s := start(t, b, spec, []float64{1}, []float64{0})
		st := s.NewState(nil, []float32{10, 11}, []float32{0, 1, 2})
		if err := s.Load(st); err != nil {
			t.Fatal(err)
		}
		// The sweep trades the live rows (11, 10); 11 goes to slot 2, slot 0 keeps 0, slot 1 takes 10. The next scan starts
		// from slots 2 and 0; the first row keeps its state and gets 0.5 of jitter, the second starts afresh at 7.
		_, err := s.Scan(0, Draw{Perm: []int32{1, 0}, Source: []int32{0, 4, 3}, Slots: []int32{2, 0}, Keep: []float32{1, 0}, Add: []float32{0.5, 7}})
		if err != nil {
			t.Fatal(err)
		}
		if st, err = s.State(); err != nil {
			t.Fatal(err)
		}
		if want := []float32{0, 10, 11}; !slices.Equal(st.Pool, want) {
			t.Errorf("pool %v, want %v", st.Pool, want)
		}
		if want := []float32{11.5, 7}; !slices.Equal(st.Live, want) {
			t.Errorf("live %v, want %v", st.Live, want)
		}
	})
}

func TestShardRefusesInputsOfTheWrongSize(t *testing.T) {
	b := testutil.Backend(t, "go")
	s := start(t, b, Spec{Network: bowl{dim: 2, κ: 1, fixed: true}, Rungs: 1, Chains: 4, Pool: 4,
		Sampler: samplers.Config{Kind: "mala", Steps: 1}}, []float64{1}, []float64{0.1})
	if err := s.Load(State{Theta: make([]float32, 1), Live: make([]float32, 7)}); err == nil || err.Error() != "engine: load state: chains: length 7, want 8" {
		t.Errorf("load: %v", err)
	}
	if _, err := s.Scan(0, Draw{Perm: identity(3)}); err == nil || err.Error() != "engine: draw: permutation: length 3, want 4" {
		t.Errorf("scan: %v", err)
	}
	if _, err := NewShard(b, Spec{Network: bowl{dim: 2}, Rungs: 2, Chains: 4, Pool: 4, FromData: true}); err == nil {
		t.Error("two rungs from the data: no error")
	}
}
