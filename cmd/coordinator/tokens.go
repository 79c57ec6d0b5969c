package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
)

func newTokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make, list and revoke the tokens that commands and replicas show",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	list := noun{"ls", []string{"list"}, "List the tokens, without their secrets", "", func(ctx context.Context, c *api.Client, _ string) (shown, error) {
		l, err := c.Tokens(ctx)
		return listed(l, err, tokenSheet(l.Items))
	}}
	cmd.AddCommand(newTokenCreateCommand(), list.command(), newTokenRevokeCommand(), newTokenBootstrapCommand())
	return cmd
}

func newTokenCreateCommand() *cobra.Command {
	var cluster clusterFlags
	var out outputFlag
	var t api.CreateToken
	var ttl time.Duration
	var file string
	scopes := []string{api.ScopeRead, api.ScopeOperate, api.ScopeAdmin, api.ScopeJoin}
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a token",
		Long: `Make a token. Its secret is shown this once, alone on the standard output, or is written to the file of --out, which only
its owner can read. The scopes: read; operate: submit, pause, scale …; admin: tokens, members, quotas and backups too;
join: for replicas, who may ask for work and nothing else.`,
		Example: `  coordinator token create ada --scope operate --owner ada --ttl 720h --out ada.token
  coordinator token create gpus --scope join --ttl 8h --uses 16 > replicas.token`,
		Args: exactlyOneName, ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	f.StringVar(&t.Scope, "scope", api.ScopeRead, "what it allows: "+oneOf(scopes))
	f.StringVar(&t.Owner, "owner", "", "whose quota the experiments count for that are submitted with it (default: its name)")
	f.StringVar(&t.Experiments, "experiments", "", "the only experiment that it is for, or those whose names begin so: ada-* (default: all)")
	f.DurationVar(&ttl, "ttl", 0, "how long it is good for (default: for ever; of the scope join 24h, which is the most)")
	f.Uint32Var(&t.Uses, "uses", 0, "how many replicas may use it, of the scope join (default: any number)")
	f.StringVar(&file, "out", "", "`file` for the secret, in place of the standard output")
	cluster.add(cmd)
	out.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := out.check(); err != nil {
			return err
		}
		switch {
		case !slices.Contains(scopes, t.Scope):
			return usageErrorf("--scope: %q, want %s", t.Scope, oneOf(scopes))
		case ttl < 0:
			return usageErrorf("--ttl: %v, want more than 0", ttl)
		case t.Uses > 0 && t.Scope != api.ScopeJoin:
			return usageErrorf("--uses: are counted of the scope join alone, not of %s", t.Scope)
		}
		if t.Owner == "" && t.Scope != api.ScopeJoin {
			t.Owner = args[0]
		}
		t.Name, t.TTLSeconds = args[0], ttl.Seconds()
		return cluster.with(cmd, func(ctx context.Context, c *api.Client) error {
			return keepSecret(cmd, out, file, func() (api.NewToken, error) { return c.CreateToken(ctx, t) })
		})
	}
	return cmd
}

// keepSecret makes a token and shows its secret, or writes it to a file, which is made first: a secret that cannot be kept
// must not be made.
func keepSecret(cmd *cobra.Command, out outputFlag, file string, make func() (api.NewToken, error)) (err error) {
	var f *os.File
	if file != "" {
		if f, err = os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err != nil {
			return fmt.Errorf("--out: %w, want a new file", err)
		}
		defer func() {
			err = errors.Join(err, f.Close())
			if err != nil {
				err = errors.Join(err, os.Remove(file))
			}
		}()
	}
	t, err := make()
	if err != nil {
		return err
	}
	if file != "" {
		if _, err := fmt.Fprintln(f, t.Secret); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		t.Secret = ""
	}
	if out.format != "table" && out.format != "wide" {
		return out.print(cmd.OutOrStdout(), t)
	}
	until := ""
	if t.Expires != nil {
		until = ", until " + t.Expires.Local().Format(time.DateTime)
	}
	if err := printf(cmd.ErrOrStderr(), "token %s, scope %s%s\n", t.Name, t.Scope, until); err != nil || file != "" {
		return err
	}
	return printf(cmd.OutOrStdout(), "%s\n", t.Secret)
}

func newTokenRevokeCommand() *cobra.Command {
	var cluster clusterFlags
	cmd := &cobra.Command{
		Use: "revoke NAME", Short: "Make a token worthless at once", Example: "  coordinator token revoke ada",
		Args: exactlyOneName, ValidArgsFunction: cobra.NoFileCompletions,
	}
	cluster.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return cluster.with(cmd, func(ctx context.Context, c *api.Client) error {
			if err := c.RevokeToken(ctx, args[0]); err != nil {
				return err
			}
			return printf(cmd.OutOrStdout(), "token %s is revoked\n", args[0])
		})
	}
	return cmd
}

func newTokenBootstrapCommand() *cobra.Command {
	var cluster clusterFlags
	var out outputFlag
	var file string
	cmd := &cobra.Command{
		Use:   "bootstrap",
		Short: "Get the first token of a new cluster",
		Long: `Get the first token of a new cluster, of the scope admin: on the machine of a coordinator, or with the token in the file
admin-token that the first leader wrote into its data folder (--token-file). It can be had again, with another secret, until it
is used; then that file is worthless.`,
		Example: "  coordinator token bootstrap --server https://localhost:8443 --ca ca.pem --out admin.token",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVar(&file, "out", "", "`file` for the secret, in place of the standard output")
	cluster.add(cmd)
	out.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := out.check(); err != nil {
			return err
		}
		return cluster.with(cmd, func(ctx context.Context, c *api.Client) error {
			return keepSecret(cmd, out, file, func() (api.NewToken, error) { return c.Bootstrap(ctx) })
		})
	}
	return cmd
}
