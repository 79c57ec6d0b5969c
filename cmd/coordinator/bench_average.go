package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
)

// averageBench is an averaging round as its two sides make it, on one core each. Rates count the parameters of all groups as
// float32, whatever their format.
type averageBench struct {
	Program string          `json:"program"`
	Params  int             `json:"params"`
	Groups  int             `json:"groups"`
	Rounds  int             `json:"rounds"`
	Formats []averageFormat `json:"formats"`
}

// averageFormat is one wire format, medians over the rounds.
type averageFormat struct {
	Format     string  `json:"format"`
	Bytes      int     `json:"bytes"`       // of one group's contribution
	EncodeGBps float64 `json:"encode_gbps"` // a group makes its contribution
	CheckGBps  float64 `json:"check_gbps"`  // the leader looks for numbers that poison
	MeanGBps   float64 `json:"mean_gbps"`   // decodes, takes the mean in the fixed tree, and makes the outer step
	RoundMS    float64 `json:"round_ms"`    // of the leader: check and mean
}

func newBenchAverageCommand() *cobra.Command {
	bench := averageBench{Program: "kelvin"}
	var output string
	cmd := &cobra.Command{
		Use:   "average",
		Short: "Time an averaging round in every wire format",
		Long: `Time an averaging round (outer: mean) in every wire format, in GB of float32 parameters a second and core: how fast a
group encodes its contribution, how fast the leader checks it, and how fast it decodes all, takes their mean in the fixed
tree and makes the outer step.`,
		Example: "  coordinator bench average --params 4194304 --groups 8 -o json",
		Args:    cobra.NoArgs,
	}
	f := cmd.Flags()
	f.IntVar(&bench.Params, "params", 1<<20, "parameters of a group")
	f.IntVar(&bench.Groups, "groups", 8, "groups")
	f.IntVar(&bench.Rounds, "rounds", 20, "rounds to time, of each format")
	check := addOutputFlag(cmd, &output, "table", "table", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := positive(map[string]int{"params": bench.Params, "groups": bench.Groups, "rounds": bench.Rounds}); err != nil {
			return err
		}
		if bench.Groups < 2 {
			return usageErrorf("--groups: 1, want at least 2: one group has nothing to average")
		}
		if err := check(); err != nil {
			return err
		}
		for _, format := range averaging.Formats {
			if err := cmd.Context().Err(); err != nil {
				return err
			}
			got, err := bench.run(format)
			if err != nil {
				return err
			}
			bench.Formats = append(bench.Formats, got)
		}
		if output == "json" {
			return writeJSON(cmd.OutOrStdout(), bench)
		}
		for _, r := range bench.Formats {
			if err := printf(cmd.OutOrStdout(), "%s, %d groups of %d parameters: encode %.2f GB/s, check %.2f GB/s, mean %.2f GB/s; the leader takes %.1f ms a round\n",
				r.Format, bench.Groups, bench.Params, r.EncodeGBps, r.CheckGBps, r.MeanGBps, r.RoundMS); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

func (b *averageBench) run(format string) (averageFormat, error) {
	cfg := averaging.Config{Groups: b.Groups, Format: format}.WithDefaults()
	theta := make([]float32, b.Params)
	outer, err := averaging.NewOuter(cfg, theta)
	if err != nil {
		return averageFormat{}, err
	}
	groups, moved := make([]*averaging.Group, b.Groups), make([]float32, b.Params)
	for g := range groups {
		if groups[g], err = averaging.NewGroup(cfg, theta); err != nil {
			return averageFormat{}, err
		}
	}
	out := averageFormat{Format: format, Bytes: averaging.Size(format, b.Params)}
	var encode, check, mean, round []float64 // seconds
	for range 1 + b.Rounds {                 // the first warms up
		var vectors []averaging.Vector
		start := time.Now()
		lap := func() float64 {
			d := time.Since(start).Seconds()
			start = time.Now()
			return d
		}
		for g, group := range groups {
			for i := range moved { // any numbers will do, as long as groups differ
				moved[i] = theta[i] + float32((i*7+g*13)%1001-500)*1e-5
			}
			lap()
			vectors = append(vectors, group.Contribution(moved))
			encode = append(encode, lap())
		}
		r := outer.Open(1)
		lap()
		for g, v := range vectors {
			if err := r.Add(averaging.Contribution{Generation: 1, Round: r.Number(), Group: g, Vector: v}); err != nil {
				return out, err
			}
		}
		check = append(check, lap())
		update, err := outer.Step(r)
		if err != nil {
			return out, err
		}
		mean = append(mean, lap())
		round = append(round, check[len(check)-1]+mean[len(mean)-1])
		for _, group := range groups {
			if theta, err = group.Apply(update); err != nil {
				return out, err
			}
		}
	}
	rate := func(times []float64, groups, warm int) float64 {
		_, median, _ := quantiles(times[warm:])
		return float64(4*b.Params*groups) / median / 1e9
	}
	out.EncodeGBps, out.CheckGBps, out.MeanGBps = rate(encode, 1, b.Groups), rate(check, b.Groups, 1), rate(mean, b.Groups, 1)
	_, median, _ := quantiles(round[1:])
	out.RoundMS = 1e3 * median
	return out, nil
}
