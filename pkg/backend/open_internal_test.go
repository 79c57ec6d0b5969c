package backend

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/backends"
)

// elfHeader is the least that is a shared library for this machine: a header without contents.
func elfHeader(t *testing.T) []byte {
	t.Helper()
	h := make([]byte, 64)
	copy(h, "\x7fELF\x02\x01\x01")
	h[16], h[18], h[20] = 3, 62, 1 // shared library, x86-64, version 1
	h[52], h[54], h[58] = 64, 56, 64
	return h
}

func writeFile(t *testing.T, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// bench is a machine made up for a test. What it loads is the pure-Go backend.
type bench struct {
	gpu, noCgo, noInstall bool
	plugins               []string // files under the plugin folder
	loadErr               map[string]error
	fetch                 Fetch
	wheel                 *Wheel
}

func (m bench) open(t *testing.T, kind string) (*Backend, string, error) {
	t.Helper()
	t.Setenv("XLA_FLAGS", "")
	t.Setenv("NPROC", "")
	t.Setenv("NVIDIA_TF32_OVERRIDE", "")
	dir := t.TempDir()
	for _, p := range m.plugins {
		writeFile(t, dir, p, elfHeader(t))
	}
	loaded := ""
	o := &opener{
		opts: Options{NoInstall: m.noInstall, Dir: dir, Fetch: m.fetch},
		dirs: []string{dir, filepath.Join(dir, "nvidia")}, cgo: !m.noCgo, gpu: func() bool { return m.gpu }, wheel: m.wheel,
		load: func(path string) (backends.Backend, error) {
			loaded, _ = filepath.Rel(dir, path)
			if err := m.loadErr[loaded]; err != nil {
				return nil, err
			}
			return backends.NewWithConfig("go:ops_sequential")
		},
	}
	b, err := o.open(context.Background(), Config{Kind: kind, Threads: 3})
	return b, loaded, err
}

func TestOpenPicksTheFastestBackendThereIs(t *testing.T) {
	const cpu, cuda = "pjrt_c_api_cpu_plugin.so", "nvidia/pjrt_c_api_cuda_plugin.so"
	offline := func(context.Context, Wheel) (io.ReadCloser, int64, error) {
		return nil, 0, errors.New("dial tcp: no such host")
	}
	for _, tc := range []struct {
		name    string
		machine bench
		kind    string
		want    string // kind opened, or "" for an error
		loaded  string
		text    []string // parts of Why or of the error
	}{
		{"auto takes CUDA if plugin and GPU are there", bench{gpu: true, plugins: []string{cpu, cuda}}, Auto, CUDA, cuda, []string{"xla:cuda"}},
		{"auto without a GPU takes the CPU", bench{plugins: []string{cpu, cuda}}, Auto, CPU, cpu, []string{"xla:cpu", "no NVIDIA GPU"}},
		{"auto with a GPU and no plugin says what to install", bench{gpu: true, plugins: []string{cpu}}, Auto, CPU, cpu, []string{"`coordinator backend install cuda13`"}},
		{"auto passes over a CUDA plugin that fails", bench{gpu: true, plugins: []string{cpu, cuda}, loadErr: map[string]error{cuda: errors.New("no CUDA-capable device\nstack")}}, Auto, CPU, cpu, []string{"no CUDA-capable device"}},
		{"auto offline goes on in pure Go", bench{fetch: offline}, Auto, Go, "", []string{"go: 10 to 20 times slower than xla:cpu", "no such host", "pip download --no-deps xla-cpu-pjrt==0.0.1", "--from"}},
		{"auto with installing turned off goes on in pure Go", bench{noInstall: true}, Auto, Go, "", []string{"turned off", "`coordinator backend install cpu`"}},
		{"auto without cgo is pure Go", bench{noCgo: true, plugins: []string{cpu}}, Auto, Go, "", []string{"without cgo", "CGO_ENABLED=1"}},
		{"go needs nothing", bench{noCgo: true, noInstall: true}, Go, Go, "", []string{"go"}},
		{"explicit CPU offline is an error with the way out", bench{fetch: offline}, CPU, "", "", []string{"xla:cpu", "no such host", "pip download --no-deps xla-cpu-pjrt==0.0.1", "coordinator backend install cpu --from xla_cpu_pjrt"}},
		{"explicit CPU without installing is an error", bench{noInstall: true}, CPU, "", "", []string{"turned off", "coordinator backend install cpu"}},
		{"explicit CPU without cgo is an error", bench{noCgo: true}, CPU, "", "", []string{"without cgo"}},
		{"explicit CUDA without a GPU is an error", bench{plugins: []string{cuda}}, CUDA, "", "", []string{"no NVIDIA GPU", "nvidia-smi"}},
		{"explicit CUDA without a plugin is an error", bench{gpu: true}, CUDA, "", "", []string{"coordinator backend install cuda13"}},
		{"an explicit backend that fails to load is an error", bench{plugins: []string{cpu}, loadErr: map[string]error{cpu: errors.New("API too old\nstack")}}, CPU, "", cpu, []string{"API too old", "coordinator doctor"}},
		{"unknown kind", bench{}, "cuda", "", "", []string{`kind: "cuda"`, "auto, xla:cuda, xla:cpu, go", "nearest: xla:cuda"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, loaded, err := tc.machine.open(t, tc.kind)
			text := ""
			if err != nil {
				text = err.Error()
			} else {
				text = b.Why()
			}
			if (err == nil) != (tc.want != "") || err == nil && b.Kind() != tc.want {
				t.Fatalf("got %v, %v; want kind %q", b, err, tc.want)
			}
			if loaded != tc.loaded {
				t.Errorf("loaded %q, want %q", loaded, tc.loaded)
			}
			if strings.Contains(text, "\n") {
				t.Errorf("more than one line: %q", text)
			}
			for _, part := range tc.text {
				if !strings.Contains(text, part) {
					t.Errorf("%q lacks %q", text, part)
				}
			}
			if err == nil && (b.Threads() != 3 || b.Fingerprint().Threads != 3 || b.Fingerprint().Kind != tc.want) {
				t.Errorf("threads %d, fingerprint %s", b.Threads(), b.Fingerprint())
			}
			if loaded != "" && os.Getenv("NPROC") != "3" {
				t.Errorf("NPROC=%q when the plugin was loaded, want 3", os.Getenv("NPROC"))
			}
			if loaded == cuda && (!strings.Contains(os.Getenv("XLA_FLAGS"), "--xla_gpu_deterministic_ops=true")) {
				t.Errorf("XLA_FLAGS=%q, want deterministic operations", os.Getenv("XLA_FLAGS"))
			}
		})
	}
}

func TestOpenInstallsThePluginOnFirstUse(t *testing.T) {
	w, wheel := fakeWheel(t)
	fetched := 0
	machine := bench{wheel: &w, fetch: func(context.Context, Wheel) (io.ReadCloser, int64, error) {
		fetched++
		return io.NopCloser(bytes.NewReader(wheel)), int64(len(wheel)), nil
	}}
	for _, kind := range []string{Auto, CPU} {
		fetched = 0
		b, loaded, err := machine.open(t, kind)
		if err != nil {
			t.Fatal(err)
		}
		if b.Kind() != CPU || fetched != 1 || loaded != w.Library {
			t.Errorf("%s: %s after %d downloads from %q", kind, b.Kind(), fetched, loaded)
		}
	}
}

func TestDamagedPluginsAreRefusedBeforeTheyAreLoaded(t *testing.T) {
	truncated := elfHeader(t)
	truncated[32], truncated[56] = 64, 1 // one segment, whose header should follow at 64
	segment := make([]byte, 56)
	segment[0], segment[33] = 1, 1 // to be loaded, 256 bytes
	short := append(bytes.Clone(truncated), segment...)
	other := elfHeader(t)
	other[18] = 183 // arm64
	for _, tc := range []struct {
		name string
		data []byte
		want string
	}{
		{"no library", []byte("this is not a library, it is a page of text"), "not a whole shared library"},
		{"empty", nil, "not a whole shared library"},
		{"cut in its header", elfHeader(t)[:40], "not a whole shared library"},
		{"cut before its segments", truncated, "not a whole shared library"},
		{"cut in a segment", short, "truncated: 120 bytes, want at least 256"},
		{"another machine", other, "want a shared library for amd64"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			path := writeFile(t, dir, "pjrt_c_api_cpu_plugin.so", tc.data)
			load := func(string) (backends.Backend, error) { t.Fatal("loaded"); return nil, nil }
			o := &opener{dirs: []string{dir}, cgo: true, gpu: func() bool { return false }, load: load}
			_, err := o.open(context.Background(), Config{Kind: CPU, Threads: 2})
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "backend install cpu") {
				t.Errorf("got %v, want %q, the path and the command", err, tc.want)
			}
			o.plugin = path
			if _, err := o.open(context.Background(), Config{Kind: Auto, Threads: 2}); err == nil || !strings.Contains(err.Error(), EnvPlugin) {
				t.Errorf("explicit path with auto: got %v, want an error that names %s", err, EnvPlugin)
			}
		})
	}
}

func TestFlagsAreAddedOnlyWhereTheyAreSafe(t *testing.T) {
	dir := t.TempDir()
	cuda := Plugin{Kind: CUDA, Path: filepath.Join(dir, "jax_plugins", "xla_cuda13", "xla_cuda_plugin.so")}
	data := filepath.Join(dir, "nvidia", "cu13")
	if err := os.MkdirAll(data, 0o755); err != nil {
		t.Fatal(err)
	}
	pinned := Plugin{Kind: CPU, Size: Wheels()[0].LibrarySize}
	for _, tc := range []struct {
		name   string
		user   string
		plugin Plugin
		avx512 bool
		want   string
	}{
		{"pinned plugin, AVX-512", "", pinned, true, "--xla_cpu_prefer_vector_width=512"},
		{"pinned plugin, AVX2", "", pinned, false, ""},
		{"unknown plugin", "", Plugin{Kind: CPU, Size: 5}, true, ""},
		{"the user's flags stay as they are", "--xla_dump_to=x", pinned, true, "--xla_dump_to=x"},
		{"CUDA", "", cuda, true, "--xla_gpu_deterministic_ops=true --xla_gpu_cuda_data_dir=" + data},
		{"CUDA, the user's choice", "--xla_gpu_deterministic_ops=false --xla_gpu_cuda_data_dir=/c", cuda, false, "--xla_gpu_deterministic_ops=false --xla_gpu_cuda_data_dir=/c"},
	} {
		got := xlaFlags(tc.user, tc.plugin, tc.avx512)
		if got = strings.ReplaceAll(got, filepath.Join(dir, "jax_plugins", "xla_cuda13", "..", ".."), dir); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestPluginsAreFoundInTheSearchPath(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	first := writeFile(t, a, "pjrt_c_api_cpu_plugin.so", []byte("1"))
	second := writeFile(t, b, "pjrt_c_api_cpu_plugin.so", []byte("22"))
	cuda := writeFile(t, b, "pjrt_c_api_cuda_plugin.so", []byte("333"))
	writeFile(t, b, "pjrt_c_api_tpu_plugin.so", nil)
	writeFile(t, b, "pjrt_c_api_cpu_plugin.so.old", nil)
	t.Setenv(envSearch, a+":"+b)
	got := FindPlugins("/x/xla_cuda_plugin.so")
	want := []Plugin{{CUDA, "/x/xla_cuda_plugin.so", 0}, {CPU, first, 1}, {CPU, second, 2}, {CUDA, cuda, 3}}
	if len(got) != len(want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%d: got %v, want %v", i, got[i], want[i])
		}
	}
}

func TestConfigReportsAllFaults(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	for _, tc := range []struct {
		cfg  Config
		want string
	}{
		{Config{"xla", 2}, `kind: "xla", want one of auto, xla:cuda, xla:cpu, go`},
		{Config{"xla:cup", 0}, `kind: "xla:cup", want one of auto, xla:cuda, xla:cpu, go (nearest: xla:cpu)` + "\nthreads: 0, want 1 to 1024"},
		{Config{"GPU-cuda", 2}, `kind: "GPU-cuda", want one of auto, xla:cuda, xla:cpu, go (nearest: xla:cuda)`},
		{Config{"Go", 5000}, `kind: "Go", want one of auto, xla:cuda, xla:cpu, go (nearest: go)` + "\nthreads: 5000, want 1 to 1024"},
	} {
		if err := tc.cfg.Validate(); err == nil || err.Error() != tc.want {
			t.Errorf("%+v: got %v, want %s", tc.cfg, err, tc.want)
		}
	}
}
