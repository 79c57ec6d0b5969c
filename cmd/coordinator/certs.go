package main

import (
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/certs"
)

func newCertsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "certs",
		Short: "Make the certificates of a cluster",
		Long: `Make the certificates of a cluster: an authority once, and from it one certificate for each coordinator.
Replicas and clients need the authority's certificate, ca.pem; one of their own only where something in between asks for it.`,
	}
	cmd.AddCommand(newCertsInitCommand(), newCertsIssueCommand())
	return cmd
}

// certsFlags are the flags of both commands.
type certsFlags struct {
	dir  string
	days int
}

func (f *certsFlags) add(cmd *cobra.Command, days int) {
	cmd.Flags().StringVar(&f.dir, "dir", "certs", "`folder` of the authority and its certificates")
	cmd.Flags().IntVar(&f.days, "days", days, "how long the certificate is valid")
}

// valid is the time that the flag says.
func (f *certsFlags) valid() (time.Duration, error) {
	const most = 100 * certs.Year
	if err := positive(map[string]int{"days": f.days}); err != nil {
		return 0, err
	}
	if f.days > int(most/(24*time.Hour)) {
		return 0, usageErrorf("--days: %d, want at most %d", f.days, int(most/(24*time.Hour)))
	}
	return time.Duration(f.days) * 24 * time.Hour, nil
}

func newCertsInitCommand() *cobra.Command {
	var f certsFlags
	cmd := &cobra.Command{
		Use:   "init CLUSTER",
		Short: "Make the authority of a cluster",
		Long: `Make the authority of a cluster: ca.pem, which everybody may have, and ca-key.pem, which lets anybody in: keep it
away from the coordinators. Files that exist are not overwritten.`,
		Example: "  coordinator certs init prod",
		Args:    exactlyOneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			valid, err := f.valid()
			if err != nil {
				return err
			}
			if err := certs.Init(f.dir, args[0], valid); err != nil {
				return err
			}
			return printf(cmd.OutOrStdout(), "%s/ca.pem, %s/ca-key.pem: cluster %s, valid for %d days\n", f.dir, f.dir, args[0], f.days)
		},
	}
	f.add(cmd, 3650)
	return cmd
}

func newCertsIssueCommand() *cobra.Command {
	var f certsFlags
	var hosts []string
	roles := []string{string(certs.Coordinator), string(certs.Replica), string(certs.Client)}
	cmd := &cobra.Command{
		Use:   "issue ROLE NAME",
		Short: "Make a certificate for a coordinator, a replica or a client",
		Long: `Make a certificate for a coordinator, a replica or a client: NAME.pem and NAME-key.pem beside the authority.
Files that exist are not overwritten. To renew a certificate, make the new one in a copy of the folder and move it over the
old one: whoever uses it takes it over by itself.`,
		Example: "  coordinator certs issue coordinator c0 --host c0.kelvin.svc,10.0.0.7\n  coordinator certs issue client me --days 30",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usageErrorf("%d arguments, want the role and the name: %s", len(args), cmd.UseLine())
			}
			return nil
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return roles, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(roles, args[0]) {
				return usageErrorf("role %q, want %s", args[0], oneOf(roles))
			}
			valid, err := f.valid()
			if err != nil {
				return err
			}
			ca, err := certs.OpenAuthority(f.dir)
			if err != nil {
				return err
			}
			request := certs.Request{Identity: certs.Identity{Role: certs.Role(args[0]), Name: args[1]}, Hosts: hosts, Valid: valid}
			cert, key, err := ca.Issue(request)
			if err != nil {
				return err
			}
			request.Cluster = ca.Cluster()
			return printf(cmd.OutOrStdout(), "%s, %s: %s, valid for %d days\n", cert, key, request.Identity, f.days)
		},
	}
	f.add(cmd, 365)
	cmd.Flags().StringSliceVar(&hosts, "host", nil, "DNS `name` or IP address that others reach it by; several, or several times")
	return cmd
}
