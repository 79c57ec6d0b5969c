package local

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/experiment"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
)

// XLA reads its flags once a process: this test binary, started again with this variable, compiles the example.
const envCompile = "KELVIN_TEST_COMPILE"

func TestMain(m *testing.M) {
	if path := os.Getenv(envCompile); path != "" {
		if err := oneStep(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func oneStep(path string) error {
	cfg, err := experiment.Load(path, []string{"backend=xla:cpu"})
	if err != nil {
		return err
	}
	p, err := Build(cfg, nil, nil)
	if err != nil {
		return err
	}
	b, t, err := p.Open(context.Background(), backend.Options{NoInstall: true})
	if err != nil {
		return err
	}
	defer b.Close()
	defer t.Close()
	if err := t.Start(); err != nil {
		return err
	}
	_, err = t.TrainStep()
	return err
}

// The first example's compiled step has no sum of broadcast products of weight size, rows × in × out: nothing in its
// optimized HLO is larger than twice the activations of all rows. (pkg/backend shows that GoMLX as it comes has some.)
func TestCompiledStepOfTheExampleHasNoProductOfWeightSize(t *testing.T) {
	const rows, width = 6 * 128, 64
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envCompile+"="+filepath.Join(testutil.Root(), "examples", "two-moons.yaml"), "XLA_FLAGS=--xla_dump_to="+dir+" --xla_dump_hlo_as_text")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*train*after_optimizations.txt"))
	if err != nil || len(files) != 1 {
		t.Fatalf("dumps of the training step: %v, %v, want one", files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	dots := strings.Count(string(text), " dot(")
	if dots < 10 {
		t.Errorf("%d matrix products in the step, want those of five chain steps", dots)
	}
	if n, line := testutil.LargestArray(t, string(text)); n > 2*rows*width {
		t.Errorf("an array of %d elements, want at most %d: %.200s", n, 2*rows*width, line)
	}
}
