package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/experiment"
)

const setUsage = "override a key: `a.b=c`, where c is YAML; may be given several times"

// addSetFlag gives a command that reads an experiment its --set flag.
func addSetFlag(cmd *cobra.Command) *[]string {
	return cmd.Flags().StringArray("set", nil, setUsage)
}

// loadExperiment reads an experiment. What is wrong with the file or the overrides is a mistake of usage.
func loadExperiment(path string, sets []string) (*experiment.Config, error) {
	c, err := experiment.Load(path, sets)
	var faults *experiment.Error
	if errors.As(err, &faults) {
		return nil, usageError{err}
	}
	return c, err
}

// exactlyOneFile is cobra's ExactArgs(1) with an error that helps.
func exactlyOneFile(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageErrorf("%d files, want one: %s", len(args), cmd.UseLine())
	}
	return nil
}

func newConfigCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Explain or check an experiment's file",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newConfigValidateCommand(), newConfigExplainCommand(), newConfigSchemaCommand(), newConfigReferenceCommand())
	return cmd
}

func newConfigValidateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "validate FILE",
		Short: "Check an experiment, and show every fault at once",
		Long: `Check an experiment without running it, and show every fault at once, each with its place in the file and what would
be right. Exits with 2 if there is one. Files of data are not opened.`,
		Example: "  coordinator config validate examples/two-moons.yaml --set train.steps=100",
		Args:    exactlyOneFile,
	}
	sets := addSetFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := loadExperiment(args[0], *sets)
		if err != nil {
			return err
		}
		length := fmt.Sprintf("%d steps", c.Train.Steps)
		if c.Train.Epochs > 0 {
			length = fmt.Sprintf("%d epochs", c.Train.Epochs)
		}
		chains := ""
		if c.Tempering.Rungs > 0 {
			chains = fmt.Sprintf(", %d chains on %d %s", c.Tempering.Chains, c.Tempering.Rungs, plural(c.Tempering.Rungs, "rung"))
		}
		fmt.Fprintf(cmd.OutOrStdout(), "ok: %s: %s with %s on %s, %s%s, %s of batch %d, backend %s\n",
			c.Name, c.Model.Kind, c.Loss.Kind, c.Data.Dataset, c.Sampler.Kind, chains, length, c.Train.Batch, c.Backend.Kind)
		return nil
	}
	return cmd
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

func newConfigExplainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain FILE",
		Short: "Show every key with its value, what it does, and who set it",
		Long: `Show the experiment as it would run: every key with its value, what it does, and whether the file (with the line), a
flag or the default decided it. The output is an experiment's file itself.`,
		Example: "  coordinator config explain examples/two-moons.yaml",
		Args:    exactlyOneFile,
	}
	sets := addSetFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := loadExperiment(args[0], *sets)
		if err != nil {
			return err
		}
		text, err := experiment.Explain(c)
		if err != nil {
			return err
		}
		_, err = fmt.Fprint(cmd.OutOrStdout(), text)
		return err
	}
	return cmd
}

func newConfigSchemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON schema of an experiment's file",
		Long: `Print the JSON schema of an experiment's file. Editors complete and check the keys with it; with the YAML language
server, put this line on top of the file:

  # yaml-language-server: $schema=kelvin.schema.json`,
		Example: "  coordinator config schema > kelvin.schema.json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			schema, err := experiment.Schema()
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(schema)
			return err
		},
	}
}
