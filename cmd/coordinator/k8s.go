package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/experiment"
	"github.com/kelvin-ebm/kelvin/pkg/kube"
	"github.com/kelvin-ebm/kelvin/pkg/local"
)

func newKubernetesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "k8s",
		Aliases: []string{"kubernetes"},
		Short:   "Run the replicas of experiments as Jobs of Kubernetes",
		Long: `Run the replicas of experiments as Jobs of Kubernetes. The coordinators are in k8s/ of Kelvin's repository; docs/kubernetes.md
goes from nothing to an experiment that runs.

The cluster is that of kubectl: of --kubeconfig or KUBECONFIG, else of ~/.kube/config, else that of the pod that this runs in.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newKubernetesRenderCommand(), newKubernetesSubmitCommand(), newKubernetesJobCommand(), newKubernetesScaleCommand(),
		newKubernetesStatusCommand(), newKubernetesCertsCommand(), newKubernetesTokenCommand())
	return cmd
}

// kubeFlags say which Kubernetes, and where in it.
type kubeFlags struct{ kube.Access }

func (f *kubeFlags) add(cmd *cobra.Command) {
	addNamespaceFlag(cmd, &f.Namespace)
	cmd.Flags().StringVar(&f.Kubeconfig, "kubeconfig", "", "`file` in place of the variable KUBECONFIG and of ~/.kube/config")
	cmd.Flags().StringVar(&f.Context, "kube-context", "", "`name` of the context in it (default: the current one)")
}

func addNamespaceFlag(cmd *cobra.Command, into *string) {
	cmd.Flags().StringVarP(into, "namespace", "n", "kelvin", "of Kubernetes")
}

// jobFlags say what a Job is made of, beside the experiment and the namespace.
type jobFlags struct {
	replicas kube.Replicas
	data     []string
}

func (f *jobFlags) add(cmd *cobra.Command) {
	r, flags := &f.replicas, cmd.Flags()
	flags.IntVar(&r.Replicas, "replicas", 0, "replicas that have work (default: one for each shard, which is the most)")
	flags.IntVar(&r.Standbys, "standbys", 0, "replicas that wait to take the place of one")
	flags.StringVar(&r.Image, "image", "", "with the program replica (default: "+defaultImage(false)+", of --gpu …-cuda13)")
	flags.BoolVar(&r.GPU, "gpu", false, "one of NVIDIA's GPUs for each")
	flags.StringVar(&r.CPU, "cpu", "2", "processors of each")
	flags.StringVar(&r.Memory, "memory", "4Gi", "memory of each")
	flags.StringSliceVar(&r.Coordinators, "coordinator-url", nil, "`URLs` of the coordinators, from the pods (default: https://kelvin.NAMESPACE.svc:8443)")
	flags.StringVar(&r.Secret, "secret", "kelvin-join", "with the token of the replicas and the authority to trust; see coordinator k8s token")
	flags.StringVar(&r.Queue, "queue", "", "LocalQueue of Kueue that has to admit the Job")
	flags.StringArrayVar(&f.data, "data", nil, "claim=/path: a PersistentVolumeClaim with data, to be read there; several times for several")
}

// defaultImage is the one that belongs to this program.
func defaultImage(gpu bool) string {
	flavor := "cpu"
	if gpu {
		flavor = "cuda13"
	}
	tag := strings.ReplaceAll(strings.TrimPrefix(version(), "v"), "+", "-") // a tag has no +
	return "ghcr.io/kelvin-ebm/kelvin:" + tag + "-" + flavor
}

// settle fills in what follows from the experiment: its name and its number of shards.
func (f *jobFlags) settle(name, namespace string, shards int) (kube.Replicas, error) {
	r := f.replicas
	r.Experiment, r.Namespace = name, namespace
	r.Replicas = cmp.Or(r.Replicas, shards)
	if r.Replicas > shards {
		return r, usageErrorf("--replicas: %d, but the experiment has %d shards, want at most so many: others would stand by, see --standbys", r.Replicas, shards)
	}
	r.Image = cmp.Or(r.Image, defaultImage(r.GPU))
	if len(r.Coordinators) == 0 {
		r.Coordinators = []string{fmt.Sprintf("https://kelvin.%s.svc:8443", namespace)}
	}
	for _, text := range f.data {
		claim, err := kube.ParseClaim(text)
		if err != nil {
			return r, usageErrorf("--data: %w", err)
		}
		r.Data = append(r.Data, claim)
	}
	if err := r.Validate(); err != nil {
		return r, usageError{err}
	}
	return r, nil
}

func newKubernetesRenderCommand() *cobra.Command {
	var f jobFlags
	var name, namespace, output string
	cmd := &cobra.Command{
		Use:   "render FILE",
		Short: "Write the Job of an experiment's replicas",
		Long: `Write the Job of an experiment's replicas, for kubectl or a repository, without a connection to anything. Its indexes are as
many as there are replicas and standbys. The experiment itself goes to the coordinators by coordinator submit; coordinator k8s
submit does both.`,
		Example: `  coordinator k8s render examples/replicas.yaml --standbys 1 > job.yaml
  coordinator k8s render digits.yaml --gpu --memory 16Gi --data digits=/data -o json`,
		Args: exactlyOneFile,
	}
	sets := addSetFlag(cmd)
	cmd.Flags().StringVar(&name, "name", "", "of the experiment (default: that in the file)")
	addNamespaceFlag(cmd, &namespace)
	f.add(cmd)
	check := addOutputFlag(cmd, &output, "yaml", "yaml", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := check(); err != nil {
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
		dir, err := filepath.Abs(cfg.Dir)
		if err != nil {
			return err
		}
		led, err := local.Lead(text, dir)
		if err != nil {
			return err
		}
		r, err := f.settle(cmp.Or(name, cfg.Name), namespace, led.Layout.NumShards())
		if err != nil {
			return err
		}
		job, err := kube.NewJob(r)
		if err != nil {
			return err
		}
		return printObject(cmd.OutOrStdout(), output, job)
	}
	return cmd
}

func printObject(w io.Writer, format string, o kube.Object) error {
	encode := kube.YAML
	if format == "json" {
		encode = kube.JSON
	}
	text, err := encode(o)
	if err != nil {
		return err
	}
	return printf(w, "%s\n", strings.TrimSuffix(string(text), "\n"))
}

func newKubernetesScaleCommand() *cobra.Command {
	var cluster clusterFlags
	var f kubeFlags
	var replicas, standbys int
	cmd := &cobra.Command{
		Use:   "scale NAME",
		Short: "Change the number of replicas of an experiment while it runs",
		Long: `Change the number of replicas of an experiment while it runs, and the size of its Job with it. The shards move at a fresh cut:
nothing is redone, and the numbers of the training stay the same. It may be given again when it failed half-way.`,
		Example: "  coordinator k8s scale replicas --replicas 3",
		Args:    exactlyOneName, ValidArgsFunction: cluster.complete,
	}
	cmd.Flags().IntVar(&replicas, "replicas", 0, "replicas that have work")
	cmd.Flags().IntVar(&standbys, "standbys", -1, "replicas that wait to take the place of one (default: as many as there are)")
	f.add(cmd)
	cluster.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case replicas < 1:
			return usageErrorf("--replicas: %d, want at least 1; `coordinator pause` gives them all back", replicas)
		case standbys < 0 && cmd.Flags().Changed("standbys"):
			return usageErrorf("--standbys: %d, want 0 or more", standbys)
		}
		k, err := kube.Open(f.Access)
		if err != nil {
			return err
		}
		return cluster.with(cmd, func(ctx context.Context, c *api.Client) error {
			exp, err := c.Experiment(ctx, args[0])
			if err != nil {
				return err
			}
			if replicas > int(exp.Shards) {
				return usageErrorf("--replicas: %d, but %s has %d shards, want at most so many: others would stand by, see --standbys", replicas, exp.Name, exp.Shards)
			}
			job, err := k.Job(ctx, exp.Name)
			if err != nil {
				return err
			}
			had := 0
			if job.Spec.Completions != nil {
				had = int(*job.Spec.Completions)
			}
			if standbys < 0 {
				standbys = max(0, had-int(mostReplicas(exp)))
			}
			return scale(cmd, c, k, exp, scaling{had: had, replicas: replicas, standbys: standbys})
		})
	}
	return cmd
}

type scaling struct{ had, replicas, standbys int }

// scale grows by letting the experiment have more first, and shrinks by taking pods away first: those of the highest indexes
// leave, and no others have to.
func scale(cmd *cobra.Command, c *api.Client, k *kube.Client, exp api.Experiment, s scaling) error {
	pods, want := s.replicas+s.standbys, uint32(s.replicas)
	experiment := func(ctx context.Context) error {
		_, err := c.Patch(ctx, exp.Name, api.Patch{Replicas: &want}, 0)
		return err
	}
	steps := []func(context.Context) error{experiment, func(ctx context.Context) error { return k.Scale(ctx, exp.Name, pods) }}
	if pods < s.had {
		steps[0], steps[1] = steps[1], steps[0]
	}
	for i, step := range steps {
		err := step(cmd.Context())
		if err != nil && i > 0 {
			return partialError{fmt.Errorf("half of it is done, give the command again: %w", err)}
		}
		if err != nil {
			return err
		}
	}
	return printf(cmd.OutOrStdout(), "%s is to have %d replicas and %d standbys\n", exp.Name, s.replicas, s.standbys)
}
