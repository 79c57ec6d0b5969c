package averaging_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
)

// TestNesterovByHand: lr ½, μ ½, all numbers exact in binary.
//
//	θ 1        group at ½        Δ ½     b ½      θ ← 1 − ½(½ + ¼)         = 0.625
//	θ 0.625    group at ½        Δ ⅛     b 0.375  θ ← 0.625 − ½(⅛ + 0.1875) = 0.46875
//	θ 0.46875  group stands      Δ 0     b 0.1875 θ ← 0.46875 − ½·0.09375   = 0.421875
func TestNesterovByHand(t *testing.T) {
	for _, format := range averaging.Formats {
		f := newFleet(t, averaging.Config{Groups: 1, Outer: "nesterov", LR: 0.5, Momentum: 0.5, Format: format}, []float32{1})
		for i, tc := range []struct{ group, theta, momentum float32 }{{0.5, 0.625, 0.5}, {0.5, 0.46875, 0.375}, {0.46875, 0.421875, 0.1875}} {
			next := f.round(t, [][]float32{{tc.group}})
			got := f.outer.Snapshot()
			// A single int8 element is its own scale: 127 steps of 1/127, exact to rounding.
			if !near(next[0][0], tc.theta) || !near(got.Momentum[0], tc.momentum) || got.Theta[0] != next[0][0] {
				t.Errorf("%s, round %d: θ %g of group, %g of leader, momentum %g; want %g and %g", format, i, next[0][0], got.Theta[0], got.Momentum[0], tc.theta, tc.momentum)
			}
		}
	}
}

func near(got, want float32) bool { return math.Abs(float64(got-want)) <= 4e-7*math.Abs(float64(want)) }

func TestMeanStepIsTheMeanOfTheParameters(t *testing.T) {
	f := newFleet(t, averaging.Config{Groups: 3}, []float32{7, 7})
	next := f.round(t, [][]float32{{1, -1}, {2, 0}, {6, 4}})
	for g, theta := range next {
		if !slices.Equal(theta, []float32{3, 1}) {
			t.Errorf("group %d goes on from %g, want the mean 3, 1", g, theta)
		}
	}
	same := []float32{0.1, 1e-30}
	if next := f.round(t, [][]float32{same, same, same}); !slices.Equal(next[0], same) {
		t.Errorf("groups that agree go on from %g, want %g", next[0], same)
	}
}

// TestSyncIsTheMeanOverChains: the gradients of 6 and 2 chains weigh 3 to 1; a group whose chains all warm up counts nothing.
func TestSyncIsTheMeanOverChains(t *testing.T) {
	for _, format := range averaging.Formats {
		f := newFleet(t, averaging.Config{Groups: 3, Outer: "sync", Format: format}, make([]float32, 1))
		r := f.outer.Open(1)
		for g, c := range []struct {
			gradient float32
			weight   int
		}{{1, 6}, {5, 2}, {100, 0}} {
			if err := r.Add(averaging.Contribution{Generation: 1, Group: g, Vector: f.groups[g].Contribution([]float32{c.gradient}), Weight: c.weight}); err != nil {
				t.Fatal(err)
			}
		}
		update, err := f.outer.Step(r)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := f.groups[1].Apply(update); err != nil || !near(got[0], 2) {
			t.Errorf("%s: gradient %g, %v, want 2", format, got, err)
		}
		if f.outer.Theta() != nil {
			t.Error("the leader holds parameters under sync, want none")
		}
	}
}

// quadratic makes steps of gradient descent of rate 0.1 on ½a(θ − m)²: what remains of θ − m is (1 − 0.1a)^steps.
func quadratic(theta float32, a, m float64, steps int) float32 {
	return float32(m + math.Pow(1-0.1*a, float64(steps))*(float64(theta)-m))
}

// TestDiLoCoOnAQuadratic has four groups, each with a minimum of its own, 5 inner steps a round. With equal curvature
// the error e = θ − mean(m) obeys the recursion b ← μb + (1−q)e, e ← e − lr((1−q)e + μb), q = 0.9⁵: every round of it is
// checked. Differences are rounded to float32 numbers of size 3.
func TestDiLoCoOnAQuadratic(t *testing.T) {
	minima := []float64{-3, 1, 2, 2.5} // mean 0.625
	f := newFleet(t, averaging.Config{Groups: 4, Outer: "nesterov"}, []float32{10})
	q := math.Pow(0.9, 5)
	e, b := 10-0.625, 0.0
	have := slices.Repeat([][]float32{{10}}, 4)
	for round := range 120 {
		for g, m := range minima {
			have[g] = []float32{quadratic(have[g][0], 1, m, 5)}
		}
		have = f.round(t, have)
		b = 0.9*b + (1-q)*e
		e -= 0.7 * ((1-q)*e + 0.9*b)
		if got := float64(have[0][0]) - 0.625; math.Abs(got-e) > 2e-5 {
			t.Fatalf("round %d: error %g, want %g", round, got, e)
		}
	}
	if math.Abs(e) > 1e-6 {
		t.Errorf("error %g after 120 rounds, want it gone", e)
	}
}

// TestOuterStepsFindTheOptimum gives the groups minima and curvatures of their own, in coordinates of several sizes. The
// fixed point is where the mean move is nil, Σ(1−q_g)(θ − m_g) = 0. θ is averaged over the last 300 rounds. Of that mean
//
//   - bf16 may shift 2⁻⁹ of the mean distance to the minima, at most 4;
//   - int8 may shift what the residuals hold at the two ends, 4/254, and where θ is at the two ends, 0.2, over 300 rounds of
//     the mean contraction 0.73: 0.002. Without error feedback the small coordinates would stop 0.02 away.
func TestOuterStepsFindTheOptimum(t *testing.T) {
	minima, curvature, sizes := []float64{-3, 1, 2, 2.5}, []float64{1, 2, 0.5, 3}, []float64{1, -0.3, 0.01, 0}
	var above, below float64
	for g, m := range minima {
		part := 1 - math.Pow(1-0.1*curvature[g], 10)
		above, below = above+part*m, below+part
	}
	for _, outer := range []string{"mean", "nesterov"} {
		for format, tolerance := range map[string]float64{"fp32": 1e-5, "bf16": 4 * 0x1p-9, "int8": 0.004} {
			start := []float32{10, -1, 0.5, 0.5}
			f := newFleet(t, averaging.Config{Groups: 4, Outer: outer, Format: format}, start)
			have := slices.Repeat([][]float32{start}, 4)
			sum := make([]float64, len(start))
			for round := range 400 {
				for g, m := range minima {
					have[g] = slices.Clone(have[g])
					for i, size := range sizes {
						have[g][i] = quadratic(have[g][i], curvature[g], m*size, 10)
					}
				}
				have = f.round(t, have)
				for g := range have {
					if !slices.Equal(have[g], f.outer.Theta()) {
						t.Fatalf("%s, %s: group %d is at %g, the leader at %g", outer, format, g, have[g], f.outer.Theta())
					}
				}
				for i, theta := range have[0] {
					if round >= 100 {
						sum[i] += float64(theta)
					}
				}
			}
			for i, size := range sizes {
				if got, want := sum[i]/300, above/below*size; math.Abs(got-want) > tolerance {
					t.Errorf("%s, %s: mean θ %g, want %g within %g", outer, format, got, want, tolerance)
				}
			}
		}
	}
}

// TestACutGoesOnBitForBit compares a fleet with one that is thrown away after round 4 and built anew from its cut, on
// parameters that a made-up training moves.
func TestACutGoesOnBitForBit(t *testing.T) {
	const n, rounds = 300, 8
	theta := normals(n, 99)
	for _, outer := range averaging.Outers {
		for _, format := range averaging.Formats {
			t.Run(outer+"/"+format, func(t *testing.T) {
				cfg := averaging.Config{Groups: 3, Outer: outer, Format: format}
				run := func(cutAt int) (history [][]float32, state averaging.State) {
					f := newFleet(t, cfg, theta)
					have := slices.Repeat([][]float32{theta}, 3)
					for round := range rounds {
						if round == cutAt {
							f = restored(t, f, cfg, theta)
						}
						for g := range have {
							noise := normals(n, uint64(3*round+g))
							have[g] = slices.Clone(have[g])
							for i := range noise {
								have[g][i] += noise[i] / 8
							}
						}
						have = f.round(t, have)
						history = append(history, have...)
					}
					return history, f.outer.Snapshot()
				}
				want, wantState := run(-1)
				got, state := run(4)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("parameters (-without +with a cut):\n%s", diff)
				}
				if diff := cmp.Diff(wantState, state); diff != "" {
					t.Errorf("state (-without +with a cut):\n%s", diff)
				}
				if state.Round != rounds || (state.Momentum != nil) != (outer == "nesterov") || (state.Residual != nil) != (format == "int8") || len(state.Norms) != rounds {
					t.Errorf("state of round %d, momentum %d, residual %d, norms %d", state.Round, len(state.Momentum), len(state.Residual), len(state.Norms))
				}
			})
		}
	}
}

// restored builds the fleet anew from its cut, and spoils what the old one held.
func restored(t *testing.T, f *fleet, cfg averaging.Config, theta []float32) *fleet {
	t.Helper()
	state := f.outer.Snapshot()
	next := newFleet(t, cfg, make([]float32, len(theta)))
	if err := next.outer.Restore(state); err != nil {
		t.Fatal(err)
	}
	for g, group := range f.groups {
		if err := next.groups[g].Restore(state.Theta, group.Residual()); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range [][]float32{state.Theta, state.Momentum, state.Residual} {
		clear(v)
	}
	clear(state.Norms)
	return next
}

func TestRestoreRefusesWhatDoesNotFit(t *testing.T) {
	nan := float32(math.NaN())
	f := newFleet(t, averaging.Config{Groups: 2, Outer: "nesterov", Format: "int8"}, []float32{1, 2})
	good := f.outer.Snapshot()
	for _, tc := range []struct {
		name   string
		change func(s *averaging.State)
		want   string
	}{
		{"parameters", func(s *averaging.State) { s.Theta = s.Theta[:1] }, "parameters of 1 elements, want 2"},
		{"momentum", func(s *averaging.State) { s.Momentum = nil }, "momentum of 0 elements, want 2"},
		{"residual", func(s *averaging.State) { s.Residual = []float32{1} }, "residual of 1 elements, want 2"},
		{"NaN", func(s *averaging.State) { s.Theta = []float32{1, nan} }, "parameters: element 1 is NaN"},
		{"NaN momentum", func(s *averaging.State) { s.Momentum = []float32{nan, 1} }, "momentum: element 0 is NaN"},
		{"zero norm", func(s *averaging.State) { s.Norms = []float64{1, 0} }, "norm 1 is 0"},
		{"too many norms", func(s *averaging.State) { s.Norms = make([]float64, 33) }, "norms of 33 rounds"},
	} {
		s := good
		tc.change(&s)
		if err := f.outer.Restore(s); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
	if diff := cmp.Diff(good, f.outer.Snapshot()); diff != "" {
		t.Errorf("state after refusals (-before +after):\n%s", diff)
	}
	if err := f.groups[0].Restore([]float32{1}, nil); err == nil {
		t.Error("group at 1 of 2 parameters: no error")
	}
	if err := f.groups[0].Restore([]float32{1, 2}, []float32{1}); err == nil {
		t.Error("group with a residual of 1: no error")
	}
	if _, err := f.groups[0].Apply(encoder(t, "bf16", 2).Encode([]float32{1, 2})); err == nil {
		t.Error("update in another format: no error")
	}
}

func TestAnOuterStepThatOverflowsIsReported(t *testing.T) {
	f := newFleet(t, averaging.Config{Groups: 1, Outer: "nesterov", LR: 1e38}, []float32{0, 0})
	r := f.outer.Open(1)
	if err := r.Add(averaging.Contribution{Generation: 1, Vector: f.groups[0].Contribution([]float32{0, -100})}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.outer.Step(r); err == nil || !strings.Contains(err.Error(), "element 1 is -Inf after the outer step") {
		t.Errorf("step: %v", err)
	}
}

func Example() {
	cfg := averaging.Config{Groups: 2, Outer: "nesterov", LR: 0.5, Momentum: 0.5}.WithDefaults()
	start := []float32{1, 1}
	outer, err := averaging.NewOuter(cfg, start)
	if err != nil {
		panic(err)
	}
	round := outer.Open(1)
	for g, trained := range [][]float32{{0, 1}, {1, 0.5}} {
		group, err := averaging.NewGroup(cfg, start)
		if err != nil {
			panic(err)
		}
		if err := round.Add(averaging.Contribution{Generation: 1, Group: g, Vector: group.Contribution(trained)}); err != nil {
			panic(err)
		}
	}
	if _, err := outer.Step(round); err != nil {
		panic(err)
	}
	fmt.Println(outer.Theta())
	// Output: [0.625 0.8125]
}
