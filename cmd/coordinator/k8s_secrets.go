package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/certs"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/kube"
)

// mostCoordinators is more than a quorum is good for.
const mostCoordinators = 9

func newKubernetesCertsCommand() *cobra.Command {
	var k kubeFlags
	var dir, name, output string
	var coordinators int
	var hosts []string
	cmd := &cobra.Command{
		Use:   "certs",
		Short: "Make the certificates of coordinators in Kubernetes, and their Secret",
		Long: `Make the authority of a cluster and a certificate for each of its coordinators, under the names that they have in k8s/, and put
them into the Secret kelvin-tls. What is in --dir is kept, and only what is missing made: given again, it writes the same Secret.
The key of the authority stays in --dir. With -o the Secret is written here, and Kubernetes is left alone.`,
		Example: "  coordinator k8s certs\n  coordinator k8s certs --namespace kelvin-test --host kelvin.example.org -o yaml | kubectl apply -f -",
		Args:    cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.StringVar(&dir, "dir", "certs", "`folder` of the authority and its certificates")
	flags.StringVar(&name, "secret", "kelvin-tls", "that they go to")
	flags.IntVar(&coordinators, "coordinators", 3, "how many there are")
	flags.StringSliceVar(&hosts, "host", nil, "a further `name` or address that people reach them by")
	flags.StringVarP(&output, "output", "o", "", "yaml or json: write the Secret here")
	k.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if coordinators < 1 || coordinators > mostCoordinators {
			return usageErrorf("--coordinators: %d, want 1 to %d", coordinators, mostCoordinators)
		}
		if output != "" && output != "yaml" && output != "json" {
			return usageErrorf("-o: %q, want yaml or json", output)
		}
		files, err := coordinatorCertificates(dir, k.Namespace, coordinators, hosts)
		if err != nil {
			return err
		}
		secret := kube.NewSecret(name, k.Namespace, files)
		if output != "" {
			return printObject(cmd.OutOrStdout(), output, secret)
		}
		client, err := kube.Open(k.Access)
		if err != nil {
			return err
		}
		if err := client.Apply(cmd.Context(), secret, kube.Really); err != nil {
			return err
		}
		return printf(cmd.OutOrStdout(), "secret %s in %s: certificates of %d coordinators; trust %s\n", name, k.Namespace, coordinators, filepath.Join(dir, "ca.pem"))
	}
	return cmd
}

// coordinatorCertificates are the files that coordinators in Kubernetes need. Those that are not there are made.
func coordinatorCertificates(dir, namespace string, n int, hosts []string) (map[string][]byte, error) {
	err := certs.Init(dir, "kelvin", 10*certs.Year)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	ca, err := certs.OpenAuthority(dir)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	if files["ca.pem"], err = os.ReadFile(filepath.Join(dir, "ca.pem")); err != nil {
		return nil, err
	}
	for i := range n {
		name := fmt.Sprintf("kelvin-%d", i)
		request := certs.Request{
			Identity: certs.Identity{Role: certs.Coordinator, Name: name}, Valid: certs.Year,
			Hosts: append([]string{fmt.Sprintf("%s.kelvin-peers.%s.svc", name, namespace), fmt.Sprintf("kelvin.%s.svc", namespace), "kelvin", "localhost", "127.0.0.1"}, hosts...),
		}
		if _, _, err := ca.Issue(request); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		cert, key := filepath.Join(dir, name+".pem"), filepath.Join(dir, name+"-key.pem")
		if err := serves(cert, key, request.Hosts); err != nil {
			return nil, err
		}
		for _, file := range []string{cert, key} {
			if files[filepath.Base(file)], err = os.ReadFile(file); err != nil {
				return nil, err
			}
		}
	}
	return files, nil
}

// serves says whether a certificate, which may be an older one, is good for the names of a coordinator.
func serves(cert, key string, hosts []string) error {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("%s: %w", cert, err)
	}
	if time.Now().After(pair.Leaf.NotAfter) {
		return fmt.Errorf("%s has expired, want it and %s removed: the next ones are made in their place", cert, key)
	}
	for _, host := range hosts {
		if pair.Leaf.VerifyHostname(host) != nil {
			return fmt.Errorf("%s is not for %s, want another --dir, or it and %s removed", cert, host, key)
		}
	}
	return nil
}

func newKubernetesTokenCommand() *cobra.Command {
	var cluster clusterFlags
	var k kubeFlags
	var name string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make the token of replicas in Kubernetes, and their Secret",
		Long: `Make a token with which replicas ask for work, and put it into a Secret, with the authority that they are to trust. A token of
replicas is good for a day at most, and a pod that starts later needs another: give the command again before it ends, or let
k8s/components/join-token do so. It takes a token of the scope admin.`,
		Example: "  coordinator k8s token --server https://localhost:8443 --ca certs/ca.pem --token-file admin.token",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVar(&name, "secret", "kelvin-join", "that it goes to")
	cmd.Flags().DurationVar(&ttl, "ttl", 24*time.Hour, "how long it is good for")
	k.add(cmd)
	cluster.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if ttl <= 0 {
			return usageErrorf("--ttl: %v, want more than 0", ttl)
		}
		access, err := cluster.access()
		if err != nil {
			return err
		}
		if access.CA == "" {
			return usageErrorf("--ca: missing, want the authority of the coordinators: the replicas need it")
		}
		authority, err := os.ReadFile(access.CA)
		if err != nil {
			return usageErrorf("--ca: %w", err)
		}
		client, err := kube.Open(k.Access)
		if err != nil {
			return err
		}
		files := map[string][]byte{"ca.pem": authority, "token": nil}
		// What cannot be kept must not be made.
		if err := client.Apply(cmd.Context(), kube.NewSecret(name, k.Namespace, files), kube.Try); err != nil {
			return err
		}
		return cluster.with(cmd, func(ctx context.Context, c *api.Client) error {
			t, err := c.CreateToken(ctx, api.CreateToken{
				Name:  fmt.Sprintf("kubernetes-%s-%s", k.Namespace, time.Now().UTC().Format("20060102-150405")),
				Scope: api.ScopeJoin, TTLSeconds: ttl.Seconds(),
			})
			if err != nil {
				return err
			}
			files["token"] = []byte(t.Secret + "\n")
			if err := client.Apply(ctx, kube.NewSecret(name, k.Namespace, files), kube.Really); err != nil {
				return err
			}
			return printf(cmd.OutOrStdout(), "secret %s in %s: token %s, until %s\n", name, k.Namespace, t.Name, t.Expires.Local().Format(time.DateTime))
		})
	}
	return cmd
}
