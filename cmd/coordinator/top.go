package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
)

func newTopCommand() *cobra.Command {
	var cluster clusterFlags
	var interval time.Duration
	var times int
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show how fast the experiments go, and how the coordinators do",
		Long: `Show the experiments that have not ended, with steps a second since the last look, and the coordinators, anew every
--interval until Ctrl-C.`,
		Example: "  coordinator top --interval 5s",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().DurationVar(&interval, "interval", 2*time.Second, "time between two looks")
	cmd.Flags().IntVar(&times, "times", 0, "end after so many looks (default: never)")
	cluster.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if interval <= 0 {
			return usageErrorf("--interval: %v, want more than 0", interval)
		}
		if times < 0 {
			return usageErrorf("--times: %d, want 0 or more", times)
		}
		clear := ""
		if f, ok := cmd.OutOrStdout().(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			clear = "\x1b[H\x1b[2J"
		}
		return cluster.withUntilInterrupt(cmd, func(ctx context.Context, c *api.Client) error {
			tick := time.NewTicker(interval)
			defer tick.Stop()
			var t top
			for look := 1; ; look++ {
				text, err := t.look(ctx, c, time.Now())
				if err != nil {
					return err
				}
				if err := printf(cmd.OutOrStdout(), "%s%s", clear, text); err != nil || look == times {
					return err
				}
				select {
				case <-ctx.Done():
					return nil
				case <-tick.C:
				}
			}
		})
	}
	return cmd
}

// top remembers where the experiments were at the last look.
type top struct {
	at    time.Time
	steps map[string]uint64 // by uid
}

func (t *top) look(ctx context.Context, c *api.Client, now time.Time) (string, error) {
	list, err := c.Experiments(ctx)
	if err != nil {
		return "", err
	}
	members, err := c.Members(ctx)
	if err != nil {
		return "", err
	}
	s := &sheet{header: []string{"experiment", "phase", "step", "steps/s", "left", "replicas", "generation", "last cut"}}
	steps := map[string]uint64{}
	for _, e := range list.Items {
		if api.Final(e.Phase) {
			continue
		}
		steps[e.UID] = e.Step
		rate, left, cut := "–", "–", "–"
		if was, seen := t.steps[e.UID]; seen && e.Step >= was {
			perSecond := float64(e.Step-was) / now.Sub(t.at).Seconds()
			rate = fmt.Sprintf("%.1f", perSecond)
			if perSecond > 0 {
				left = time.Duration(float64(e.Steps-min(e.Step, e.Steps)) / perSecond * float64(time.Second)).Round(time.Second).String()
			}
		}
		if e.LastCut != nil {
			cut = ago(e.LastCut.At)
		}
		s.row(e.Name, e.Phase, fmt.Sprintf("%d of %d", e.Step, e.Steps), rate, left, fmt.Sprintf("%d of %d", e.LiveReplicas, mostReplicas(e)), e.Generation, cut)
	}
	t.at, t.steps = now, steps
	var b bytes.Buffer
	if err := s.render(&b, false); err != nil {
		return "", err
	}
	err = memberSheet(members.Items)().render(&b, false)
	return b.String(), err
}
