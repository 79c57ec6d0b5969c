package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/certs"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/local"
)

// Variables of the environment that stand for flags.
const (
	serverVariable = "KELVIN_SERVER" // --server
	caVariable     = "KELVIN_CA"     // --ca
	configVariable = "KELVIN_CONFIG" // the file of contexts
)

// contextFile is the file of contexts: clusters that commands can be sent to without naming them again.
type contextFile struct {
	Current  string          `yaml:"current,omitempty" json:"current,omitempty"`
	Contexts []clusterAccess `yaml:"contexts" json:"contexts"`
}

// clusterAccess says where the coordinators of a cluster are and how a client shows itself.
type clusterAccess struct {
	Name      string   `yaml:"name" json:"name"`
	Endpoints []string `yaml:"endpoints" json:"endpoints"`
	CA        string   `yaml:"ca,omitempty" json:"ca,omitempty"`                 // file of the certificates to trust; "": the system's
	TokenFile string   `yaml:"token_file,omitempty" json:"token_file,omitempty"` // "": KELVIN_TOKEN
	Insecure  bool     `yaml:"insecure,omitempty" json:"insecure,omitempty"`     // without TLS anywhere
}

// contextPath is where the contexts are kept.
func contextPath() (string, error) {
	if path := os.Getenv(configVariable); path != "" {
		return path, nil
	}
	dir := os.Getenv("XDG_CONFIG_HOME")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("contexts: %w, want %s with the path of a file", err, configVariable)
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "kelvin", "config.yaml"), nil
}

// readContexts reads the file of contexts; one that is not there has none.
func readContexts() (contextFile, error) {
	var f contextFile
	path, err := contextPath()
	if err != nil {
		return f, err
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return f, fmt.Errorf("contexts: %w", err)
	}
	if err := yaml.UnmarshalWithOptions(text, &f, yaml.Strict()); err != nil {
		line, _, _ := strings.Cut(err.Error(), "\n")
		return f, usageErrorf("contexts: %s: %s", path, line)
	}
	return f, nil
}

func (f contextFile) write() error {
	path, err := contextPath()
	if err != nil {
		return err
	}
	text, err := yaml.Marshal(f)
	if err != nil {
		return fmt.Errorf("contexts: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("contexts: %w", err)
	}
	return local.WriteFile(path, text)
}

func (f contextFile) find(name string) int {
	return slices.IndexFunc(f.Contexts, func(c clusterAccess) bool { return c.Name == name })
}

// errNoContext is a *api.Error, for its code.
func errNoContext(name string) error {
	return &api.Error{Code: api.NotFound, Message: fmt.Sprintf("context %q: there is none", name), Next: "see `coordinator ctx list`"}
}

// clusterFlags are the flags of commands that talk to coordinators.
type clusterFlags struct {
	server              []string
	tokenFile, ca, name string
	insecure            bool
	patience            time.Duration
}

func (f *clusterFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&f.server, "server", nil, "`URLs` of the coordinators, with commas between (default: the variable "+serverVariable+", else the current context)")
	cmd.Flags().StringVar(&f.tokenFile, "token-file", "", "`file` with the token (default: the variable "+local.TokenVariable+", else the context's)")
	cmd.Flags().StringVar(&f.ca, "ca", "", "`file` with the certificates of authorities to trust (default: the variable "+caVariable+", else the context's)")
	cmd.Flags().BoolVar(&f.insecure, "insecure", false, "talk without TLS to any address, where something else encrypts the network (default: the variable "+local.InsecureVariable+", else the context's)")
	cmd.Flags().StringVar(&f.name, "context", "", "`name` of the context to use in place of the current one")
	cmd.Flags().DurationVar(&f.patience, "patience", 10*time.Second, "how long to try again while no coordinator answers or none leads; 0 tries once")
	if err := cmd.RegisterFlagCompletionFunc("context", completeContexts); err != nil {
		panic(err) // the flag is there
	}
}

// named says whether a cluster is named by a flag.
func (f *clusterFlags) named() bool { return len(f.server) > 0 || f.name != "" }

// access is the cluster that flags, environment and contexts come to. A token of a context is never sent to another server
// than the context's.
func (f *clusterFlags) access() (clusterAccess, error) {
	var a clusterAccess
	switch servers := os.Getenv(serverVariable); {
	case len(f.server) > 0 && f.name != "":
		return a, usageErrorf("--server, --context: both name a cluster, want one of them")
	case len(f.server) > 0:
		a.Endpoints = f.server
	case servers != "" && f.name == "":
		a.Endpoints = strings.Split(servers, ",")
	default:
		file, err := readContexts()
		if err != nil {
			return a, err
		}
		name := f.name
		if name == "" {
			if name = file.Current; name == "" {
				return a, usageErrorf("no coordinator known: want --server URL, %s, or a context: `coordinator ctx set NAME --server URL`", serverVariable)
			}
		}
		i := file.find(name)
		if i < 0 {
			return a, errNoContext(name)
		}
		a = file.Contexts[i]
	}
	if f.tokenFile != "" {
		a.TokenFile = f.tokenFile
	} else if os.Getenv(local.TokenVariable) != "" {
		a.TokenFile = ""
	}
	if f.ca != "" {
		a.CA = f.ca
	} else if ca := os.Getenv(caVariable); ca != "" {
		a.CA = ca
	}
	a.Insecure = a.Insecure || f.insecure || os.Getenv(local.InsecureVariable) == "1"
	return a, nil
}

// open makes a client. Close it.
func (f *clusterFlags) open() (*api.Client, error) {
	if f.patience < 0 {
		return nil, usageErrorf("--patience: %v, want 0 or more", f.patience)
	}
	a, err := f.access()
	if err != nil {
		return nil, err
	}
	cfg := api.Config{Endpoints: a.Endpoints, Token: os.Getenv(local.TokenVariable), Patience: max(f.patience, 1), Insecure: a.Insecure}
	if a.TokenFile != "" {
		if cfg.Token, err = local.ReadToken(a.TokenFile); err != nil {
			return nil, usageError{err}
		}
	}
	if a.CA != "" {
		loaded, err := certs.Load(certs.Files{CA: a.CA}, nil)
		if err != nil {
			return nil, usageErrorf("--ca: %w", err)
		}
		cfg.TLS = loaded.Client()
	}
	client, err := api.New(cfg)
	if err != nil {
		return nil, usageErrorf("--server: %w", err)
	}
	return client, nil
}

// with calls do with a client.
func (f *clusterFlags) with(cmd *cobra.Command, do func(ctx context.Context, c *api.Client) error) error {
	c, err := f.open()
	if err != nil {
		return err
	}
	defer c.Close()
	return do(cmd.Context(), c)
}

// withUntilInterrupt is with for commands that go on until Ctrl-C, which is no failure of theirs.
func (f *clusterFlags) withUntilInterrupt(cmd *cobra.Command, do func(ctx context.Context, c *api.Client) error) error {
	err := f.with(cmd, do)
	if cmd.Context().Err() != nil {
		return nil
	}
	return err
}

func newContextCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "ctx",
		Aliases: []string{"context"},
		Short:   "Remember clusters by name",
		Long: `Remember clusters by name: the URLs of their coordinators, the authorities to trust, and the file of a token. They are kept
in ~/.config/kelvin/config.yaml, or below XDG_CONFIG_HOME, or in the file that KELVIN_CONFIG names. Commands go to the
current one, unless --server, --context or KELVIN_SERVER says otherwise.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newContextListCommand(), newContextUseCommand(), newContextSetCommand(), newContextCurrentCommand(), newContextDeleteCommand())
	return cmd
}

func newContextListCommand() *cobra.Command {
	var out outputFlag
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the contexts", Args: cobra.NoArgs}
	out.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := out.check(); err != nil {
			return err
		}
		f, err := readContexts()
		if err != nil {
			return err
		}
		if f.Contexts == nil {
			f.Contexts = []clusterAccess{}
		}
		return out.print(cmd.OutOrStdout(), f, func() *sheet {
			s := &sheet{header: []string{"current", "name", "endpoints", "token file", "CA"}, wide: 2}
			for _, c := range f.Contexts {
				mark := ""
				if c.Name == f.Current {
					mark = "*"
				}
				s.row(mark, c.Name, strings.Join(c.Endpoints, ", "), dash(c.TokenFile), dash(c.CA))
			}
			return s
		})
	}
	return cmd
}

func newContextUseCommand() *cobra.Command {
	return &cobra.Command{
		Use: "use NAME", Short: "Make a context the current one", Args: exactlyOneName, ValidArgsFunction: completeContexts,
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := readContexts()
			if err != nil {
				return err
			}
			i := f.find(args[0])
			if i < 0 {
				return errNoContext(args[0])
			}
			f.Current = args[0]
			if err := f.write(); err != nil {
				return err
			}
			return printf(cmd.OutOrStdout(), "commands go to %s: %s\n", args[0], strings.Join(f.Contexts[i].Endpoints, ", "))
		},
	}
}

func newContextSetCommand() *cobra.Command {
	var server []string
	var tokenFile, ca string
	var insecure bool
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Make a context, or change one",
		Long: `Make a context, or change what the flags name of one. The first context becomes the current one. Only the name of the
token's file is kept, never the token.`,
		Example: "  coordinator ctx set lab --server https://a.lab:8443,https://b.lab:8443 --ca lab-ca.pem --token-file ~/.kelvin-token",
		Args:    exactlyOneName, ValidArgsFunction: completeContexts,
	}
	cmd.Flags().StringSliceVar(&server, "server", nil, "`URLs` of the coordinators, with commas between")
	cmd.Flags().StringVar(&tokenFile, "token-file", "", "`file` with the token")
	cmd.Flags().StringVar(&ca, "ca", "", "`file` with the certificates of authorities to trust")
	cmd.Flags().BoolVar(&insecure, "insecure", false, "talk without TLS to any address, where something else encrypts the network")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		f, err := readContexts()
		if err != nil {
			return err
		}
		i := f.find(args[0])
		if i < 0 {
			if len(server) == 0 {
				return usageErrorf("--server: missing, want the URL of a coordinator for the new context %s", args[0])
			}
			f.Contexts, i = append(f.Contexts, clusterAccess{Name: args[0]}), len(f.Contexts)
		}
		c := &f.Contexts[i]
		if cmd.Flags().Changed("insecure") {
			c.Insecure = insecure
		}
		if len(server) > 0 {
			client, err := api.New(api.Config{Endpoints: server, Insecure: c.Insecure})
			if err != nil {
				return usageErrorf("--server: %w", err)
			}
			client.Close()
			c.Endpoints = server
		}
		// A relative path would mean another file in another folder.
		for _, file := range []struct {
			flag, value string
			into        *string
		}{{"token-file", tokenFile, &c.TokenFile}, {"ca", ca, &c.CA}} {
			if !cmd.Flags().Changed(file.flag) {
				continue
			}
			if *file.into = file.value; file.value != "" {
				if *file.into, err = filepath.Abs(file.value); err != nil {
					return fmt.Errorf("--%s: %w", file.flag, err)
				}
			}
		}
		if f.Current == "" {
			f.Current = args[0]
		}
		return f.write()
	}
	return cmd
}

func newContextCurrentCommand() *cobra.Command {
	return &cobra.Command{
		Use: "current", Short: "Print the name of the current context", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := readContexts()
			if err != nil {
				return err
			}
			if f.Current == "" {
				return &api.Error{Code: api.NotFound, Message: "no current context", Next: "`coordinator ctx use NAME` sets one"}
			}
			return printf(cmd.OutOrStdout(), "%s\n", f.Current)
		},
	}
}

func newContextDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Short: "Forget a context", Args: exactlyOneName, ValidArgsFunction: completeContexts,
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := readContexts()
			if err != nil {
				return err
			}
			i := f.find(args[0])
			if i < 0 {
				return errNoContext(args[0])
			}
			f.Contexts = slices.Delete(f.Contexts, i, i+1)
			if f.Current == args[0] {
				f.Current = ""
			}
			return f.write()
		},
	}
}

// exactlyOneName is cobra's ExactArgs(1) with an error that helps.
func exactlyOneName(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageErrorf("%d names, want one: %s", len(args), cmd.UseLine())
	}
	return nil
}
