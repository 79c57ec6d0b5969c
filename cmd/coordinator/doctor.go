package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
)

// diagnosis is what `doctor` finds. Its JSON keys are stable.
type diagnosis struct {
	Go          string            `json:"go"`
	OS          string            `json:"os"`
	Arch        string            `json:"arch"`
	CPU         string            `json:"cpu"`
	CPUFeatures []string          `json:"cpu_features"`
	Cores       int               `json:"cores"`
	MemoryBytes int64             `json:"memory_bytes"` // 0: unknown
	Cgo         bool              `json:"cgo"`
	GPU         bool              `json:"gpu"`
	Environment map[string]string `json:"environment"` // variables that are set and matter
	Plugins     []pluginInfo      `json:"plugins"`
	Auto        probe             `json:"auto"`
	Backends    []probe           `json:"backends"`
	Problems    []problem         `json:"problems"`
}

// probe is one backend, opened and tested.
type probe struct {
	Kind        string  `json:"kind"` // of auto: the one it opens
	OK          bool    `json:"ok"`
	Why         string  `json:"why"` // why it was chosen, or why it cannot be had
	CompileMS   float64 `json:"compile_ms"`
	StepUS      float64 `json:"step_us"`        // median call of a small layer's gradient
	Error       float64 `json:"gradient_error"` // relative to the largest element
	Fingerprint string  `json:"fingerprint"`
}

// problem is something that is missing or wrong, with what mends it.
type problem struct {
	What string `json:"what"`
	Fix  string `json:"fix"`
}

func newDoctorCommand() *cobra.Command {
	var output, kind string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this machine can run on, what is missing and how to get it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			if kind != "" {
				return writeJSON(cmd.OutOrStdout(), probeHere(cmd.Context(), kind))
			}
			d := examine(cmd.Context(), probeApart)
			if err := cmd.Context().Err(); err != nil {
				return err
			}
			if output == "json" {
				return writeJSON(cmd.OutOrStdout(), d)
			}
			d.render(cmd.OutOrStdout())
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	cmd.Flags().StringVar(&kind, "probe", "", "test one backend in this process")
	if err := cmd.Flags().MarkHidden("probe"); err != nil {
		panic(err) // the flag is two lines above
	}
	return cmd
}

// explicitPlugin is the plugin that the environment names.
func explicitPlugin() string { return os.Getenv(backend.EnvPlugin) }

// probeHere opens a backend and, unless it is auto, tests it.
func probeHere(ctx context.Context, kind string) probe {
	b, err := backend.Open(ctx, backend.Config{Kind: kind, Threads: backend.DefaultConfig().Threads}, backend.Options{NoInstall: true})
	if err != nil {
		return probe{Kind: kind, Why: strings.TrimPrefix(err.Error(), "backend: "+kind+": ")}
	}
	p := probe{Kind: b.Kind(), OK: true, Why: strings.TrimPrefix(b.Why(), b.Kind()+": "), Fingerprint: b.Fingerprint().String()}
	if kind != backend.Auto {
		r, err := backend.SelfTest(b)
		p.CompileMS, p.StepUS, p.Error = float64(r.Compile.Microseconds())/1e3, float64(r.Step.Nanoseconds())/1e3, r.Error
		if err != nil {
			p.OK, p.Why = false, err.Error()
		}
	}
	if err := b.Close(); err != nil {
		p.OK, p.Why = false, err.Error()
	}
	return p
}

// probeTimeout is for a cold plugin on a busy machine.
const probeTimeout = time.Minute

// probeApart probes in a process of its own: a plugin that does not like a flag or a driver ends its process.
func probeApart(ctx context.Context, kind string) probe {
	self, err := os.Executable()
	if err != nil {
		return probe{Kind: kind, Why: err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, self, "doctor", "--probe", kind)
	cmd.Args[0] = os.Args[0]
	cmd.Stdout, cmd.Stderr = &out, &errs
	var p probe
	if err := cmd.Run(); err != nil {
		return probe{Kind: kind, Why: fmt.Sprintf("the test ended with %v: %s", err, lastLine(errs.String()))}
	}
	if err := json.Unmarshal(out.Bytes(), &p); err != nil {
		return probe{Kind: kind, Why: fmt.Sprintf("the test's answer is not to be read: %v", err)}
	}
	return p
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}

// examine collects the diagnosis.
func examine(ctx context.Context, test func(context.Context, string) probe) diagnosis {
	d := diagnosis{
		Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH, CPU: cpuModel(), CPUFeatures: backend.CPUFeatures(),
		Cores: runtime.NumCPU(), MemoryBytes: memory(), Cgo: backend.HasCgo(), GPU: backend.HasGPU(),
		Environment: map[string]string{}, Plugins: describePlugins(explicitPlugin()), Problems: []problem{},
	}
	for _, name := range []string{backend.EnvPlugin, backend.EnvNoInstall, "PJRT_PLUGIN_LIBRARY_PATH", "XLA_FLAGS", "NPROC", "CUDA_VISIBLE_DEVICES", "NVIDIA_TF32_OVERRIDE", "LD_LIBRARY_PATH"} {
		if v, ok := os.LookupEnv(name); ok {
			d.Environment[name] = v
		}
	}
	d.Auto = test(ctx, backend.Auto)
	for _, kind := range []string{backend.CUDA, backend.CPU, backend.Go} {
		d.Backends = append(d.Backends, test(ctx, kind))
	}
	d.judge()
	return d
}

// judge lists what is missing. A plugin that is no good and one that is not there are mended by the same command.
func (d *diagnosis) judge() {
	add := func(what, fix string) { d.Problems = append(d.Problems, problem{what, fix}) }
	found := map[string]*pluginInfo{}
	for i, p := range d.Plugins {
		if found[p.Kind] == nil {
			found[p.Kind] = &d.Plugins[i]
		}
	}
	ok := map[string]bool{}
	why := map[string]string{}
	for _, b := range d.Backends {
		ok[b.Kind], why[b.Kind] = b.OK, b.Why
	}
	if !d.Cgo {
		add("built without cgo: XLA cannot be used", "install a C compiler, then `CGO_ENABLED=1 go build ./cmd/coordinator`")
		return
	}
	if cpu := found[backend.CPU]; cpu == nil {
		add("no XLA plugin for the CPU: runs use pure Go, 10 to 20 times slower", "coordinator backend install cpu")
	} else if !ok[backend.CPU] {
		fix := fmt.Sprintf("rm %s && coordinator backend install cpu", cpu.Path)
		if d.Environment["XLA_FLAGS"] != "" {
			fix = "unset XLA_FLAGS, and if that is not it: " + fix
		}
		add("xla:cpu does not work: "+why[backend.CPU], fix)
	} else if !cpu.Pinned {
		add("the plugin "+cpu.Path+" is not the pinned one: results may differ from other machines'", fmt.Sprintf("rm %s && coordinator backend install cpu", cpu.Path))
	}
	if d.GPU {
		if cuda := found[backend.CUDA]; cuda == nil {
			add("an NVIDIA GPU, but no XLA plugin for it", "coordinator backend install cuda13")
		} else if !ok[backend.CUDA] {
			add("xla:cuda does not work: "+why[backend.CUDA], "nvidia-smi must list the GPU; "+cudaLibrariesHint)
		}
	}
	if !d.Auto.OK {
		add("auto opens nothing: "+d.Auto.Why, "coordinator backend list")
	}
	const enough = 1 << 30
	if d.MemoryBytes > 0 && d.MemoryBytes < enough {
		add(fmt.Sprintf("%s of memory: compiling with XLA may not fit", gigabytes(d.MemoryBytes)), "backend: {kind: go} in the experiment")
	}
}

func (d diagnosis) render(w io.Writer) {
	t := newTable(w)
	t.AppendRow(table.Row{"system", fmt.Sprintf("%s/%s, %s", d.OS, d.Arch, d.Go)})
	t.AppendRow(table.Row{"CPU", fmt.Sprintf("%s, %d cores", d.CPU, d.Cores)})
	t.AppendRow(table.Row{"instruction sets", strings.Join(d.CPUFeatures, " ")})
	if d.MemoryBytes > 0 {
		t.AppendRow(table.Row{"memory", gigabytes(d.MemoryBytes)})
	}
	t.AppendRow(table.Row{"NVIDIA GPU", yesNo(d.GPU)})
	t.AppendRow(table.Row{"built with cgo", yesNo(d.Cgo)})
	for _, name := range []string{backend.EnvPlugin, backend.EnvNoInstall, "PJRT_PLUGIN_LIBRARY_PATH", "XLA_FLAGS", "NPROC", "CUDA_VISIBLE_DEVICES", "NVIDIA_TF32_OVERRIDE", "LD_LIBRARY_PATH"} {
		if v, ok := d.Environment[name]; ok {
			t.AppendRow(table.Row{name, v})
		}
	}
	t.SetColumnConfigs([]table.ColumnConfig{{Number: 2, WidthMax: 100, WidthMaxEnforcer: text.WrapSoft}})
	t.Render()
	if len(d.Plugins) > 0 {
		renderPlugins(w, d.Plugins)
	}
	t = newTable(w, "backend", "works", "compile", "step", "gradient error", "")
	for _, p := range d.Backends {
		if p.OK {
			t.AppendRow(table.Row{p.Kind, "yes", fmt.Sprintf("%.0f ms", p.CompileMS), fmt.Sprintf("%.0f µs", p.StepUS), fmt.Sprintf("%.1g", p.Error), ""})
		} else {
			t.AppendRow(table.Row{p.Kind, "no", "", "", "", p.Why})
		}
	}
	t.SetColumnConfigs([]table.ColumnConfig{{Number: 6, WidthMax: 80, WidthMaxEnforcer: text.WrapSoft}})
	t.Render()
	fmt.Fprintf(w, "auto opens %s: %s\n", d.Auto.Kind, d.Auto.Why)
	if len(d.Problems) == 0 {
		fmt.Fprintln(w, "nothing is missing")
	}
	for _, p := range d.Problems {
		fmt.Fprintf(w, "problem: %s\n    fix: %s\n", p.What, p.Fix)
	}
}

func gigabytes(n int64) string { return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30)) }

// memory is what the system has, or a container may use, or 0 where that cannot be told.
func memory() int64 {
	value, err := procValue("/proc/meminfo", "MemTotal")
	if err != nil {
		return 0
	}
	kib, err := strconv.ParseInt(strings.TrimSuffix(value, " kB"), 10, 64)
	if err != nil {
		return 0
	}
	total := kib << 10
	if limit, err := os.ReadFile("/sys/fs/cgroup/memory.max"); err == nil { // of a container
		if n, err := strconv.ParseInt(strings.TrimSpace(string(limit)), 10, 64); err == nil { // not "max"
			total = min(total, n)
		}
	}
	return total
}

func cpuModel() string {
	if model, err := procValue("/proc/cpuinfo", "model name"); err == nil {
		return model
	}
	return runtime.GOARCH
}

var errNoKey = errors.New("no such key")

// procValue reads the first "key: value" of a file below /proc.
func procValue(path, key string) (string, error) {
	f, err := os.Open(filepath.FromSlash(path))
	if err != nil {
		return "", err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		if k, v, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v), nil
		}
	}
	return "", errors.Join(s.Err(), errNoKey)
}
