package backend

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"golang.org/x/sys/cpu"
)

// Fingerprint is what the bits of a result depend on besides the experiment. Results are promised to be equal, bit for
// bit, only between equal fingerprints. It is comparable with ==.
type Fingerprint struct {
	Kind    string `json:"kind"`    // xla:cuda, xla:cpu or go
	Plugin  string `json:"plugin"`  // name and version of what computes
	Device  string `json:"device"`  // architecture and instruction sets of the CPU, or the GPU's model
	Threads int    `json:"threads"` // of XLA's CPU thread pool
	Flags   string `json:"flags"`   // XLA's, without those that only say where files lie
}

// String is one line.
func (f Fingerprint) String() string {
	s := fmt.Sprintf("%s, %s, %s, %d threads", f.Kind, f.Plugin, f.Device, f.Threads)
	if f.Flags != "" {
		s += ", " + f.Flags
	}
	return s
}

func newFingerprint(b *Backend, p Plugin) Fingerprint {
	f := Fingerprint{Kind: b.kind, Threads: b.threads, Device: runtime.GOARCH}
	if features := CPUFeatures(); len(features) > 0 {
		f.Device += " " + strings.Join(features, " ")
	}
	if b.kind == Go {
		f.Plugin = "gomlx " + moduleVersion("github.com/gomlx/gomlx") + " " + runtime.Version()
		return f
	}
	f.Plugin = fmt.Sprintf("%d bytes", p.Size)
	if w, ok := p.Pinned(); ok {
		f.Plugin = w.String()
	}
	if b.kind == CUDA {
		f.Device = b.DeviceDescription(0)
	}
	var flags []string
	for _, flag := range strings.Fields(os.Getenv("XLA_FLAGS")) {
		name := strings.TrimLeft(flag, "-")
		if !strings.HasPrefix(name, "xla_dump") && !strings.HasPrefix(name, "xla_gpu_cuda_data_dir") {
			flags = append(flags, flag)
		}
	}
	slices.Sort(flags)
	f.Flags = strings.Join(flags, " ")
	return f
}

func moduleVersion(path string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == path {
				return m.Version
			}
		}
	}
	return "unknown"
}

// CPUFeatures names the instruction sets that compilers choose by. It is empty on systems where they cannot be told.
func CPUFeatures() []string {
	var names []string
	add := func(name string, has bool) {
		if has {
			names = append(names, name)
		}
	}
	switch runtime.GOARCH {
	case "amd64":
		add("sse4.2", cpu.X86.HasSSE42)
		add("avx", cpu.X86.HasAVX)
		add("avx2", cpu.X86.HasAVX2)
		add("fma", cpu.X86.HasFMA)
		add("avx512f", cpu.X86.HasAVX512F)
		add("avx512bw", cpu.X86.HasAVX512BW)
		add("avx512cd", cpu.X86.HasAVX512CD)
		add("avx512dq", cpu.X86.HasAVX512DQ)
		add("avx512vl", cpu.X86.HasAVX512VL)
		add("avx512vnni", cpu.X86.HasAVX512VNNI)
		add("avx512bf16", cpu.X86.HasAVX512BF16)
		add("amx", cpu.X86.HasAMXTile)
	case "arm64":
		add("asimd", cpu.ARM64.HasASIMD)
		add("asimdhp", cpu.ARM64.HasASIMDHP)
		add("asimddp", cpu.ARM64.HasASIMDDP)
		add("sve", cpu.ARM64.HasSVE)
		add("sve2", cpu.ARM64.HasSVE2)
	}
	return names
}

func hasAVX512() bool { return runtime.GOARCH == "amd64" && cpu.X86.HasAVX512F }
