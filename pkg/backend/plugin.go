package backend

import (
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// Environment variables that this package reads.
const (
	EnvPlugin    = "KELVIN_XLA_PLUGIN"        // path of the XLA plugin to use, instead of the search
	EnvNoInstall = "KELVIN_NO_INSTALL"        // set to anything but 0 or nothing: never download a plugin
	envSearch    = "PJRT_PLUGIN_LIBRARY_PATH" // go-xla's: folders to search for plugins, separated by colons
)

// Plugin is an XLA plugin that is there.
type Plugin struct {
	Kind string // xla:cuda or xla:cpu
	Path string
	Size int64
}

// InstallDir is the folder for plugins: go-xla's own, shared with other programs on GoMLX.
func InstallDir() (string, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no folder to keep plugins in: %w (say one with --dir)", err)
	}
	return filepath.Join(home, ".local", "lib", "go-xla"), nil
}

// searchDirs are the folders in which go-xla looks for plugins, in its order, without the system's library folders.
func searchDirs() []string {
	if v, ok := os.LookupEnv(envSearch); ok {
		var dirs []string
		for _, dir := range filepath.SplitList(v) {
			if dir != "" {
				dirs = append(dirs, dir)
			}
		}
		return dirs
	}
	var dirs []string
	if dir, err := InstallDir(); err == nil {
		dirs = append(dirs, dir, filepath.Join(dir, "nvidia"))
	}
	const system = "/usr/local/lib/go-xla"
	return append(dirs, system, filepath.Join(system, "nvidia"))
}

// FindPlugins lists the plugins that there are. explicit, if not empty, is the path of the one to use for its kind; it is
// listed first, whether it exists or not.
func FindPlugins(explicit string) []Plugin { return findPlugins(explicit, searchDirs()) }

func findPlugins(explicit string, dirs []string) []Plugin {
	var found []Plugin
	if explicit != "" {
		p := Plugin{Kind: pluginKind(explicit), Path: explicit}
		if info, err := os.Stat(explicit); err == nil {
			p.Size = info.Size()
		}
		found = append(found, p)
	}
	for _, dir := range dirs {
		// A folder whose name is a pattern finds nothing, as in go-xla.
		for _, pattern := range []string{"pjrt_c_api_*_plugin.*", "pjrt[-_]plugin[-_]*.*"} {
			paths, _ := filepath.Glob(filepath.Join(dir, pattern))
			for _, path := range paths {
				info, err := os.Stat(path)
				if path == explicit {
					continue
				}
				if ext := filepath.Ext(path); err != nil || info.IsDir() || ext != ".so" && ext != ".dylib" {
					continue
				}
				if kind := pluginKind(path); kind == CPU && strings.Contains(filepath.Base(path), "cpu") || kind == CUDA {
					found = append(found, Plugin{kind, path, info.Size()})
				}
			}
		}
	}
	return found
}

// pluginKind goes by the file's name, as go-xla does; what is not for CUDA is taken to be for the CPU.
func pluginKind(path string) string {
	if base := strings.ToLower(filepath.Base(path)); strings.Contains(base, "cuda") || strings.Contains(base, "nvidia") {
		return CUDA
	}
	return CPU
}

// Check says whether the file can be a plugin: a whole library for this system. Loading a damaged one can end the process.
func (p Plugin) Check() error {
	info, err := os.Stat(p.Path)
	if err != nil {
		return fmt.Errorf("plugin: %w", err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("plugin %s: not a file", p.Path)
	}
	if strings.Contains(p.Path, ",") {
		return fmt.Errorf("plugin %s: go-xla cannot load from a path with a comma, move it", p.Path)
	}
	if runtime.GOOS != "linux" {
		return nil
	}
	f, err := elf.Open(p.Path)
	if err != nil {
		if format := (*elf.FormatError)(nil); errors.As(err, &format) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("plugin %s: not a whole shared library (%w)", p.Path, err)
		}
		return fmt.Errorf("plugin %s: %w", p.Path, err)
	}
	defer f.Close()
	for _, part := range f.Progs {
		if end := part.Off + part.Filesz; part.Type == elf.PT_LOAD && end > uint64(info.Size()) {
			return fmt.Errorf("plugin %s: truncated: %d bytes, want at least %d", p.Path, info.Size(), end)
		}
	}
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	if want, ok := machines[runtime.GOARCH]; f.Type != elf.ET_DYN || ok && f.Machine != want {
		return fmt.Errorf("plugin %s: %s for %s, want a shared library for %s", p.Path, f.Type, f.Machine, runtime.GOARCH)
	}
	return nil
}

// Pinned is the wheel of the lock file that a library of this size comes from, at a glance; see [Plugin.Verify].
func (p Plugin) Pinned() (Wheel, bool) {
	for _, w := range Wheels() {
		if w.LibrarySize == p.Size && (w.Flavor == "cpu") == (p.Kind == CPU) {
			return w, true
		}
	}
	return Wheel{}, false
}

// Verify hashes the library. pinned is true if it is, bit for bit, one of the lock file.
func (p Plugin) Verify() (sum string, pinned bool, err error) {
	f, err := os.Open(p.Path)
	if err != nil {
		return "", false, fmt.Errorf("plugin: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", false, fmt.Errorf("plugin: %w", err)
	}
	sum = hex.EncodeToString(h.Sum(nil))
	for _, w := range Wheels() {
		pinned = pinned || w.LibrarySHA256 == sum
	}
	return sum, pinned, nil
}

// nvidiaDirs are the places, seen from the plugin, where the CUDA plugin looks for NVIDIA's libraries.
func nvidiaDirs(plugin string) []string {
	dir := filepath.Dir(plugin)
	return []string{filepath.Join(dir, "..", "..", "nvidia"), filepath.Join(dir, "..", "nvidia")}
}

// cudaDataDir is where XLA finds ptxas and libdevice for this plugin, or "".
func cudaDataDir(plugin string) string {
	var candidates []string
	for _, dir := range nvidiaDirs(plugin) {
		candidates = append(candidates, filepath.Join(dir, "cu13"), filepath.Join(dir, "cuda_nvcc"))
	}
	candidates = append(candidates, nvidiaDirs(plugin)...)
	for _, dir := range append(candidates, "/usr/local/cuda") {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return dir
		}
	}
	return ""
}

// CUDALibraries says where NVIDIA's libraries lie for this plugin, or "" if they are not beside it (they may still be on
// the system's library path).
func CUDALibraries(plugin string) string {
	for _, dir := range nvidiaDirs(plugin) {
		for _, sub := range []string{"cu13", "cublas"} {
			if info, err := os.Stat(filepath.Join(dir, sub, "lib")); err == nil && info.IsDir() {
				return filepath.Join(dir, sub)
			}
		}
	}
	return ""
}

// HasGPU says whether the system shows an NVIDIA device.
func HasGPU() bool {
	for _, pattern := range []string{"/dev/nvidia[0-9]*", "/proc/driver/nvidia/gpus/*", "/usr/lib/wsl/lib/libcuda.so*"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return true
		}
	}
	return false
}

func noInstall() bool {
	v := os.Getenv(EnvNoInstall)
	return v != "" && v != "0"
}

// HasCgo says whether this program was built with cgo, which XLA needs.
func HasCgo() bool { return cgoEnabled }
