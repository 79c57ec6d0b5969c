// Package backend picks and opens the numeric backend and compiles graphs for it: XLA on CUDA, XLA on the CPU, or pure Go.
// It installs XLA's plugins, pinned by hash, and makes gradients of matrix products matrix products again, which GoMLX
// turns into sums of broadcast products.
//
//	b, err := backend.Open(ctx, backend.Config{Kind: backend.Auto, Threads: 2}, backend.Options{Progress: os.Stderr})
//	if err != nil { ... }
//	defer b.Close()
//	log.Info(b.Why())
//	p, err := backend.Compile(b, "norm", []backend.Input{{Name: "x", Shape: shape}}, func(in []*graph.Node) []*graph.Node {
//		return []*graph.Node{graph.ReduceAllSum(graph.Square(in[0]))}
//	})
//	out, err := p.Run(x)            // stays on the device
//	v, err := backend.Read[float32](out[0])
//	backend.Release(out...)
package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/gomlx/gomlx/backends"
	_ "github.com/gomlx/gomlx/backends/simplego" // registers the pure-Go backend
)

// Options says how [Open] may get a plugin.
type Options struct {
	NoInstall bool      // never download a plugin; so does the environment variable KELVIN_NO_INSTALL
	Plugin    string    // path of the XLA plugin to use; empty: KELVIN_XLA_PLUGIN, or else a search
	Dir       string    // where a plugin is installed; empty: InstallDir
	Progress  io.Writer // where an install shows its bar; nil: nowhere
	Fetch     Fetch     // nil: the Python package index
}

// Backend is an open backend. It implements GoMLX's backends.Backend; tensors belong to it. It is safe for use by several
// goroutines, its programs are not.
type Backend struct {
	backends.Backend
	kind        string
	why         string
	threads     int
	fingerprint Fingerprint
	counts      counters
	plain       bool // tests compare with the backend as GoMLX has it
}

// Open opens the backend that cfg asks for. With kind auto it is the fastest to be had; otherwise it is the one asked for,
// or an error that names the command which mends it. If there is no plugin for the CPU and opts allow it, one is installed.
//
// XLA takes its flags and the size of its thread pool from the environment when it is loaded: Open sets NPROC, and XLA_FLAGS
// where it is not set.
func Open(ctx context.Context, cfg Config, opts Options) (*Backend, error) {
	return newOpener(opts).open(ctx, cfg)
}

// opener is what Open finds on the machine; tests bring their own.
type opener struct {
	opts   Options
	plugin string // explicit path
	dirs   []string
	cgo    bool
	gpu    func() bool
	load   func(path string) (backends.Backend, error)
	wheel  *Wheel // to install; nil: the pinned one
}

func newOpener(opts Options) *opener {
	o := &opener{opts: opts, plugin: opts.Plugin, dirs: searchDirs(), cgo: cgoEnabled, gpu: HasGPU, load: loadXLA}
	if o.plugin == "" {
		o.plugin = os.Getenv(EnvPlugin)
	}
	if opts.Dir != "" {
		o.dirs = append([]string{opts.Dir}, o.dirs...)
	}
	o.opts.NoInstall = opts.NoInstall || noInstall()
	return o
}

func (o *opener) open(ctx context.Context, cfg Config) (*Backend, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("backend: %w", err)
	}
	if o.plugin != "" && cfg.Kind != Go {
		// Naming a plugin is as explicit as naming a backend: auto does not get round it.
		if err := (Plugin{Path: o.plugin}).Check(); err != nil {
			return nil, fmt.Errorf("backend: %s: %w", EnvPlugin, err)
		}
	}
	switch cfg.Kind {
	case Go:
		return o.openGo(cfg, "as asked for")
	case CUDA, CPU:
		b, err := o.openXLA(ctx, cfg.Kind, cfg.Threads)
		if err != nil {
			return nil, fmt.Errorf("backend: %w", err)
		}
		b.why = cfg.Kind + ": as asked for"
		return b, nil
	}
	b, cudaErr := o.openXLA(ctx, CUDA, cfg.Threads)
	if cudaErr == nil {
		b.why = CUDA + ": the fastest"
		return b, nil
	}
	b, cpuErr := o.openXLA(ctx, CPU, cfg.Threads)
	if cpuErr == nil {
		b.why = fmt.Sprintf("%s: not %v", CPU, cudaErr)
		return b, nil
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("backend: %w", ctx.Err())
	}
	return o.openGo(cfg, fmt.Sprintf("10 to 20 times slower than %s; not %v", CPU, cpuErr))
}

func (o *opener) openGo(cfg Config, why string) (*Backend, error) {
	// In its default mode this backend deadlocks: a matrix product waits for workers that wait for matrix products.
	inner, err := backends.NewWithConfig("go:ops_sequential")
	if err != nil {
		return nil, fmt.Errorf("backend: %s: %w", Go, firstLine(err))
	}
	return newBackend(inner, Go, cfg.Threads, why, Plugin{}), nil
}

// openXLA finds, checks and loads the plugin of a kind. Its errors begin with the kind.
func (o *opener) openXLA(ctx context.Context, kind string, threads int) (*Backend, error) {
	if !o.cgo {
		return nil, fmt.Errorf("%s: this program was built without cgo; build it with a C compiler and CGO_ENABLED=1, or use backend kind %s", kind, Go)
	}
	if kind == CUDA && !o.gpu() {
		return nil, fmt.Errorf("%s: no NVIDIA GPU is visible; `nvidia-smi` should list one, or use backend kind %s", kind, CPU)
	}
	plugin, fresh, err := o.pluginFor(ctx, kind)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kind, err)
	}
	if err := plugin.Check(); err != nil {
		return nil, fmt.Errorf("%s: %w; remove it, then `coordinator backend install %s`", kind, err, flavorOf(kind))
	}
	inner, err := o.loadWithEnvironment(plugin, threads)
	if err != nil {
		return nil, fmt.Errorf("%s: plugin %s: %w; `coordinator doctor` says more", kind, plugin.Path, firstLine(err))
	}
	b := newBackend(inner, kind, threads, "", plugin)
	if fresh {
		if _, err := SelfTest(b); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: the plugin just installed fails its test: %w", kind, err), b.Close())
		}
	}
	return b, nil
}

func flavorOf(kind string) string {
	if kind == CUDA {
		return "cuda13"
	}
	return "cpu"
}

// pluginFor finds the plugin, or installs it if that is allowed. fresh says that it was installed just now.
func (o *opener) pluginFor(ctx context.Context, kind string) (p Plugin, fresh bool, err error) {
	for _, p := range findPlugins(o.plugin, o.dirs) {
		if p.Kind == kind {
			return p, false, nil
		}
	}
	mend := fmt.Sprintf("`coordinator backend install %s`", flavorOf(kind))
	if kind == CUDA {
		return p, false, fmt.Errorf("no plugin found; %s", mend)
	}
	if o.opts.NoInstall {
		return p, false, fmt.Errorf("no plugin found, and installing one is turned off; %s", mend)
	}
	if w := o.opts.Progress; w != nil {
		fmt.Fprintln(w, "no XLA plugin found: installing it once (turn off with --no-install)")
	}
	done, err := Install(ctx, InstallOptions{Flavor: flavorOf(kind), Dir: o.opts.Dir, Progress: o.opts.Progress, Fetch: o.opts.Fetch, wheel: o.wheel})
	if err != nil {
		if ctx.Err() != nil {
			return p, false, ctx.Err()
		}
		return p, false, fmt.Errorf("no plugin found, and %w", err)
	}
	return done.Plugin, true, nil
}

// loading guards the environment, which is the process's, while a plugin reads it.
var loading sync.Mutex

func (o *opener) loadWithEnvironment(p Plugin, threads int) (backends.Backend, error) {
	loading.Lock()
	defer loading.Unlock()
	set := map[string]string{"NPROC": strconv.Itoa(threads)}
	if flags := xlaFlags(os.Getenv("XLA_FLAGS"), p, hasAVX512()); flags != os.Getenv("XLA_FLAGS") {
		set["XLA_FLAGS"] = flags
	}
	if _, ok := os.LookupEnv("NVIDIA_TF32_OVERRIDE"); p.Kind == CUDA && !ok {
		// Matrix products of float32 keep its 24 bits; on some GPUs the default is TF32 with 11.
		set["NVIDIA_TF32_OVERRIDE"] = "0"
	}
	for k, v := range set {
		if err := os.Setenv(k, v); err != nil {
			return nil, err
		}
	}
	return o.load(p.Path)
}

// xlaFlags adds to the user's flags what the plugin needs. A flag that the plugin does not know would end the process, so
// the CPU's is added for the pinned plugin alone, and where the user has set flags of their own it is left out.
func xlaFlags(user string, p Plugin, avx512 bool) string {
	flags := strings.Fields(user)
	add := func(name, value string) {
		for _, f := range flags {
			if strings.HasPrefix(strings.TrimLeft(f, "-"), name) {
				return
			}
		}
		flags = append(flags, "--"+name+"="+value)
	}
	if p.Kind == CUDA {
		add("xla_gpu_deterministic_ops", "true")
		// go-xla would set a folder of its author's computer.
		if dir := cudaDataDir(p.Path); dir != "" {
			add("xla_gpu_cuda_data_dir", dir)
		}
		return strings.Join(flags, " ")
	}
	if _, pinned := p.Pinned(); pinned && avx512 && len(flags) == 0 {
		add("xla_cpu_prefer_vector_width", "512")
	}
	return strings.Join(flags, " ")
}

func newBackend(inner backends.Backend, kind string, threads int, why string, p Plugin) *Backend {
	b := &Backend{Backend: inner, kind: kind, threads: threads, why: kind + ": " + why}
	b.fingerprint = newFingerprint(b, p)
	return b
}

// Kind is xla:cuda, xla:cpu or go.
func (b *Backend) Kind() string { return b.kind }

// Why is one line: what was chosen, and why not the faster one.
func (b *Backend) Why() string { return b.why }

// Threads is the size of XLA's CPU thread pool.
func (b *Backend) Threads() int { return b.threads }

// Fingerprint is what results depend on, bit for bit.
func (b *Backend) Fingerprint() Fingerprint { return b.fingerprint }

// Contractions counts the sums of products that became matrix products in the graphs built so far, and the other sums.
func (b *Backend) Contractions() (contracted, summed int) {
	return int(b.counts.contracted.Load()), int(b.counts.summed.Load())
}

// Close frees the backend. Its tensors and programs must not be used any more.
func (b *Backend) Close() error {
	b.Finalize()
	return nil
}

// Builder implements [backends.Backend] with a builder that recognises contractions.
func (b *Backend) Builder(name string) backends.Builder {
	inner := b.Backend.Builder(name)
	if b.plain {
		return inner
	}
	switch b.kind {
	case Go:
		inner = newGoBuilder(inner)
	case CPU:
		inner = &narrowBuilder{inner}
	}
	return newContractBuilder(inner, &b.counts)
}

// firstLine drops the stack traces that GoMLX's errors carry.
func firstLine(err error) error { return panicError(err) }
