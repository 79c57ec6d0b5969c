package models_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/pkg/core/graph"
	"gonum.org/v1/gonum/mat"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

func Example() {
	f, err := models.Config{Kind: "mlp", Hidden: []int{64, 64}}.Build(2)
	if err != nil {
		panic(err)
	}
	q, err := models.FitGaussian([]float64{-1, 0, 1, 2}, 2, 2)
	if err != nil {
		panic(err)
	}
	energy := models.WithBase(f, q)
	theta := models.InitParams(energy, 7)
	fmt.Println(energy.Dim(), len(theta), energy.Params()[0].Name, energy.Params()[0].Shape)
	// Output: 2 4417 net.0.weight [64 2]
}

func TestMLPNamesAndShapes(t *testing.T) {
	e := must(t)(models.New("mlp", 5, map[string]any{"hidden": []int{16, 8}}))
	var got []string
	for _, p := range e.Params() {
		got = append(got, fmt.Sprint(p.Name, p.Shape))
	}
	want := []string{"net.0.weight[16 5]", "net.0.bias[16]", "net.2.weight[8 16]", "net.2.bias[8]", "net.4.weight[1 8]", "net.4.bias[1]"}
	if !slices.Equal(got, want) {
		t.Errorf("parameters %v, want %v", got, want)
	}
}

func TestActivations(t *testing.T) {
	softplus := func(x float64) float64 { return max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }
	want := map[string]func(x float64) float64{
		"silu":       func(x float64) float64 { return x / (1 + math.Exp(-x)) },
		"gelu":       func(x float64) float64 { return 0.5 * x * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x))) },
		"tanh":       math.Tanh,
		"relu":       func(x float64) float64 { return max(x, 0) },
		"leaky_relu": func(x float64) float64 { return max(x, 0.01*x) },
		"elu": func(x float64) float64 {
			if x > 0 {
				return x
			}
			return math.Expm1(x)
		},
		"softplus": softplus,
	}
	slope := map[string]float64{"silu": 0.5, "gelu": 0.5, "tanh": 1, "relu": 0, "leaky_relu": 0.01, "elu": 1, "softplus": 0.5} // at 0
	x := tensor([]float64{-700, -90, -20, -3, -0.5, -1e-9, 0, 1e-9, 0.5, 3, 20, 90, 700}, 13, 1)
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		if !slices.Equal(models.Activations(), []string{"elu", "gelu", "leaky_relu", "relu", "silu", "softplus", "tanh"}) {
			t.Errorf("activations %v", models.Activations())
		}
		for _, name := range models.Activations() {
			e := must(t)(models.New("mlp", 1, map[string]any{"hidden": []int{1}, "activation": name}))
			// One hidden unit with weight 1: E(x) = φ(x).
			in := []testutil.Tensor{x, tensor([]float64{1}, 1, 1), tensor([]float64{0}, 1), tensor([]float64{1}, 1, 1), tensor([]float64{0}, 1)}
			build := func(in []*Node) []*Node {
				f, g := models.EnergyAndGrad(models.At(e, in[1:]), in[0])
				return []*Node{f, g, Gradient(ReduceAllSum(g), in[0])[0]}
			}
			double, single := evalBoth(t, b, in, build)
			for i, v := range x.Data {
				if w := want[name](v); math.Abs(double[0][i]-w) > 1e-12*(1+math.Abs(w)) || math.Abs(single[0][i]-w) > 2e-6*(1+math.Abs(w)) {
					t.Errorf("%s(%g) = %.15g, in float32 %.8g, want %.15g", name, v, double[0][i], single[0][i], w)
				}
			}
			if got := double[1][6]; math.Abs(got-slope[name]) > 1e-12 {
				t.Errorf("%s: slope at 0 is %g, want %g", name, got, slope[name])
			}
			for order := range 3 {
				if !finite(double[order]) || !finite(single[order]) {
					t.Errorf("%s: derivative of order %d is not finite at some of %v", name, order, x.Data)
				}
			}
		}
	})
}

// The first weights must follow the stated law: its bounds, its variance (four standard errors of a sample of this size)
// and what the bias does.
func TestInit(t *testing.T) {
	const in, out = 40, 500
	for _, tc := range []struct {
		init     string
		bound    float64 // of a uniform law
		std      float64
		zeroBias bool
		params   map[string]any
	}{
		{"torch", 1 / math.Sqrt(in), 1 / math.Sqrt(3*in), false, nil},
		{"xavier_uniform", math.Sqrt(6. / (in + out)), math.Sqrt(2. / (in + out)), true, nil},
		{"kaiming_uniform", math.Sqrt(6. / in), math.Sqrt(2. / in), true, nil},
		{"normal", math.Inf(1), 0.3, true, map[string]any{"init_std": 0.3}},
		{"normal", math.Inf(1), 0.02, true, nil},
	} {
		t.Run(tc.init, func(t *testing.T) {
			params := map[string]any{"hidden": []int{out}, "init": tc.init}
			for k, v := range tc.params {
				params[k] = v
			}
			e := must(t)(models.New("mlp", in, params))
			w := weightsOf(e, 3)
			squares := 0.0
			for _, v := range w[0].Data {
				if math.Abs(v) > tc.bound {
					t.Fatalf("weight %g beyond ±%g", v, tc.bound)
				}
				squares += v * v
			}
			if got, n := math.Sqrt(squares/float64(len(w[0].Data))), float64(len(w[0].Data)); math.Abs(got/tc.std-1) > 4/math.Sqrt(2*n) {
				t.Errorf("standard deviation %.5f, want %.5f", got, tc.std)
			}
			if zero := !slices.ContainsFunc(w[1].Data, func(v float64) bool { return v != 0 }); zero != tc.zeroBias {
				t.Errorf("biases all zero: %v, want %v", zero, tc.zeroBias)
			}
			if again := weightsOf(e, 3); !slices.Equal(again[0].Data, w[0].Data) {
				t.Errorf("the same seed gave other weights")
			}
			if other := weightsOf(e, 4); slices.Equal(other[0].Data, w[0].Data) {
				t.Errorf("another seed gave the same weights")
			}
		})
	}
}

func TestZeroLastStartsAtZero(t *testing.T) {
	e := must(t)(models.New("mlp", 2, map[string]any{"zero_last": true}))
	for i, v := range energies(t, e, [][]float64{{0, 0}, {1, 2}, {-5, 3}}) {
		if v != 0 {
			t.Errorf("energy %d is %g, want 0", i, v)
		}
	}
}

// sigma is the largest singular value, by LAPACK's algorithm.
func sigma(w testutil.Tensor) float64 {
	var svd mat.SVD
	if !svd.Factorize(mat.NewDense(w.Shape[0], w.Shape[1], slices.Clone(w.Data)), mat.SVDNone) {
		panic("no singular values")
	}
	return svd.Values(nil)[0]
}

// Over random matrices of many shapes the estimate is at most σ and within 1e-4 of it; with close largest values too.
func TestSpectralNormAgainstSVD(t *testing.T) {
	var ws []testutil.Tensor
	for i, shape := range [][]int{{1, 1}, {1, 9}, {9, 1}, {2, 64}, {64, 2}, {17, 31}, {64, 64}, {128, 96}} {
		stream := rng.New(uint64(i), rng.InitParams, 0, 0)
		values := stream.Normals(shape[0] * shape[1])
		scale := math.Pow(10, float64(i%5)-2) // 0.01 to 100
		for j := range values {
			values[j] *= scale
		}
		ws = append(ws, tensor(values, shape...))
	}
	identity := tensor(make([]float64, 36), 6, 6) // every singular value the same
	for i := range 6 {
		identity.Data[7*i] = 3
	}
	pair := tensor(make([]float64, 36), 6, 6) // two largest values 0.1 % apart
	for i, v := range []float64{0.5, 2, 0.1, 2.002, 1, 1.5} {
		pair.Data[7*i] = v
	}
	ws = append(ws, identity, pair)
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		build := func(in []*Node) []*Node {
			var out []*Node
			for _, w := range in {
				out = append(out, models.SpectralNorm(w))
			}
			return out
		}
		double, single := evalBoth(t, b, ws, build)
		for i, w := range ws {
			want := sigma(w)
			if d, s := double[i][0]/want, single[i][0]/want; d > 1+1e-12 || d < 1-1e-4 || s > 1+1e-5 || s < 1-1e-4 {
				t.Errorf("matrix %d %v: σ is %.9g, want %.9g; in float32 %.9g", i, w.Shape, double[i][0], want, single[i][0])
			}
		}
	})
}

// No pair of points may be further apart in energy than in space, times what the activations stretch: each layer is
// 1-Lipschitz. Weights of 100 times the usual size must make no difference at all.
func TestSpectralNormBoundsTheSlope(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for act, stretch := range map[string]float64{"relu": 1, "tanh": 1, "silu": 1.0999} {
			e := must(t)(models.New("mlp", 3, map[string]any{"hidden": []int{32, 32}, "activation": act, "spectral_norm": true}))
			x := somewhere(400, 3)
			weights := weightsOf(e, 9)
			build := func(in []*Node) []*Node {
				f, g := models.EnergyAndGrad(models.At(e, in[1:]), in[0])
				return []*Node{f, Sqrt(ReduceSum(Square(g), -1))}
			}
			args := append([]testutil.Tensor{x}, weights...)
			program, err := compile(b, f64, args, build)
			if err != nil {
				t.Fatal(err)
			}
			defer program.Close()
			out, err := run(program, f64, args)
			if err != nil {
				t.Fatal(err)
			}
			limit := stretch * stretch * 1.0003 // three layers whose σ is at most 1e-4 off
			steepest := slices.Max(out[1])
			if steepest > limit || steepest < 0.01 {
				t.Errorf("%s: the steepest slope is %g, want at most %g and some slope at all", act, steepest, limit)
			}
			for i := range 200 {
				p, q := x.Slice(2*i).Data, x.Slice(2*i+1).Data
				distance := math.Sqrt((p[0]-q[0])*(p[0]-q[0]) + (p[1]-q[1])*(p[1]-q[1]) + (p[2]-q[2])*(p[2]-q[2]))
				if math.Abs(out[0][2*i]-out[0][2*i+1]) > limit*distance {
					t.Errorf("%s: energies of pair %d differ by more than their distance", act, i)
				}
			}
			for i := range weights {
				if i%2 == 0 {
					weights[i].Data = slices.Clone(weights[i].Data)
					for j := range weights[i].Data {
						weights[i].Data[j] *= 100
					}
				}
			}
			big, err := run(program, f64, append([]testutil.Tensor{x}, weights...))
			if err != nil {
				t.Fatal(err)
			}
			testutil.Compare(t, act+" with large weights", big[0], tensor(out[0], 400), testutil.Tolerance{RTol: 1e-9, ATol: 1e-9})
		}
	})
}

// A layer of zeros must not make NaN.
func TestSpectralNormOfZero(t *testing.T) {
	e := must(t)(models.New("mlp", 2, map[string]any{"hidden": []int{4}, "spectral_norm": true}))
	in := []testutil.Tensor{somewhere(3, 2)}
	for _, p := range e.Params() {
		in = append(in, tensor(make([]float64, p.Size()), p.Shape...))
	}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		out := eval(t, b, f32, in, func(in []*Node) []*Node {
			f := e.Energy(in[0], in[1:])
			return append([]*Node{f}, Gradient(ReduceAllSum(f), in[1:]...)...)
		})
		for i, v := range out {
			if !finite(v) {
				t.Errorf("output %d is %v", i, v)
			}
		}
	})
}

func TestFitGaussian(t *testing.T) {
	rows := []float64{1, 10, 5, 3, 10, -5} // second coordinate constant
	q, err := models.FitGaussian(rows, 3, 2)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(q.Mean, []float64{2, 10, 0}) || !near(q.Std[0], 2, 1e-12) || !near(q.Std[2], 10, 1e-12) {
		t.Errorf("fitted %+v", q)
	}
	if !near(q.Std[1], 2*0.01*5, 1e-12) {
		t.Errorf("a constant coordinate got the deviation %g, want 1 %% of the largest, twice", q.Std[1])
	}
	flat, err := models.FitGaussian([]float64{0.1, 7, 0.1, 7, 0.1, 7}, 2, 1.5)
	if err != nil || !slices.Equal(flat.Std, []float64{1.5, 1.5}) {
		t.Errorf("constant data gave %+v, %v, want deviations of 1.5", flat, err)
	}
	for _, tc := range []struct {
		name  string
		rows  []float64
		dim   int
		scale float64
		want  string
	}{
		{"no rows", nil, 2, 1, "0 numbers, want at least one row of 2"},
		{"half a row", []float64{1, 2, 3}, 2, 1, "3 numbers"},
		{"no dimension", []float64{1}, 0, 1, "want at least one row"},
		{"no scale", []float64{1, 2}, 2, 0, "scale 0, want a positive number"},
		{"NaN", []float64{1, 2, 3, math.NaN()}, 2, 1, "row 1, coordinate 1 is NaN"},
	} {
		if _, err := models.FitGaussian(tc.rows, tc.dim, tc.scale); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want it to say %q", tc.name, err, tc.want)
		}
	}
	err = models.Gaussian{Mean: []float64{math.NaN()}, Std: []float64{1, 0}}.Validate()
	check(t, err, []string{"std: 2 numbers, want 1 as mean has", "mean: element 0 is NaN", "std: element 1 is 0, want a positive number"})
}

func TestGaussianBase(t *testing.T) {
	q := models.Gaussian{Mean: []float64{1, -2}, Std: []float64{0.5, 3}}
	if want := math.Log(2 * math.Pi * 0.5 * 3); !near(q.LogNormaliser(), want, 1e-12) || q.Dim() != 2 {
		t.Errorf("log normaliser %g, want %g", q.LogNormaliser(), want)
	}
	f := must(t)(models.New("mlp", 2, map[string]any{"hidden": []int{4}}))
	e := models.WithBase(f, q)
	x := somewhere(5, 2)
	in := append([]testutil.Tensor{x}, weightsOf(e, 1)...)
	if len(in) != 5 || e.Dim() != 2 {
		t.Fatalf("the base changed the parameters: %d tensors", len(in)-1)
	}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		double, single := evalBoth(t, b, in, bothOf(e, f, q))
		for _, dtype := range []struct {
			out [][]float64
			tol float64
		}{{double, 1e-12}, {single, 1e-5}} {
			for i := range 5 {
				p := x.Slice(i).Data
				a, c := (p[0]-1)/0.5, (p[1]+2)/3
				want := -0.5*(a*a+c*c) - math.Log(2*math.Pi*0.5*3)
				if got := dtype.out[2][i]; !near(got, want, dtype.tol) {
					t.Errorf("log q of %v is %.12g, want %.12g", p, got, want)
				}
				if got, want := dtype.out[0][i], dtype.out[1][i]-dtype.out[2][i]; !near(got, want, dtype.tol) {
					t.Errorf("E is %.12g, f − log q is %.12g", got, want)
				}
			}
		}
		for _, bad := range []models.Gaussian{{Mean: []float64{1}, Std: []float64{1}}, {Mean: []float64{1, 2}, Std: []float64{1}}} {
			if _, err := tryEval(b, f32, []testutil.Tensor{x}, func(in []*Node) []*Node { return []*Node{bad.LogDensity(in[0])} }); err == nil {
				t.Errorf("%+v takes states of two numbers", bad)
			}
		}
	})
}

func bothOf(e, f models.Energy, q models.Gaussian) func(in []*Node) []*Node {
	return func(in []*Node) []*Node {
		return []*Node{e.Energy(in[0], in[1:]), f.Energy(in[0], in[1:]), q.LogDensity(in[0])}
	}
}

// An energy prepared once must be the energy, and the graph must hold the work on the weights once.
func TestPrepareSharesTheWorkOnWeights(t *testing.T) {
	e := models.WithBase(must(t)(models.New("mlp", 2, map[string]any{"hidden": []int{4}, "spectral_norm": true})),
		models.Gaussian{Mean: []float64{0, 0}, Std: []float64{1, 1}})
	in := append([]testutil.Tensor{somewhere(3, 2)}, weightsOf(e, 1)...)
	nodes := func(build func(in []*Node) []*Node) (n int) {
		eval(t, testutil.Backend(t, "go"), f64, in, func(in []*Node) []*Node {
			out := build(in)
			n = len(in[0].Graph().Nodes())
			return out
		})
		return n
	}
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		out := eval(t, b, f64, in, func(in []*Node) []*Node {
			return []*Node{models.At(e, in[1:])(in[0]), e.Energy(in[0], in[1:])}
		})
		testutil.Compare(t, "prepared", out[0], tensor(out[1], 3), testutil.Tolerance{})
	})
	const calls = 10
	once := nodes(func(in []*Node) []*Node { return []*Node{e.Energy(in[0], in[1:])} })
	shared := nodes(func(in []*Node) []*Node {
		energy := models.At(e, in[1:])
		sum := energy(in[0])
		for range calls - 1 {
			sum = Add(sum, energy(in[0]))
		}
		return []*Node{sum}
	})
	if shared > 4*once {
		t.Errorf("%d calls make %d nodes, one makes %d: the weights are prepared again and again", calls, shared, once)
	}
}
