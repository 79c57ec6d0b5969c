package main

import (
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/local"
	"github.com/kelvin-ebm/kelvin/pkg/plan"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// planned is the JSON of the command: a plan, and what the flags ask of it.
type planned struct {
	Name string `json:"name"`
	*plan.Plan
	StepsPerSecond float64   `json:"steps_per_second,omitempty"`
	BytesPerSecond []float64 `json:"bytes_per_second,omitempty"` // of each entry of traffic
	DeviceMemory   int       `json:"device_memory,omitempty"`    // bytes
	Fits           *bool     `json:"fits,omitempty"`             // on every replica
	Measured       string    `json:"measured,omitempty"`         // the run whose acceptance of swaps is taken
	Barrier        float64   `json:"barrier,omitempty"`
	SuggestedRungs int       `json:"suggested_rungs,omitempty"`
}

func newPlanCommand() *cobra.Command {
	var replicas int
	var stepsPerSecond float64
	var memory, run, output string
	cmd := &cobra.Command{
		Use:   "plan FILE",
		Short: "Show what a training takes: bytes on each device and on the wire",
		Long: `Show what a training on several replicas takes, without starting it: which replica holds which shards, the bytes on each
device, and the bytes that replicas send each other in a training step under both kinds of exchange.

All of it is counted, but for numbers after ~: the workspace of the device is an estimate from the sizes of the network's
layers, and rows, as well as negatives where a shard holds one rung, are means over random swaps. Without --run a third of
the swaps is taken to be accepted.`,
		Example: `  coordinator plan examples/two-moons.yaml --set tempering.placement=rung --replicas 3
  coordinator plan digits.yaml --set tempering.split=4 --device-memory 80GiB --steps-per-second 20 --run runs/digits -o json`,
		Args: exactlyOneFile,
	}
	sets := addSetFlag(cmd)
	f := cmd.Flags()
	f.IntVar(&replicas, "replicas", 0, "replicas; 0 is one for each shard")
	f.Float64Var(&stepsPerSecond, "steps-per-second", 0, "training steps a second, for bytes a second")
	f.StringVar(&memory, "device-memory", "", "memory of one device, as 80GiB or 16GB: say whether it is enough")
	f.StringVar(&run, "run", "", "the folder of a run whose "+local.TemperingFile+" gives the acceptance of swaps and the rungs that the barrier asks for")
	check := addOutputFlag(cmd, &output, "table", "table", "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := check(); err != nil {
			return err
		}
		switch {
		case replicas < 0:
			return usageErrorf("--replicas: %d, want 0 or more", replicas)
		case !(stepsPerSecond >= 0) || math.IsInf(stepsPerSecond, 1):
			return usageErrorf("--steps-per-second: %g, want a positive number", stepsPerSecond)
		}
		out := planned{StepsPerSecond: stepsPerSecond}
		var err error
		if memory != "" {
			if out.DeviceMemory, err = parseBytes(memory); err != nil {
				return usageErrorf("--device-memory: %w", err)
			}
		}
		cfg, err := loadExperiment(args[0], *sets)
		if err != nil {
			return err
		}
		parts, err := local.Build(cfg, nil, nil)
		if err != nil {
			return err
		}
		var measured *tempering.Round
		if run != "" {
			if measured, err = out.measure(run, parts); err != nil {
				return err
			}
		}
		if out.Plan, err = parts.Plan(cmd.Context(), replicas, measured); err != nil {
			return err
		}
		out.Name = cfg.Name
		out.judge()
		if output == "json" {
			return writeJSON(cmd.OutOrStdout(), out)
		}
		return out.render(cmd.OutOrStdout())
	}
	return cmd
}

// measure takes what a run says of its ladder.
func (p *planned) measure(run string, parts *local.Parts) (*tempering.Round, error) {
	t, err := local.ReadTempering(run)
	if err != nil {
		return nil, err
	}
	r := t.Final()
	if got, want := len(r.Betas), parts.Config.Tempering.Rungs; got != want {
		return nil, usageErrorf("--run: the ladder of %s has %d rungs, want the %d of the experiment; --set tempering.rungs=%d", run, got, want, got)
	}
	p.Measured, p.Barrier, p.SuggestedRungs = filepath.Join(run, local.TemperingFile), r.Barrier, r.SuggestedRungs
	return r, nil
}

// judge fills what follows from the plan.
func (p *planned) judge() {
	if p.StepsPerSecond > 0 {
		for _, t := range p.Traffic {
			p.BytesPerSecond = append(p.BytesPerSecond, t.Total*p.StepsPerSecond)
		}
	}
	if p.DeviceMemory > 0 {
		fits := p.largest().Memory.Total <= p.DeviceMemory
		p.Fits = &fits
	}
}

// largest is the replica with most on its device.
func (p *planned) largest() plan.Replica {
	most := p.Replicas[0]
	for _, r := range p.Replicas {
		if r.Memory.Total > most.Memory.Total {
			most = r
		}
	}
	return most
}

func (p *planned) render(w io.Writer) error {
	fmt.Fprintf(w, "%s: %d parameters, dimension %d; %d %s on %d %s, placement %s, split %d, %d %s\n", p.Name, p.Params, p.Dim,
		len(p.Shards), plural(len(p.Shards), "shard"), len(p.Replicas), plural(len(p.Replicas), "replica"), p.Placement, p.Split, p.Groups, plural(p.Groups, "group"))
	if p.Standbys > 0 {
		fmt.Fprintf(w, "%d more %s no shard: standby\n", p.Standbys, map[bool]string{true: "replica holds", false: "replicas hold"}[p.Standbys == 1])
	}
	p.shardTable(w)
	p.memoryTable(w)
	p.wireTable(w)
	for i, r := range p.Rounds {
		if i == 0 {
			fmt.Fprintf(w, "averaging, every %d steps:\n", p.Every)
		}
		fmt.Fprintf(w, "  %s: %s to the coordinator, %s back\n", r.Format, size(float64(r.Up)), size(float64(r.Down)))
	}
	toLeads := ""
	if p.Cut.ToLeads > 0 {
		toLeads = size(float64(p.Cut.ToLeads)) + " to the leads, "
	}
	fmt.Fprintf(w, "a cut: %s%s to the coordinator\n", toLeads, size(float64(p.Cut.ToCoordinator)))
	if p.Measured != "" {
		fmt.Fprintf(w, "rungs: %d; %s asks for %d, its barrier Λ being %.2f\n", p.Rungs, p.Measured, p.SuggestedRungs, p.Barrier)
	}
	if p.Fits != nil {
		most := p.largest()
		verdict := "it fits"
		if !*p.Fits {
			verdict = "it does not fit: want more replicas, a larger tempering.split, or fewer chains"
		}
		return printf(w, "memory: replica %d needs ~%s, the most, of %s: %s\n", most.ID, size(float64(most.Memory.Total)), size(float64(p.DeviceMemory)), verdict)
	}
	return nil
}

// shardTable has a row a shard, or says in one how many there are where nobody would read them all.
func (p *planned) shardTable(w io.Writer) {
	const most = 64
	if len(p.Shards) > most {
		fmt.Fprintf(w, "%d shards: -o json lists them\n", len(p.Shards))
		return
	}
	t := newTable(w, "shard", "group", "rungs", "ladders", "chains", "replica")
	for _, s := range p.Shards {
		at := strconv.Itoa(s.Replica)
		if s.Lead {
			at += ", leads"
		}
		t.AppendRow(table.Row{s.ID, s.Group, span(s.Rungs), span(s.Ladders), s.Rows, at})
	}
	t.Render()
}

// span are the numbers from a up to, not including, b.
func span(r [2]int) string {
	switch r[1] - r[0] {
	case 0:
		return "–"
	case 1:
		return strconv.Itoa(r[0])
	}
	return fmt.Sprintf("%d to %d", r[0], r[1]-1)
}

func (p *planned) memoryTable(w io.Writer) {
	t := newTable(w, "replica", "parameters", "optimizer", "average", "chains", "pool", "inputs", "workspace", "device", "sent a step", "received")
	for _, r := range p.Replicas {
		m := r.Memory
		row := table.Row{r.ID}
		for _, n := range []int{m.Parameters, m.Optimizer, m.Average, m.Chains, m.Pool, m.Inputs} {
			row = append(row, size(float64(n)))
		}
		t.AppendRow(append(row, "~"+size(float64(m.Workspace)), "~"+size(float64(m.Total)), size(r.Sent), size(r.Received)))
	}
	rightAligned(t, 11)
	t.Render()
}

func (p *planned) wireTable(w io.Writer) {
	if p.Traffic[0].Total == 0 {
		fmt.Fprintln(w, "a training step sends nothing: every group is on one replica")
		return
	}
	head := []string{"bytes a training step", "energies", "rows", "negatives", "θ", "gradient", "headers", "all"}
	if p.StepsPerSecond > 0 {
		head = append(head, fmt.Sprintf("a second, at %g steps", p.StepsPerSecond))
	}
	t := newTable(w, head...)
	for i, traffic := range p.Traffic {
		row := table.Row{"exchange " + traffic.Exchange}
		random := p.Placement == "rung"
		for _, n := range []struct {
			bytes float64
			mean  bool
		}{{traffic.Energies, false}, {traffic.Rows, random}, {traffic.Negatives, random}, {traffic.Theta, false}, {traffic.Gradient, false}, {traffic.Headers, random}, {traffic.Total, random}} {
			cell := size(n.bytes)
			if n.mean && n.bytes > 0 {
				cell = "~" + cell
			}
			row = append(row, cell)
		}
		if p.BytesPerSecond != nil {
			row = append(row, size(p.BytesPerSecond[i]))
		}
		t.AppendRow(row)
	}
	rightAligned(t, len(head))
	t.Render()
}

// rightAligned aligns the columns after the first.
func rightAligned(t table.Writer, columns int) {
	var configs []table.ColumnConfig
	for i := 2; i <= columns; i++ {
		configs = append(configs, table.ColumnConfig{Number: i, Align: text.AlignRight, AlignHeader: text.AlignRight})
	}
	t.SetColumnConfigs(configs)
}

var byteUnits = []string{"B", "KiB", "MiB", "GiB", "TiB"}

// size is a number of bytes for people, 0 as a dash.
func size(bytes float64) string {
	if bytes == 0 {
		return "–"
	}
	unit := 0
	for bytes >= 1024 && unit < len(byteUnits)-1 {
		bytes /= 1024
		unit++
	}
	return fmt.Sprintf("%.*f %s", min(unit, 1), bytes, byteUnits[unit])
}

// parseBytes reads a number of bytes with a unit, binary or decimal.
func parseBytes(s string) (int, error) {
	digits := strings.TrimRight(s, "kKMGTiB ")
	unit := strings.TrimSpace(s[len(digits):])
	factor := map[string]float64{"B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}[unit]
	n, err := strconv.ParseFloat(digits, 64)
	if bytes := n * factor; err == nil && bytes >= 1 && bytes < 1<<60 {
		return int(bytes), nil
	}
	return 0, fmt.Errorf("%q, want a number of bytes with a unit, as 80GiB", s)
}
