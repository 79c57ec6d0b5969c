package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
)

func newBackendCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "backend", Short: "List and install the numeric backends"}
	cmd.AddCommand(newBackendListCommand(), newBackendInstallCommand())
	return cmd
}

// pluginInfo is a plugin as `backend list` and `doctor` show it.
type pluginInfo struct {
	Kind    string `json:"kind"`
	Path    string `json:"path"`
	Version string `json:"version"` // of the pinned wheel it comes from, or "unknown"
	SHA256  string `json:"sha256"`
	Pinned  bool   `json:"pinned"` // its hash is one of the lock file
	Usable  bool   `json:"usable"`
	Problem string `json:"problem"` // why it is not usable
}

// wheelInfo is a plugin that can be installed.
type wheelInfo struct {
	Flavor    string `json:"flavor"`
	Name      string `json:"name"`
	Version   string `json:"version"`
	File      string `json:"file"`
	SHA256    string `json:"sha256"`
	Bytes     int64  `json:"bytes"`
	Installed bool   `json:"installed"`
}

func describePlugins(explicit string) []pluginInfo {
	plugins := []pluginInfo{}
	for _, p := range backend.FindPlugins(explicit) {
		info := pluginInfo{Kind: p.Kind, Path: p.Path, Version: "unknown"}
		err := p.Check()
		if err == nil {
			info.SHA256, info.Pinned, err = p.Verify()
		}
		if w, ok := p.Pinned(); ok && info.Pinned {
			info.Version = w.String()
		}
		switch {
		case err != nil:
			info.Problem = err.Error()
		case p.Kind == backend.CUDA && !backend.HasGPU():
			info.Problem = "no NVIDIA GPU is visible"
		default:
			info.Usable = true
		}
		plugins = append(plugins, info)
	}
	return plugins
}

func checkOutput(format string) error {
	if format != "table" && format != "json" {
		return usageErrorf("-o: %q, want table or json", format)
	}
	return nil
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func newBackendListCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Show the XLA plugins found and those that can be installed",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			list := struct {
				Plugins []pluginInfo `json:"plugins"`
				Wheels  []wheelInfo  `json:"wheels"`
			}{Plugins: describePlugins(explicitPlugin())}
			for _, w := range backend.Wheels() {
				installed := slices.ContainsFunc(list.Plugins, func(p pluginInfo) bool { return p.SHA256 == w.LibrarySHA256 })
				list.Wheels = append(list.Wheels, wheelInfo{w.Flavor, w.Name, w.Version, w.File, w.SHA256, w.Size, installed})
			}
			out := cmd.OutOrStdout()
			if output == "json" {
				return writeJSON(out, list)
			}
			if len(list.Plugins) > 0 {
				renderPlugins(out, list.Plugins)
			} else {
				fmt.Fprintln(out, "no XLA plugin found: `coordinator backend install cpu` gets one; until then runs use pure Go")
			}
			t := newTable(out, "plugin", "wheel", "download", "installed")
			for _, w := range list.Wheels {
				t.AppendRow(table.Row{w.Flavor, w.Name + " " + w.Version, fmt.Sprintf("%.0f MB", float64(w.Bytes)/1e6), yesNo(w.Installed)})
			}
			t.Render()
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return cmd
}

func newBackendInstallCommand() *cobra.Command {
	var o backend.InstallOptions
	cmd := &cobra.Command{
		Use:   "install [cpu|cuda13]",
		Short: "Install a pinned XLA plugin, checked by its hash",
		Example: `  coordinator backend install cpu
  pip download --no-deps xla-cpu-pjrt==0.0.1          # where there is a network, and then here:
  coordinator backend install cpu --from xla_cpu_pjrt-0.0.1-py3-none-manylinux_2_27_x86_64.whl`,
		ValidArgs: []string{"cpu", "cuda13"},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Flavor = "cpu"
			if len(args) > 1 {
				return usageErrorf("%d plugins, want one: %s", len(args), cmd.UseLine())
			}
			if len(args) == 1 {
				o.Flavor = args[0]
			}
			if !slices.Contains(cmd.ValidArgs, o.Flavor) {
				return usageErrorf("plugin %q, want %s", o.Flavor, strings.Join(cmd.ValidArgs, " or "))
			}
			o.Progress = cmd.ErrOrStderr()
			done, err := backend.Install(cmd.Context(), o)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if done.Already {
				fmt.Fprintf(out, "%s is already in %s (hash checked)\n", done.Wheel, done.Plugin.Path)
			} else {
				fmt.Fprintf(out, "%s installed to %s in %.1f s (hash checked)\n", done.Wheel, done.Plugin.Path, done.Elapsed.Seconds())
			}
			return testInstalled(cmd, done)
		},
	}
	cmd.Flags().StringVar(&o.From, "from", "", "a wheel on disk instead of a download")
	cmd.Flags().StringVar(&o.Dir, "dir", "", "folder to install to (default ~/.local/lib/go-xla; elsewhere, set PJRT_PLUGIN_LIBRARY_PATH)")
	return cmd
}

// testInstalled loads the plugin and checks a gradient on it.
func testInstalled(cmd *cobra.Command, done backend.Installed) error {
	out := cmd.OutOrStdout()
	if done.Plugin.Kind == backend.CUDA {
		if backend.CUDALibraries(done.Plugin.Path) == "" {
			fmt.Fprintln(out, cudaLibrariesHint)
		}
		if !backend.HasGPU() {
			fmt.Fprintln(out, "not tested: no NVIDIA GPU is visible here")
			return nil
		}
	}
	start := time.Now()
	b, err := backend.Open(cmd.Context(), backend.Config{Kind: done.Plugin.Kind, Threads: backend.DefaultConfig().Threads},
		backend.Options{NoInstall: true, Plugin: done.Plugin.Path})
	if err != nil {
		return err
	}
	r, err := backend.SelfTest(b)
	if err = errors.Join(err, b.Close()); err != nil {
		return err
	}
	fmt.Fprintf(out, "tested in %.1f s: gradient of a layer right to %.1g, %s a step\n", time.Since(start).Seconds(), r.Error, r.Step.Round(time.Microsecond))
	return nil
}

const cudaLibrariesHint = "the CUDA plugin needs NVIDIA's libraries (CUDA 13, cuDNN, NCCL): `pip install 'jax[cuda13]'` brings them and a plugin that finds them; " +
	"use that one with KELVIN_XLA_PLUGIN=…/site-packages/jax_plugins/xla_cuda13/xla_cuda_plugin.so"

// newTable is a table in the commands' common style.
func newTable(w io.Writer, header ...string) table.Writer {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.SetStyle(table.StyleRounded)
	t.Style().Format.Header = text.FormatDefault
	row := table.Row{}
	for _, h := range header {
		row = append(row, h)
	}
	if len(row) > 0 {
		t.AppendHeader(row)
	}
	return t
}

func renderPlugins(w io.Writer, plugins []pluginInfo) {
	t := newTable(w, "backend", "version", "pinned", "usable", "path")
	for _, p := range plugins {
		usable := yesNo(p.Usable)
		if p.Problem != "" {
			usable += ": " + p.Problem
		}
		t.AppendRow(table.Row{p.Kind, p.Version, yesNo(p.Pinned), usable, p.Path})
	}
	t.SetColumnConfigs([]table.ColumnConfig{{Number: 4, WidthMax: 60, WidthMaxEnforcer: text.WrapSoft}})
	t.Render()
}

func yesNo(v bool) string {
	if v {
		return "yes"
	}
	return "no"
}
