package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/local"
	"github.com/kelvin-ebm/kelvin/pkg/runlog"
)

func newTrainCommand() *cobra.Command {
	var b backendFlags
	var opts local.Options
	var quiet bool
	var tokenFile string
	cmd := &cobra.Command{
		Use:   "train FILE",
		Short: "Train an experiment in this process",
		Long: `Train an experiment in this process and leave everything in the run's folder: the resolved experiment, metrics, cuts,
parameters, samples, figures and report.html. Ctrl-C saves the state; --resume goes on from it bit for bit, which
--check-serial proves beforehand.`,
		Example: `  coordinator train examples/two-moons.yaml
  coordinator train examples/two-moons.yaml --set train.steps=2000 --set seed=3 --out runs/short
  coordinator train examples/two-moons.yaml --resume
  coordinator train examples/replicas.yaml --replicas 3 --spawn process
  coordinator train examples/replicas.yaml --replicas 2 --spawn none --token-file token   # and replica --coordinator nats://127.0.0.1:4222 …
  coordinator train examples/two-moons.yaml --params runs/short/params.safetensors --out runs/longer`,
		Args: exactlyOneFile,
	}
	sets := addSetFlag(cmd)
	cmd.Flags().StringVar(&opts.Out, "out", "", "the run's folder (default runs/<name>)")
	cmd.Flags().BoolVar(&opts.Resume, "resume", false, "go on from the last cut in the run's folder")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "show no progress")
	cmd.Flags().IntVar(&opts.CheckSerial, "check-serial", 0, "first make so many adaptation rounds of tempering.adapt_every steps twice, with a cut and a restore in between, and compare all bits")
	cmd.Flags().IntVar(&opts.Replicas, "replicas", 1, "workers that the shards of the experiment are spread over; any number comes to the same numbers")
	cmd.Flags().StringVar(&opts.Spawn, "spawn", local.SpawnGoroutine, "what a worker is: "+oneOf(local.Spawns()))
	cmd.Flags().StringVar(&opts.Listen, "listen", "127.0.0.1:4222", "address for replicas that others start, with --spawn none")
	cmd.Flags().StringVar(&tokenFile, "token-file", "", "file with the token that they show, with --spawn none (default: the variable "+local.TokenVariable+")")
	b.add(cmd)
	b.addParams(cmd, "the first weights")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := loadExperiment(args[0], *sets)
		if err != nil {
			return err
		}
		if b.kind != "" {
			cfg.Backend.Kind = b.kind
			if err := cfg.Backend.Validate(); err != nil {
				return usageErrorf("--backend: %w", err)
			}
		}
		if opts.Params = b.params; opts.Params != "" && opts.Resume {
			return usageErrorf("--params: a run that goes on has its own weights, want no --resume")
		}
		if err := positive(map[string]int{"replicas": opts.Replicas}); err != nil {
			return err
		}
		switch {
		case !slices.Contains(local.Spawns(), opts.Spawn):
			return usageErrorf("--spawn: %q, want %s", opts.Spawn, oneOf(local.Spawns()))
		case opts.CheckSerial < 0:
			return usageErrorf("--check-serial: %d, want 0 or more rounds", opts.CheckSerial)
		case opts.CheckSerial > 0 && opts.Resume:
			return usageErrorf("--check-serial: checks the first steps of a new run, want no --resume")
		}
		if opts.Spawn == local.SpawnNone {
			if opts.Token, err = local.ReadToken(tokenFile); err != nil {
				return usageError{err}
			}
		} else if opts.Listen = ""; cmd.Flags().Changed("listen") || tokenFile != "" {
			return usageErrorf("--listen, --token-file: are for replicas that others start, want --spawn none")
		}
		stderr := cmd.ErrOrStderr()
		opts.Command = append([]string{"coordinator", "train"}, commandArgs(cmd, args)...)
		opts.Version = version()
		opts.Backend = b.options(stderr)
		opts.Progress = stderr
		opts.Show = runlog.ProgressOptions{Quiet: quiet}
		if f, ok := stderr.(*os.File); ok && !quiet {
			opts.Show = opts.Show.ForTerminal(f)
		}
		summary, err := local.Train(cmd.Context(), cfg, opts)
		if err != nil {
			return err
		}
		return printSummary(cmd.OutOrStdout(), summary)
	}
	return cmd
}

// commandArgs are the arguments as typed, flags behind the file, for the report and run.json.
func commandArgs(cmd *cobra.Command, args []string) []string {
	out := append([]string{}, args...)
	sets, err := cmd.Flags().GetStringArray("set")
	if err == nil {
		for _, s := range sets {
			out = append(out, "--set", s)
		}
	}
	for _, name := range []string{"out", "backend", "params", "replicas", "spawn", "listen", "token-file"} {
		if f := cmd.Flags().Lookup(name); f != nil && f.Changed {
			out = append(out, "--"+name, f.Value.String())
		}
	}
	return out
}

func printSummary(w io.Writer, s *local.Summary) error {
	ev := s.Evaluation
	var parts []string
	if ev.NLL != nil {
		text := fmt.Sprintf("test NLL %.3f nats", *ev.NLL)
		if ev.NLLBox != nil {
			text = fmt.Sprintf("test NLL %.1f nats, restricted to [%.3g, %.3g]² since the density has no finite integral", *ev.NLL, ev.NLLBox[0], ev.NLLBox[1])
		}
		if ev.NLLKind == "bridge" {
			text += " by bridge sampling"
		}
		if ev.Entropy != nil {
			text += fmt.Sprintf(" (entropy of the data law %.3f)", *ev.Entropy)
		}
		parts = append(parts, text)
	}
	if ev.MMD2 != nil {
		parts = append(parts, fmt.Sprintf("MMD² %.2g (%.1f null deviations)", *ev.MMD2, *ev.MMD2 / *ev.MMDNullSD))
	}
	if ev.Modes != nil {
		parts = append(parts, fmt.Sprintf("%d of %d modes, TV %.3f", *ev.ModesHit, *ev.Modes, *ev.ModeTV))
	}
	parts = append(parts, fmt.Sprintf("%d steps in %.1f s", s.Steps, s.Seconds))
	lines := []string{ev.Name + ": " + strings.Join(parts, "; ")}
	if t := ev.Drawn(); t != nil {
		lines = append(lines, verdictLines(t)...)
	}
	lines = append(lines, "everything is in "+s.Dir+"; open "+s.Dir+"/report.html")
	return printf(w, "%s\n", strings.Join(lines, "\n"))
}
