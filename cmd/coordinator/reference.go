package main

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/reference"
)

func newConfigReferenceCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "reference",
		Short: "Write the reference of every component as Markdown",
		Long: `Write a page of Markdown for each family of components: energies and networks, losses, samplers, and what goes with them,
each with its options, defaults, formula, source and an example. Pages of the same name are replaced.`,
		Example: "  coordinator config reference --out docs/reference",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVar(&out, "out", filepath.Join("docs", "reference"), "the folder of the pages")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		pages, err := reference.Write(out)
		if err != nil {
			return err
		}
		return printf(cmd.OutOrStdout(), "%d pages → %s\n", pages, out)
	}
	return cmd
}
