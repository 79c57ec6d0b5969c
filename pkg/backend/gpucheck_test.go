package backend_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
)

// program writes an executable shell script.
func program(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func gpuCheck(t *testing.T, arg string, env ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("bash", filepath.Join(testutil.Root(), "scripts", "gpu-check.sh"), arg)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// There is no GPU to test on: a folder that looks like JAX's, and programs that say how they were called.
func TestGPUCheckFindsThePluginAndRunsWhatWasBuilt(t *testing.T) {
	site, built := t.TempDir(), t.TempDir()
	plugin := filepath.Join(site, "jax_plugins", "xla_cuda12", "xla_cuda_plugin.so")
	program(t, plugin, "")
	program(t, filepath.Join(site, "nvidia", "cublas", "lib", "libcublas.so.12"), "")
	program(t, filepath.Join(built, "backend.test"), `echo "test $KELVIN_TEST_BACKENDS $KELVIN_XLA_PLUGIN $LD_LIBRARY_PATH $REFERENCE_DIR $KELVIN_NO_INSTALL"`)
	coordinator := filepath.Join(built, "coordinator")
	program(t, coordinator, `echo "coordinator $*"`)

	if _, err := exec.LookPath("python3"); err == nil { // else KELVIN_XLA_PLUGIN is the way, below
		if got, err := gpuCheck(t, "plugin", "PYTHONPATH="+site); err != nil || got != plugin {
			t.Errorf("got %q, %v; want %s", got, err, plugin)
		}
		newer := filepath.Join(site, "jax_plugins", "xla_cuda13", "xla_cuda_plugin.so")
		program(t, newer, "")
		if got, err := gpuCheck(t, "plugin", "PYTHONPATH="+site); err != nil || got != newer {
			t.Errorf("got %q, %v; want %s", got, err, newer)
		}
	}
	if got, err := gpuCheck(t, "plugin", "PYTHON=no-such-python"); err == nil || !strings.Contains(got, "KELVIN_XLA_PLUGIN") {
		t.Errorf("without Python: got %q, %v", got, err)
	}

	run := []string{"KELVIN_XLA_PLUGIN=" + plugin, "GPU_DIR=" + built}
	got, err := gpuCheck(t, "run", run...)
	if err != nil {
		t.Fatalf("%v\n%s", err, got)
	}
	for _, want := range []string{
		"test xla:cuda " + plugin + " " + filepath.Join(site, "nvidia", "cublas", "lib") + " " + filepath.Join(built, "testdata", "reference") + " 1",
		"coordinator doctor", "coordinator bench step --backend xla:cuda --batch 4096 --hidden 256 --steps 10 -o json", "gpu-check: passed",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("lacks %q:\n%s", want, got)
		}
	}
	program(t, filepath.Join(built, "backend.test"), "exit 1")
	if got, err := gpuCheck(t, "run", run...); err == nil || !strings.Contains(got, "gpu-check: failed") {
		t.Errorf("a failing test passed: %v\n%s", err, got)
	}
	if err := os.Remove(coordinator); err != nil {
		t.Fatal(err)
	}
	if got, err := gpuCheck(t, "run", run...); err == nil || !strings.Contains(got, "make gpu-check-build") {
		t.Errorf("nothing built: %v\n%s", err, got)
	}
}
