package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/kube"
)

func newKubernetesStatusCommand() *cobra.Command {
	var f kubeFlags
	var out outputFlag
	cmd := &cobra.Command{
		Use:   "status NAME",
		Short: "Say how the Job of an experiment is, and why pods do not run",
		Long: `Say how the Job of an experiment is, which of its replicas run, and in words why the others do not, with what helps. How far the
experiment is, coordinator describe experiment says.`,
		Example: "  coordinator k8s status replicas\n  coordinator k8s status replicas -o json",
		Args:    exactlyOneName,
	}
	f.add(cmd)
	out.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := out.check(); err != nil {
			return err
		}
		k, err := kube.Open(f.Access)
		if err != nil {
			return err
		}
		seen, err := k.Look(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return out.print(cmd.OutOrStdout(), seen, jobSheet(seen))
	}
	return cmd
}

func jobSheet(j *kube.Seen) func() *sheet {
	return func() *sheet {
		s := &sheet{
			header: []string{"replica", "state", "why", "node", "pod"}, wide: 1,
			notes: []string{fmt.Sprintf("job %s in %s: %s, %d of %d replicas with a lease", j.Name, j.Namespace, j.State, j.Ready, j.Pods)},
		}
		for _, p := range j.Replicas {
			name := "–"
			if p.Index >= 0 {
				name = fmt.Sprintf("%s-%d", j.Name, p.Index)
			}
			s.row(name, p.State, dash(short(p.Why, 70)), dash(p.Node), p.Name)
		}
		if j.Attempts > 0 {
			s.notes = append(s.notes, fmt.Sprintf("%d pods have failed; indexes given up: %s", j.Attempts, dash(j.Failed)))
		}
		for _, p := range j.Findings {
			what := p.What
			if n := len(p.Pods); n > 0 {
				what = fmt.Sprintf("%d of %d: %s", n, len(j.Replicas), what)
			}
			s.notes = append(s.notes, "problem: "+what, "    fix: "+p.Fix)
		}
		return s
	}
}
