package main

import (
	"errors"
	"fmt"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/local"
)

// errInvariance is returned where a sampler changes the law of a rung.
var errInvariance = errors.New("the scans change the law of a rung")

// testInvariance tests the sampler and the ladder of the flags on laws that are known exactly.
func testInvariance(cmd *cobra.Command, e *energyFlags, l *ladderFlags, seed uint64, flags backendFlags) (err error) {
	params, overrides, err := e.overrides(cmd)
	if err != nil {
		return err
	}
	if len(params) > 0 {
		return usageErrorf("--set: the invariance test has a law of its own, want keys of the sampler, sampler.key=value")
	}
	cfg := engine.InvarianceConfig{Seed: seed}
	if cfg.Sampler, err = local.SamplerConfig(overrides); err != nil {
		return usageError{err}
	}
	if cfg.Sampler.IsFlow() || cfg.Sampler.Settles() {
		return usageErrorf("--sampler: %s has no law, want one that has", e.sampler)
	}
	const usual = 5 // rungs
	if !cmd.Flags().Changed("rungs") {
		l.rungs = usual
	}
	if cmd.Flags().Changed("chains") {
		cfg.Ladders = l.chains
	}
	if cfg.Tempering, err = l.config(cmd, usual); err != nil {
		return err
	}
	if cfg.Tempering.Rungs < 2 {
		return usageErrorf("--rungs: %d, want at least 2", cfg.Tempering.Rungs)
	}
	b, err := flags.open(cmd)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	report, err := engine.Invariance(cmd.Context(), b, cfg)
	if err != nil {
		return err
	}
	w := cmd.OutOrStdout()
	t := newTable(w, "rung", "β", "KS distance", "p", "law")
	t.SetTitle("%s, %s, %s path, on %s", cfg.Sampler.Kind, cfg.Tempering.Schedule, cfg.Tempering.Path, b.Kind())
	for k, r := range report.Rungs {
		remark := "kept"
		if !(r.P >= report.Level) {
			remark = "changed"
		}
		t.AppendRow(table.Row{k, fmt.Sprintf("%.4g", r.Beta), fmt.Sprintf("%.4f", r.D), fmt.Sprintf("%.3g", r.P), remark})
	}
	t.Render()
	if !report.Passed {
		return fmt.Errorf("%w: p below %.2g, want a sampler with a Metropolis test, or smaller steps", errInvariance, report.Level)
	}
	return printf(w, "passed: every rung keeps its law, no p below %.2g\n", report.Level)
}
