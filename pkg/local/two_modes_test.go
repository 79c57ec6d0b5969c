package local

import (
	"fmt"
	"math"
	"path/filepath"
	"testing"

	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/experiment"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// lateParameters trains and returns the mean, over the last third of the steps, of what read makes of the parameters.
func lateParameters(t *testing.T, p *Parts, read func(theta []float32) []float64) []float64 {
	t.Helper()
	b, l, err := p.Open(t.Context(), backend.Options{NoInstall: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		l.Close()
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
	var mean []float64
	for late := p.Steps / 3; l.Step() < p.Steps; {
		if _, err := l.TrainStep(); err != nil {
			t.Fatal(err)
		}
		if l.Step() <= p.Steps-late {
			continue
		}
		theta, err := l.Theta()
		if err != nil {
			t.Fatal(err)
		}
		values := read(theta)
		if mean == nil {
			mean = make([]float64, len(values))
		}
		for i, v := range values {
			mean[i] += v / float64(late)
		}
	}
	return mean
}

// Two modes of unequal mass (20,000 rows of 0.3·N(−6, 1) + 0.7·N(6, 1)), an energy that says what it believes of them, and three
// samplers at the same number of gradients. Tempered chains learn the masses, from a start in one mode; persistent chains from
// the same start and chains from the data do not. All three learn the means: those alone prove nothing.
//
// The means of a run have standard errors of 0.007 (left) and 0.005 (right), from the 500 × 128 negatives that they are
// averaged over; those of the tempered share are 0.003. So the mean of three seeds must be within 0.02, a single run within
// 0.04, and a share within 0.03, of those of the run's own training rows.
func TestTemperingLearnsTheMassesOfTwoModes(t *testing.T) {
	if testing.Short() {
		t.Skip("nine trainings")
	}
	const seeds = 3
	for _, tc := range []struct {
		name  string
		share func(err float64) bool
		want  string
	}{
		{"pt", func(err float64) bool { return math.Abs(err) < 0.03 }, "within 0.03"},
		{"pcd", func(err float64) bool { return math.Abs(err) > 0.15 }, "more than 0.15"},
		{"cd", func(err float64) bool { return math.Abs(err) > 0.15 }, "more than 0.15"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var off [2]float64 // of the means, over the seeds
			for seed := range seeds {
				file := filepath.Join(testutil.Root(), "examples", "two-modes", tc.name+".yaml")
				cfg, err := experiment.Load(file, []string{"backend=go", fmt.Sprintf("seed=%d", seed+1), "data.test_samples=0"})
				if err != nil {
					t.Fatal(err)
				}
				p, err := Build(cfg, nil, nil)
				if err != nil {
					t.Fatal(err)
				}
				var count, sum [2]float64
				for i, k := range p.Data.Labels {
					count[k]++
					sum[k] += p.Data.Rows[i]
				}
				got := lateParameters(t, p, func(theta []float32) []float64 {
					return []float64{float64(theta[0]), float64(theta[1]), 1 / (1 + math.Exp(-float64(theta[2])))}
				})
				share := count[0] / float64(p.Data.N())
				if !tc.share(got[2] - share) {
					t.Errorf("seed %d: share %.3f of the left-hand mode, want it %s of the data's %.3f", seed+1, got[2], tc.want, share)
				}
				for k := range off {
					err := got[k] - sum[k]/count[k]
					off[k] += err / seeds
					if math.Abs(err) > 0.04 {
						t.Errorf("seed %d: mean %d is %.3f off that of the data, want at most 0.04", seed+1, k, err)
					}
				}
			}
			for k, err := range off {
				if math.Abs(err) > 0.02 {
					t.Errorf("mean %d is %.3f off that of the data over %d seeds, want at most 0.02", k, err, seeds)
				}
			}
		})
	}
}

// oneGaussian is E(x) = ½κ(x − m)² on the line.
type oneGaussian struct{}

func (oneGaussian) Dim() int { return 1 }

func (oneGaussian) Params() []models.Param {
	at := func(v float64) models.Init { return func([]int, *models.Stream) []float64 { return []float64{v} } }
	return []models.Param{{Name: "kappa", Shape: []int{1}, Init: at(1)}, {Name: "mean", Shape: []int{1}, Init: at(0)}}
}

func (oneGaussian) Energy(x *Node, weights []*Node) *Node {
	kappa, mean := weights[0], weights[1]
	return MulScalar(Mul(kappa, Reshape(Square(Sub(x, Reshape(mean, 1, 1))), -1)), 0.5)
}

// A Gaussian trained on 20,000 rows of N(1, 0.5²) finds their mean and the inverse of their variance, near 4. Averaged over
// 300 × 64 negatives these have standard errors of 0.004 and 0.04, and the tolerances are five of them.
func TestTemperingLearnsOneGaussian(t *testing.T) {
	const text = `
data: {dataset: mixture, samples: 20000, test_samples: 0, means: [[1]], std: 0.5}
model: {kind: mixture, means: [[0]]}
loss: {kind: parallel_tempering_cd, energy_penalty: 0}
sampler: {kind: mala, steps: 5, step_size: 0.2}
tempering: {rungs: 4, chains: 64}
optimizer: {kind: adam, lr: 0.02}
train: {steps: 900, batch: 256}
backend: {kind: KIND}
`
	for _, kind := range kinds() {
		t.Run(kind, func(t *testing.T) {
			p, err := Build(parse(t, kind, text, "seed=1"), oneGaussian{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			mean, variance, n := 0.0, 0.0, float64(p.Data.N())
			for _, x := range p.Data.Rows {
				mean += x / n
			}
			for _, x := range p.Data.Rows {
				variance += (x - mean) * (x - mean) / n
			}
			got := lateParameters(t, p, func(theta []float32) []float64 { return []float64{float64(theta[0]), float64(theta[1])} })
			if math.Abs(got[0]-1/variance) > 0.2 || math.Abs(got[1]-mean) > 0.02 {
				t.Errorf("κ = %.3f and m = %.4f, want %.3f ± 0.2 and %.4f ± 0.02", got[0], got[1], 1/variance, mean)
			}
		})
	}
}
