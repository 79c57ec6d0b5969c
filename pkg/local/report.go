package local

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/experiment"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/plots"
	"github.com/kelvin-ebm/kelvin/pkg/runlog"
)

// writeReport writes report.html: what the run was, how good its model is, and every figure.
func (p *Parts) writeReport(f folder, figures []plots.ReportFigure, sections []plots.Section, info runlog.RunInfo, ev *Evaluation) error {
	d := plots.ReportData{
		Name:     p.Config.Name,
		Subtitle: fmt.Sprintf("%d steps on %s in %.1f s", ev.Step, ev.Backend, info.Seconds),
		Verdict:  ev.verdict(),
		Figures:  figures,
		Sections: sections,
		Commands: []string{strings.Join(info.Command, " "), "coordinator evaluate --run " + f.dir + " -o json", "coordinator sample --run " + f.dir + " --samples 5000"},
		Footer:   fmt.Sprintf("Kelvin %s, %s", info.Version, info.Finished.Format(time.RFC3339)),
	}
	if ev.Drawn() != nil {
		d.Commands = append(d.Commands, "coordinator tempering diagnose --run "+f.dir)
	}
	if strings.HasSuffix(ev.Explorer, "langevin (biased)") {
		d.Warnings = append(d.Warnings, "The explorer is unadjusted Langevin: its stationary law is not the model's, so samples are biased.")
	}
	if ev.NLLNote != "" && ev.NLLBox != nil {
		d.Warnings = append(d.Warnings, fmt.Sprintf("The likelihood is that of the density restricted to [%.3g, %.3g]²: %s.", ev.NLLBox[0], ev.NLLBox[1], ev.NLLNote))
	}
	d.Warnings = append(d.Warnings, ev.Notes...)
	number := func(label string, v *float64, format, note string) {
		if v != nil {
			d.Numbers = append(d.Numbers, plots.Number{Label: label, Value: fmt.Sprintf(format, *v), Note: note})
		}
	}
	number("test NLL", ev.NLL, "%.4g", ev.NLLRemark())
	number("bits per number", ev.BitsPer, "%.4g", "the same, in the numbers of the data's file")
	number("entropy of the data law", ev.Entropy, "%.4g", "nats; the lowest NLL possible")
	if ev.MMD2 != nil {
		number("MMD²", ev.MMD2, "%.2g", fmt.Sprintf("± %.2g if both laws were one", *ev.MMDNullSD))
	}
	number("sliced Wasserstein-1", ev.SlicedW1, "%.3g", fmt.Sprintf("%d samples", ev.Samples))
	if ev.Modes != nil {
		d.Numbers = append(d.Numbers, plots.Number{Label: "modes found", Value: fmt.Sprintf("%d of %d", *ev.ModesHit, *ev.Modes), Note: fmt.Sprintf("weights: TV %.3f", *ev.ModeTV)})
	}
	number("samples that show their label", ev.LabelAccuracy, "%.3f", "by a classifier trained on the data")
	if ev.Frechet != nil {
		number("Fréchet distance", ev.Frechet, "%.3g", fmt.Sprintf("%.2g between two parts of the data; in a classifier's features", *ev.FrechetNull))
	}
	d.Tables = []plots.Table{p.metricsTable(ev, info), configTable(p.Config)}
	return plots.Report(f.path(reportFile), d)
}

func (ev *Evaluation) verdict() string {
	var parts []string
	switch {
	case ev.NLL != nil && ev.NLLBox != nil:
		parts = append(parts, "The model's density has no finite integral: it explains the data only inside a box.")
	case ev.NLL != nil && ev.Entropy != nil:
		parts = append(parts, fmt.Sprintf("The model is %.3f nats above the entropy of the data's law, the best that any model can do.", *ev.NLL-*ev.Entropy))
	}
	if ev.MMD2 != nil {
		if sd := *ev.MMD2 / *ev.MMDNullSD; sd < 3 {
			parts = append(parts, fmt.Sprintf("Its samples cannot be told from held-out data by their maximum mean discrepancy (%.1f null deviations).", sd))
		} else {
			parts = append(parts, fmt.Sprintf("Its samples differ from held-out data by %.1f null deviations of their maximum mean discrepancy.", sd))
		}
	}
	return strings.Join(parts, " ")
}

func (p *Parts) metricsTable(ev *Evaluation, info runlog.RunInfo) plots.Table {
	t := plots.Table{Title: "Run"}
	row := func(key, value, note string) { t.Rows = append(t.Rows, plots.Row{Key: key, Value: value, Note: note}) }
	row("parameters", fmt.Sprint(models.NumParams(p.Network)), p.ModelName())
	row("training rows", fmt.Sprint(p.Data.N()), p.Data.Name)
	row("steps per second", fmt.Sprintf("%.0f", float64(ev.Step)/max(info.Seconds, 1e-9)), "mean over the run")
	for _, e := range ev.EvidenceRows() {
		row(e[0], e[1], e[2])
	}
	if len(ev.SwapAccept) > 0 {
		row("swap acceptance", ev.SwapAccept.String(), "a pair of rungs, hottest first, while sampling")
		row("restarts", fmt.Sprint(ev.Restarts), "walkers that came from the reference to the target while sampling")
	}
	if len(ev.ExplorerAccept) > 0 {
		row("explorer acceptance", ev.ExplorerAccept.String(), ev.Explorer)
	} else {
		row("sampler", ev.Explorer, "")
	}
	row("seed", fmt.Sprint(p.Config.Seed), "")
	row("digest", info.Digest, "SHA-256 over the last cut's contents")
	row("bits depend on", info.Fingerprint, "")
	return t
}

// NLLRemark says in what the likelihood is counted, how well it is known, and where its log Z comes from.
func (ev *Evaluation) NLLRemark() string {
	remark := "nats"
	if ev.NLLError != nil {
		remark = fmt.Sprintf("nats ± %.4f, %d test rows", *ev.NLLError, ev.TestRows)
	}
	switch ev.NLLKind {
	case "quadrature":
		return remark + "; exact, by quadrature"
	case "bridge":
		return remark + fmt.Sprintf("; by bridge sampling on %d rungs", len(ev.Evidence.Rungs))
	}
	return remark
}

// EvidenceRows are the names, values and remarks of what a ladder says about log Z; none where it was not measured.
func (ev *Evaluation) EvidenceRows() [][3]string {
	if ev.Evidence == nil {
		return nil
	}
	z := ev.Evidence
	return [][3]string{
		{"log Z, bridge", Uncertain(z.Bridge, z.BridgeErr), fmt.Sprintf("nats, on %d rungs", len(z.Rungs))},
		{"log Z, forward", Uncertain(z.Forward, z.ForwardErr), "low on average; " + ParetoRemark(z.ForwardK)},
		{"log Z, reverse", Uncertain(z.Reverse, z.ReverseErr), "high on average; " + ParetoRemark(z.ReverseK)},
	}
}

// ParetoRemark is what the Pareto shape of an estimate's weights says of it.
func ParetoRemark(k float64) string {
	switch {
	case math.IsNaN(k):
		return "k̂ –"
	case k > 0.7:
		return fmt.Sprintf("k̂ %.2f: unreliable", k)
	}
	return fmt.Sprintf("k̂ %.2f", k)
}

// Uncertain writes a number with its standard error, to two figures of that.
func Uncertain(v, stdErr float64) string {
	if !(stdErr > 0) || math.IsInf(stdErr, 0) {
		return fmt.Sprintf("%.4f", v)
	}
	decimals := min(max(1-int(math.Floor(math.Log10(stdErr))), 0), 6)
	return fmt.Sprintf("%.*f ± %.*f", decimals, v, decimals, stdErr)
}

// configTable is the resolved experiment, a row a section.
func configTable(c *experiment.Config) plots.Table {
	t := plots.Table{Title: "Experiment"}
	text, err := experiment.Marshal(c)
	if err != nil { // it was written before
		return t
	}
	section := ""
	for line := range strings.SplitSeq(string(text), "\n") {
		key, value, ok := strings.Cut(line, ":")
		if !ok || strings.HasPrefix(strings.TrimSpace(line), "#") {
			continue
		}
		if !strings.HasPrefix(line, " ") {
			section = key
			if value = strings.TrimSpace(value); value != "" {
				t.Rows = append(t.Rows, plots.Row{Key: key, Value: value})
			}
			continue
		}
		t.Rows = append(t.Rows, plots.Row{Key: section + "." + strings.TrimSpace(key), Value: strings.TrimSpace(value)})
	}
	return t
}
