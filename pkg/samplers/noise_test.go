package samplers

import (
	"math"
	"testing"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
)

// The moments of millions of draws, each within five standard errors of that of the normal law; the standard errors
// follow from E z⁴ = 3, E z⁶ = 15 and E z⁸ = 105. The dimension is odd: coordinates 0 and 2 are the two numbers of one
// pair, and half of the other pair is thrown away.
func TestNormals(t *testing.T) {
	const dim = 3
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		rows := 1 << 20
		if b.Kind() == backend.Go {
			rows = 1 << 15
		}
		// The input is there to say on which graph the key belongs.
		out := testutil.Eval(t, b, dtypes.Float64, []testutil.Tensor{testutil.Filled(0)}, func(in []*Node) []*Node {
			key := Const(in[0].Graph(), []uint64{12, 34, 56})
			source := NewSource(key, dtypes.Float32, NormalCount(rows, dim)+rows)
			drawn := source.Normal(rows, dim)
			if got := drawn.Shape().Dimensions; got[0] != rows || got[1] != dim {
				t.Errorf("shape %v, want [%d %d]", got, rows, dim)
			}
			u := source.Uniform(rows)
			if source.at != NormalCount(rows, dim)+rows {
				t.Errorf("%d uniforms used, counted %d", source.at, NormalCount(rows, dim)+rows)
			}
			bad := ReduceAllSum(ConvertDType(LogicalNot(IsFinite(drawn)), dtypes.Float64))
			z := ConvertDType(drawn, dtypes.Float64)
			power := func(k int) *Node {
				p := z
				for range k - 1 {
					p = Mul(p, z)
				}
				return ReduceMean(p, 0)
			}
			column := func(k int) *Node { return Slice(z, AxisRange(), AxisElem(k)) }
			mixed := func(f func(*Node) *Node) *Node {
				var out []*Node
				for _, p := range [][2]int{{0, 1}, {0, 2}, {1, 2}} {
					out = append(out, Reshape(ReduceAllMean(Mul(f(column(p[0])), f(column(p[1])))), 1))
				}
				return Concatenate(out, 0)
			}
			plain := func(x *Node) *Node { return x }
			square := func(x *Node) *Node { return AddScalar(Square(x), -1) }
			wide := ConvertDType(u, dtypes.Float64)
			return []*Node{power(1), power(2), power(3), power(4), mixed(plain), mixed(square),
				ReduceAllMean(wide), ReduceAllMean(Square(AddScalar(wide, -0.5))),
				ReduceAllMin(wide), ReduceAllMax(wide), bad}
		})
		n := float64(rows)
		for i, m := range []struct {
			name     string
			want, sd float64 // of one draw
		}{
			{"mean", 0, 1}, {"second moment", 1, math.Sqrt2}, {"third moment", 0, math.Sqrt(15)}, {"fourth moment", 3, math.Sqrt(105 - 9)},
			{"product of two coordinates", 0, 1}, {"product of two squares less one", 0, 2},
			{"mean of the uniforms", 0.5, math.Sqrt(1. / 12)}, {"their variance", 1. / 12, math.Sqrt(1./80 - 1./144)},
		} {
			for k, got := range out[i] {
				if d := math.Abs(got - m.want); !(d < 5*m.sd/math.Sqrt(n)) {
					t.Errorf("%s, number %d: %.5f, want %.5f ± %.5f", m.name, k, got, m.want, 5*m.sd/math.Sqrt(n))
				}
			}
		}
		if low, high := out[8][0], out[9][0]; !(low > 0 && high <= 1) {
			t.Errorf("uniforms from %g to %g, want all above 0 and none above 1", low, high)
		}
		if out[10][0] != 0 {
			t.Errorf("%g normals are not finite", out[10][0])
		}
	})
}

// A generator may well give zero, or the smallest denormal, which XLA takes for zero.
func TestAUniformOfZeroGivesAFiniteNormal(t *testing.T) {
	testutil.Backends(t, func(t *testing.T, b *backend.Backend) {
		for _, dtype := range []dtypes.DType{dtypes.Float32, dtypes.Float64} {
			out := testutil.Eval(t, b, dtype, []testutil.Tensor{testutil.Array([]float64{0, 5e-324, 0, 0.5, 0, 1e-45}, 6)}, func(in []*Node) []*Node {
				s := sourceOf(in[0])
				return []*Node{s.Normal(1, 4), s.Uniform(2)}
			})
			// √(−2 ln 2⁻³³) = 6.76 is the largest normal there is.
			largest := math.Sqrt(2 * 33 * math.Ln2)
			testutil.Compare(t, dtype.String(), out[0], testutil.Array([]float64{largest, -largest, 0, 0}, 4), testutil.Tolerance{ATol: 1e-5})
			for _, u := range out[1] {
				if !(u >= 0x1p-34) {
					t.Errorf("%s: a uniform of %g, want more than 0", dtype, u)
				}
			}
		}
	})
}

// Every kernel takes from the source what StepCount says, so that one large draw serves a whole call.
func TestStepCount(t *testing.T) {
	b := testutil.Backend(t, backend.Go)
	for name, k := range map[string]Kernel{"langevin": Langevin{}, "heun": Langevin{Heun: true}, "mala": MALA{}, "hmc": HMC{}, "rmhmc": RMHMC{}} {
		for _, dim := range []int{1, 2, 5} {
			testutil.Eval(t, b, dtypes.Float32, []testutil.Tensor{testutil.Filled(0.5, 3*StepCount(k, 7, dim))}, func(in []*Node) []*Node {
				s := sourceOf(in[0])
				var out []*Node
				for range 3 {
					n := s.Step(k, 7, dim)
					out = append(out, n.Z)
					if (n.U != nil) != k.NeedsUniform() {
						t.Errorf("%s: uniforms %v, but NeedsUniform is %v", name, n.U, k.NeedsUniform())
					}
				}
				if want := 3 * StepCount(k, 7, dim); s.at != want {
					t.Errorf("%s, dimension %d: %d uniforms used in 3 steps, counted %d", name, dim, s.at, want)
				}
				return out
			})
		}
	}
}
