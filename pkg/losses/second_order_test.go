package losses_test

import (
	"flag"
	"math"
	"os"
	"slices"
	"testing"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/ml/context"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/rng"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/schedules"
)

// TestMain lets XLA compile without LLVM's optimiser, for compiling is what these tests spend their time on; not under
// -bench, nor where the caller has flags of their own.
func TestMain(m *testing.M) {
	flag.Parse()
	if _, ok := os.LookupEnv("XLA_FLAGS"); !ok && flag.Lookup("test.bench").Value.String() == "" {
		if err := os.Setenv("XLA_FLAGS", "--xla_backend_optimization_level=0"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// subject is a model whose parameters a loss trains.
type subject struct {
	name      string
	network   models.Network
	base      *models.Gaussian // E = f − log base; nil for E = f
	penalties bool             // beside every loss, both of them
	xla       []string         // the losses that XLA compiles too, which takes it seconds where Go takes milliseconds; nil for all
}

// everySubject is each kind of network, as an energy and, where it is one, as a field. Add a row for a kind of your own.
func everySubject(t *testing.T) []subject {
	t.Helper()
	network := func(dim, classes int, c models.Config) models.Network {
		n, err := c.BuildNetwork(dim, classes)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	mlp := models.Config{Kind: "mlp", Hidden: []int{4, 3}}
	spectral := mlp
	spectral.SpectralNorm = ptr(true)
	transformer := func(energy string) models.Config {
		return models.Config{Kind: "transformer", PatchSize: ptr(2), EmbedDim: ptr(8), Depth: ptr(1), NumHeads: ptr(2), MLPRatio: ptr(1.0),
			CondDim: ptr(4), TimeFrequencies: ptr(4), Energy: energy}
	}
	timeMLP := func(energy string) models.Config {
		return models.Config{Kind: "time_mlp", HiddenDim: ptr(4), Depth: ptr(2), MLPRatio: ptr(1.0), CondDim: ptr(3), TimeFrequencies: ptr(4), Energy: energy}
	}
	concat := models.Config{Kind: "time_mlp", Conditioning: "concat", HiddenDim: ptr(4), Depth: ptr(2), CondDim: ptr(3), TimeFrequencies: ptr(4), Energy: "l2"}
	gomlx, err := models.FromGoMLX(2, func(ctx *context.Context, x *Node) *Node {
		layer := func(name string, x *Node, out int) *Node {
			w := ctx.In(name).VariableWithShape("weights", shapes.Make(x.DType(), x.Shape().Dimensions[1], out))
			return Dot(x, w.ValueGraph(x.Graph()))
		}
		return layer("out", Tanh(layer("hidden", x, 4)), 1)
	})
	if err != nil {
		t.Fatal(err)
	}
	exact, sliced, denoising := "score_matching", "sliced_score_matching", "denoising_score_matching"
	return []subject{
		{"mlp", network(2, 0, mlp), nil, false, nil},
		{"mlp with a base, penalties", network(2, 0, mlp), &models.Gaussian{Mean: []float64{0.5, -1}, Std: []float64{2, 0.7}}, true, []string{sliced}},
		{"mlp with spectral_norm", network(3, 0, spectral), nil, false, []string{sliced}},
		{"conv", network(16, 0, models.Config{Kind: "conv", Image: []int{1, 4, 4}, Channels: []int{2, 3}}), nil, false, []string{sliced}},
		{"transformer, dot", network(16, 0, transformer("dot")), nil, false, []string{exact, sliced, denoising}},
		{"transformer, l2", network(16, 0, transformer("l2")), nil, false, []string{denoising}},
		{"time_mlp, dot", network(2, 0, timeMLP("dot")), nil, false, []string{denoising}},
		{"time_mlp, concat, l2", network(2, 0, concat), nil, false, []string{exact}},
		{"field_mlp, dot", network(2, 0, models.Config{Kind: "field_mlp", Hidden: []int{4, 3}, Energy: "dot"}), nil, false, []string{exact}},
		{"gomlx", gomlx, nil, false, []string{exact}},

		{"transformer, a field with labels", network(16, 2, transformer("none")), nil, false, []string{"equilibrium_matching, dot"}},
		{"time_mlp, a field with labels", network(2, 2, timeMLP("none")), nil, false, []string{"equilibrium_matching, l2"}},
		{"field_mlp, a field, penalties", network(2, 0, models.Config{Kind: "field_mlp", Hidden: []int{4, 3}}), nil, true,
			[]string{exact, "equilibrium_matching, dot", "equilibrium_matching, l2"}},
	}
}

// objective is a section with its name.
type objective struct {
	name   string
	config losses.Config
}

// gradientLosses are the losses that compare the gradient of an energy, or its curvature: their gradient in the weights is
// a second or a third derivative of the model.
func gradientLosses() []objective {
	return []objective{
		{"score_matching", losses.Config{Kind: "score_matching"}},
		{"score_matching, hutchinson", losses.Config{Kind: "score_matching", HessianMethod: "hutchinson", NProbes: ptr(2), ProbeType: "gaussian"}},
		{"sliced_score_matching", losses.Config{Kind: "sliced_score_matching", NProjections: ptr(2)}},
		{"sliced_score_matching, variance reduced", losses.Config{Kind: "sliced_score_matching", NProjections: ptr(1), ProjectionType: "sphere", VarianceReduced: ptr(true)}},
		{"denoising_score_matching", losses.Config{Kind: "denoising_score_matching", Sigma: schedules.Constant(0.5)}},
		{"denoising_score_matching, many levels", losses.Config{Kind: "denoising_score_matching", SigmaMin: ptr(0.3), SigmaMax: ptr(1.0), Levels: ptr(3)}},
		{"energy_matching", losses.Config{Kind: "energy_matching", LambdaCD: schedules.Constant(0)}},
		{"energy_matching, contrastive", losses.Config{Kind: "energy_matching", CDClamp: ptr(-1.0)}},
		{"equilibrium_matching", losses.Config{Kind: "equilibrium_matching"}},
		{"equilibrium_matching, dot", losses.Config{Kind: "equilibrium_matching", EnergyType: "dot"}},
		{"equilibrium_matching, l2", losses.Config{Kind: "equilibrium_matching", EnergyType: "l2", TimeInvariant: ptr(false)}},
	}
}

// trial is a loss under a model with the inputs of its graph: the weights, a direction in their space of length 1, and what
// a step needs.
type trial struct {
	subject
	loss  losses.Loss
	needs losses.Needs
	in    []testutil.Tensor
}

const trialRows = 3

// newTrial draws the inputs. The weights are random, all of them: many networks start with zeros that hide derivatives.
func newTrial(s subject, loss losses.Loss) trial {
	tr := trial{s, loss, loss.Needs(trialRows, s.network.Dim()), nil}
	draws := uint64(0)
	normals := func(scale float64, dims ...int) testutil.Tensor {
		a := testutil.Filled(0, dims...)
		stream := rng.New(7, rng.LossDraws, draws, 0)
		draws++
		for i := range a.Data {
			a.Data[i] = scale * stream.Normal()
		}
		return a
	}
	for _, p := range s.network.Params() {
		tr.in = append(tr.in, normals(0.5, p.Shape...))
	}
	length := math.Sqrt(float64(models.NumParams(s.network)))
	for _, p := range s.network.Params() {
		tr.in = append(tr.in, normals(1/length, p.Shape...))
	}
	tr.in = append(tr.in, normals(1, trialRows, s.network.Dim()))
	for _, d := range tr.needs.Draws {
		a := normals(1, d.Dims...)
		for i, z := range a.Data {
			if d.Uniform {
				a.Data[i] = 0.5 + 0.5*math.Erf(z/math.Sqrt2)
			}
		}
		tr.in = append(tr.in, a)
	}
	for _, c := range tr.needs.Scalars {
		tr.in = append(tr.in, testutil.Filled(c.At.At(0)))
	}
	if tr.needs.Source {
		tr.in = append(tr.in, normals(1, trialRows, s.network.Dim()))
	}
	if c := tr.needs.Chains; c != nil {
		tr.in = append(tr.in, normals(1, c.Rows, s.network.Dim()))
	}
	return tr
}

// build builds the loss, its slope along the direction, and the square of its gradient's norm.
func (tr trial) build(in []*Node) []*Node {
	take := func(n int) (head []*Node) {
		head, in = in[:n], in[n:]
		return head
	}
	params := len(tr.network.Params())
	weights, direction := take(params), take(params)
	m := modelOf(tr.network, weights)
	if tr.base != nil {
		m.Network = m.Energy
		m.Energy = models.At(models.WithBase(tr.network.(models.Energy), *tr.base), weights)
	}
	batch := losses.Batch{X: take(1)[0]}
	batch.Draws, batch.Scalars = take(len(tr.needs.Draws)), take(len(tr.needs.Scalars))
	if tr.needs.Source {
		batch.Source = take(1)[0]
	}
	if tr.needs.Chains != nil {
		batch.Negatives = take(1)[0]
	}
	if f, ok := tr.network.(models.Field); ok && f.Classes() > 0 {
		batch.Labels = Const(batch.X.Graph(), []int32{0, int32(f.Classes()), 1}) // one of them the null label
	}
	loss := tr.loss.Build(m, batch).Loss
	slope, squares := ScalarZero(loss.Graph(), loss.DType()), ScalarZero(loss.Graph(), loss.DType())
	for i, g := range Gradient(loss, weights...) {
		slope = Add(slope, ReduceAllSum(Mul(g, direction[i])))
		squares = Add(squares, ReduceAllSum(Square(g)))
	}
	return []*Node{loss, slope, squares}
}

// along are the inputs with the weights moved by h along the direction.
func (tr trial) along(h float64) []testutil.Tensor {
	params := len(tr.network.Params())
	in := append([]testutil.Tensor{}, tr.in...)
	for i := range params {
		moved := testutil.Filled(0, in[i].Shape...)
		for k := range moved.Data {
			moved.Data[k] = in[i].Data[k] + h*in[params+i].Data[k]
		}
		in[i] = moved
	}
	return in
}

// The gradient of every such loss under every network that it can train, against central differences of the loss along a
// random direction of length 1. They are off by h²/6 times a third derivative, which is of the slope's order or some tens of
// it, and by the roundings of the loss, at most 1e-14 of it, over h.
func TestSecondOrderOfEveryModelUnderEveryLoss(t *testing.T) {
	const h = 1e-5
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for _, s := range everySubject(t) {
			_, isField := s.network.(models.Field)
			for _, o := range gradientLosses() {
				if s.penalties {
					o.config.EnergyPenalty, o.config.GradientPenalty = 0.1, 0.2
				}
				loss, err := o.config.Build()
				if err != nil {
					t.Fatalf("%s: %v", o.name, err)
				}
				tr := newTrial(s, loss)
				if isField && tr.needs.Energy || !isField && (tr.needs.Field || tr.needs.Hidden) {
					continue
				}
				if b.Kind() != backend.Go && s.xla != nil && !slices.Contains(s.xla, o.name) {
					continue
				}
				t.Run(s.name+"/"+o.name, func(t *testing.T) {
					g := testutil.Compile(t, b, dtypes.Float64, testutil.ShapesOf(tr.in), tr.build)
					at := g.Run(t, tr.in...)
					loss, squares := at[0][0], at[2][0]
					if math.IsNaN(loss+squares) || math.IsInf(loss+squares, 0) || squares == 0 {
						t.Fatalf("loss %g, squared norm of the gradient %g: want finite numbers, and a gradient", loss, squares)
					}
					up, down := g.Run(t, tr.along(h)...)[0][0], g.Run(t, tr.along(-h)...)[0][0]
					testutil.Compare(t, "slope", at[1], testutil.Array([]float64{(up - down) / (2 * h)}), testutil.Tolerance{RTol: 1e-7, ATol: 1e-9 * (1 + math.Abs(loss))})
				})
			}
		}
	})
}
