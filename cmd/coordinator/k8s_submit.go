package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/kube"
)

func newKubernetesSubmitCommand() *cobra.Command {
	var cluster clusterFlags
	var k kubeFlags
	var f jobFlags
	var out outputFlag
	var s submission
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
	s.add(cmd, "in the pods", "check everything and start nothing")
	k.add(cmd)
	f.add(cmd)
	cluster.add(cmd)
	out.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := out.check(); err != nil {
			return err
		}
		if err := s.read(cmd, args[0], *sets); err != nil {
			return err
		}
		client, err := kube.Open(k.Access)
		if err != nil {
			return err
		}
		return cluster.with(cmd, func(ctx context.Context, c *api.Client) error {
			exp, err := startBoth(ctx, c, client, s.Submit, &f)
			if err != nil {
				return err
			}
			return s.follow(ctx, cmd, c, out, exp)
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
