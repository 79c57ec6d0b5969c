package backend_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
)

// XLA reads its flags once a process, so the programs whose HLO is looked at are compiled in a process of their own: this
// test binary again, with this variable saying how.
const envDump = "KELVIN_TEST_DUMP"

func TestMain(m *testing.M) {
	if how := os.Getenv(envDump); how != "" {
		if err := compileSteps(how); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// xlaKind is the XLA backend under test: the GPU's where the tests run for that.
func xlaKind() string {
	if strings.Contains(os.Getenv("KELVIN_TEST_BACKENDS"), backend.CUDA) {
		return backend.CUDA
	}
	return backend.CPU
}

// Sizes that no other product of dimensions reaches.
const dumpBatch, dumpHidden = 48, 40

// energyMLP is 2-H-H-1 with SiLU.
func energyMLP(in []*Node, x *Node) *Node {
	for i := 0; i < len(in); i += 2 {
		if i > 0 {
			x = Mul(x, Sigmoid(x))
		}
		x = Add(Dot(x, in[i]), InsertAxes(in[i+1], 0))
	}
	return x
}

// compileSteps compiles a training step (two Langevin steps, contrastive loss, gradient, update) and, for the higher
// orders, explicit score matching's loss and gradient.
func compileSteps(how string) error {
	b, err := backend.Open(context.Background(), backend.Config{Kind: xlaKind(), Threads: 2}, backend.Options{NoInstall: true})
	if err != nil {
		return err
	}
	if how == "plain" {
		b = backend.Plain(b)
	}
	const h = dumpHidden
	m := model{dims: [][]int{{2, h}, {h}, {h, h}, {h}, {h, 1}, {1}, {dumpBatch, 2}, {dumpBatch, 2}, {dumpBatch, 2}}}
	_, err = backend.Compile(b, "train-step", m.inputs(dtypes.Float32), func(in []*Node) []*Node {
		weights, positives, x, noise := in[:6], in[6], in[7], in[8]
		for range 2 {
			x = Identity(StopGradient(x))
			x = Add(Sub(x, MulScalar(Gradient(ReduceAllSum(energyMLP(weights, x)), x)[0], 0.01)), MulScalar(noise, 0.1))
		}
		x = StopGradient(x)
		plus, minus := energyMLP(weights, positives), energyMLP(weights, x)
		loss := Add(Sub(ReduceAllMean(plus), ReduceAllMean(minus)), MulScalar(Add(ReduceAllMean(Square(plus)), ReduceAllMean(Square(minus))), 1e-3))
		out := []*Node{x, loss}
		for i, g := range Gradient(loss, weights...) {
			out = append(out, Sub(weights[i], MulScalar(g, 1e-3)))
		}
		return out
	})
	if err != nil {
		return err
	}
	_, err = backend.Compile(b, "score-matching-step", m.inputs(dtypes.Float32), func(in []*Node) []*Node {
		weights, x, v := in[:6], in[6], in[7]
		score := Gradient(ReduceAllSum(energyMLP(weights, x)), x)[0]
		hv := Gradient(ReduceAllSum(Mul(score, v)), x)[0]
		loss := Sub(MulScalar(ReduceAllMean(ReduceSum(Square(score), -1)), 0.5), ReduceAllMean(ReduceSum(Mul(hv, v), -1)))
		return append(Gradient(loss, weights...), loss)
	})
	return err
}

// largestArray is the largest array that any instruction of the optimized HLO in dir has.
func largestArray(t *testing.T, dir string) (largest int, instruction string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*after_optimizations.txt"))
	if err != nil || len(files) < 2 {
		t.Fatalf("%d HLO dumps (%v), want 2 or more", len(files), err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if n, line := testutil.LargestArray(t, string(text)); n > largest {
			largest, instruction = n, line
		}
	}
	return largest, instruction
}

// A sum of broadcast products has an array of batch × in × out elements, if only inside a fusion. The compiled steps have
// none: nothing is larger than the activations or the weights. GoMLX as it comes shows that the test would see one.
func TestCompiledStepsHaveNoBroadcastProductOfWeightSize(t *testing.T) {
	const product = dumpBatch * dumpHidden * dumpHidden
	for _, how := range []string{"plain", "contracted"} {
		dir := t.TempDir()
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), envDump+"="+how, "XLA_FLAGS=--xla_dump_to="+dir+" --xla_dump_hlo_as_text")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", how, err, out)
		}
		largest, instruction := largestArray(t, dir)
		if how == "plain" && largest < product {
			t.Errorf("plain: the largest array has %d elements; the test looks for at least %d and would see nothing", largest, product)
		}
		if limit := 2 * dumpBatch * dumpHidden; how == "contracted" && largest > limit {
			t.Errorf("contracted: an array of %d elements, want at most %d: %.200s", largest, limit, instruction)
		}
	}
}
