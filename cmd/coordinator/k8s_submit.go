package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/experiment"
	"github.com/kelvin-ebm/kelvin/pkg/kube"
)

func newKubernetesSubmitCommand() *cobra.Command {
	var cluster clusterFlags
	var k kubeFlags
	var f jobFlags
	var out outputFlag
	var s api.Submit
	var wait string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "submit FILE",
		Short: "Give an experiment to the coordinators, and start its Job",
		Long: `Give an experiment to the coordinators, and start the Job of its replicas. First both are tried out: what the coordinators or
Kubernetes would refuse stops it before anything is there. The Job ends with the experiment.`,
		Example: `  coordinator k8s submit examples/replicas.yaml --replicas 4 --standbys 1 --wait=completed
  coordinator k8s submit digits.yaml --gpu --memory 16Gi --dir /data --data digits=/data`,
		Args: exactlyOneFile,
	}
	sets := addSetFlag(cmd)
	flags := cmd.Flags()
	flags.StringVar(&s.Name, "name", "", "of the experiment (default: that in the file)")
	flags.StringVar(&s.Dir, "dir", "", "where relative paths start, in the pods (default: the folder of the file)")
	flags.StringVar(&s.Owner, "owner", "", "whose quota counts (default: the token's; another needs the scope admin)")
	flags.Uint32Var(&s.MinReplicas, "min-replicas", 1, "replicas to begin with")
	flags.Int32Var(&s.Priority, "priority", 0, "the higher begins first, then the older")
	flags.BoolVar(&s.DryRun, "dry-run", false, "check everything and start nothing")
	flags.StringVar(&wait, "wait", "", "wait until it is running or completed")
	flags.Lookup("wait").NoOptDefVal = api.Completed
	flags.DurationVar(&timeout, "timeout", 0, "end the waiting after so long (default: never)")
	k.add(cmd)
	f.add(cmd)
	cluster.add(cmd)
	out.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := out.check(); err != nil {
			return err
		}
		if wait != "" && wait != api.Running && wait != api.Completed {
			return usageErrorf("--wait: %q, want running or completed", wait)
		}
		if err := checkTimeout(timeout, wait != ""); err != nil {
			return err
		}
		cfg, err := readExperiment(args[0], *sets, cmd.InOrStdin())
		if err != nil {
			return err
		}
		text, err := experiment.Marshal(cfg)
		if err != nil {
			return err
		}
		s.YAML = string(text)
		if s.Dir == "" {
			if s.Dir, err = filepath.Abs(cfg.Dir); err != nil {
				return err
			}
		}
		client, err := kube.Open(k.Access)
		if err != nil {
			return err
		}
		return cluster.with(cmd, func(ctx context.Context, c *api.Client) error {
			exp, err := startBoth(ctx, c, client, s, &f)
			if err != nil {
				return err
			}
			if wait != "" && !s.DryRun {
				if err := say(cmd, out, "%s submitted; waiting until it is %s …\n", exp.Name, wait); err != nil {
					return err
				}
				if exp, err = waitPhase(ctx, c, exp.Name, wait, timeout); err != nil {
					return err
				}
			}
			return out.print(cmd.OutOrStdout(), exp, experimentSheet([]api.Experiment{exp}))
		})
	}
	return cmd
}

// startBoth tries both out, then submits the experiment and starts its Job.
func startBoth(ctx context.Context, c *api.Client, k *kube.Client, s api.Submit, f *jobFlags) (api.Experiment, error) {
	try := s
	try.DryRun, try.Replicas = true, uint32(max(f.replicas.Replicas, 0))
	exp, err := c.Submit(ctx, try)
	if err != nil {
		return exp, err
	}
	r, err := f.settle(exp.Name, k.Namespace(), int(exp.Shards))
	if err != nil {
		return exp, err
	}
	job, err := kube.NewJob(r)
	if err != nil {
		return exp, err
	}
	if err := k.Apply(ctx, job, kube.Try); err != nil || s.DryRun {
		return exp, err
	}
	s.Replicas = uint32(r.Replicas)
	if exp, err = c.Submit(ctx, s); err != nil {
		return exp, err
	}
	if err := k.Apply(ctx, job, kube.Really); err != nil {
		return exp, partialError{fmt.Errorf("%s is submitted, but its Job is not there; `coordinator k8s job %s` tries again: %w", exp.Name, exp.Name, err)}
	}
	return exp, nil
}

func newKubernetesJobCommand() *cobra.Command {
	var cluster clusterFlags
	var k kubeFlags
	var f jobFlags
	cmd := &cobra.Command{
		Use:   "job NAME",
		Short: "Start the Job of an experiment that the coordinators have",
		Long: `Start the Job of an experiment that the coordinators have, or change one to what the flags say. The default is as many replicas
as the experiment may have.`,
		Example: "  coordinator submit examples/replicas.yaml && coordinator k8s job replicas --standbys 1",
		Args:    exactlyOneName, ValidArgsFunction: cluster.complete,
	}
	k.add(cmd)
	f.add(cmd)
	cluster.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		client, err := kube.Open(k.Access)
		if err != nil {
			return err
		}
		return cluster.with(cmd, func(ctx context.Context, c *api.Client) error {
			exp, err := c.Experiment(ctx, args[0])
			if err != nil {
				return err
			}
			if api.Final(exp.Phase) {
				return &api.Error{Code: api.Conflict, Message: fmt.Sprintf("%s is %s: replicas would find nothing to do", exp.Name, exp.Phase)}
			}
			if f.replicas.Replicas == 0 {
				f.replicas.Replicas = int(mostReplicas(exp))
			}
			r, err := f.settle(exp.Name, client.Namespace(), int(exp.Shards))
			if err != nil {
				return err
			}
			job, err := kube.NewJob(r)
			if err != nil {
				return err
			}
			if err := client.Apply(ctx, job, kube.Really); err != nil {
				return err
			}
			return printf(cmd.OutOrStdout(), "job %s in %s: %d replicas and %d standbys\n", exp.Name, client.Namespace(), r.Replicas, r.Standbys)
		})
	}
	return cmd
}
