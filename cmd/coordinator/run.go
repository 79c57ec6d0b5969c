package main

import (
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/local"
)

// version is that of the module, or the commit it was built from.
func version() string { return local.Version() }

// backendFlags are the flags of every command that computes.
type backendFlags struct {
	kind      string
	noInstall bool
	params    string // of the commands that call addParams
}

// addParams adds the flag that names a file of weights.
func (f *backendFlags) addParams(cmd *cobra.Command, use string) {
	cmd.Flags().StringVar(&f.params, "params", "", "safetensors `file` of weights by name, also one of TorchEBM's: "+use)
}

func (f *backendFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.kind, "backend", "", "auto, xla:cuda, xla:cpu or go, in place of the experiment's")
	cmd.Flags().BoolVar(&f.noInstall, "no-install", false, "never download the XLA plugin (also KELVIN_NO_INSTALL=1)")
}

func (f *backendFlags) options(progress io.Writer) backend.Options {
	return backend.Options{NoInstall: f.noInstall, Progress: progress}
}

// open opens the backend for a command without an experiment.
func (f *backendFlags) open(cmd *cobra.Command) (*backend.Backend, error) {
	kind := f.kind
	if kind == "" {
		kind = backend.Auto
	}
	cfg := backend.Config{Kind: kind, Threads: backend.DefaultConfig().Threads}
	if err := cfg.Validate(); err != nil {
		return nil, usageErrorf("--backend: %w", err)
	}
	return backend.Open(cmd.Context(), cfg, f.options(cmd.ErrOrStderr()))
}

// addOutputFlag gives a command its -o flag; check is to be called first in RunE.
func addOutputFlag(cmd *cobra.Command, into *string, def string, allowed ...string) (check func() error) {
	cmd.Flags().StringVarP(into, "output", "o", def, oneOf(allowed))
	return func() error {
		if !slices.Contains(allowed, *into) {
			return usageErrorf("-o: %q, want %s", *into, oneOf(allowed))
		}
		return nil
	}
}

func oneOf(names []string) string {
	text := ""
	for i, n := range names {
		switch {
		case i == 0:
		case i == len(names)-1:
			text += " or "
		default:
			text += ", "
		}
		text += n
	}
	return text
}

func positive(flags map[string]int) error {
	names := make([]string, 0, len(flags))
	for name := range flags {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if flags[name] < 1 {
			return usageErrorf("--%s: %d, want at least 1", name, flags[name])
		}
	}
	return nil
}

// needRun checks the --run flag.
func needRun(dir string) error {
	if dir == "" {
		return usageErrorf("--run: missing, want the folder of a run, such as %s", "runs/two-moons")
	}
	return nil
}

func printf(w io.Writer, format string, args ...any) error {
	_, err := fmt.Fprintf(w, format, args...)
	return err
}
