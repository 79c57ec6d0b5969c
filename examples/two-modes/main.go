// Command two-modes trains one energy by three samplers, at the same number of gradients, and draws the share that each
// gives to the left-hand mode of the data.
//
//	go run ./examples/two-modes
package main

import (
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"log"
	"math"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/experiment"
	"github.com/kelvin-ebm/kelvin/pkg/local"
	"github.com/kelvin-ebm/kelvin/pkg/plots"
)

//go:embed pt.yaml pcd.yaml cd.yaml
var files embed.FS

var methods = []struct{ file, name string }{
	{"pt.yaml", "parallel tempering, 6 rungs"},
	{"pcd.yaml", "persistent CD from the right-hand mode"},
	{"cd.yaml", "CD-30 from the data"},
}

// learned is what a training made of the parameters of the mixture: before the first step and after each.
type learned struct {
	share float64        // of the left-hand mode in the training rows
	step  []float64      // 0, 1, …
	sigma []float64      // σ(a), the share that the model gives it
	means [2]([]float64) // m₁ and m₂
}

// train trains the experiment of a file; sets override its settings as --set does on the command line.
func train(ctx context.Context, file string, opts backend.Options, sets ...string) (out learned, err error) {
	text, err := files.ReadFile(file)
	if err != nil {
		return out, err
	}
	config, err := experiment.Parse(file, text, sets)
	if err != nil {
		return out, err
	}
	parts, err := local.Build(config, nil, nil)
	if err != nil {
		return out, err
	}
	for _, component := range parts.Data.Labels {
		if component == 0 {
			out.share += 1 / float64(parts.Data.N())
		}
	}
	device, learner, err := parts.Open(ctx, opts)
	if err != nil {
		return out, err
	}
	defer func() {
		learner.Close()
		err = errors.Join(err, device.Close())
	}()
	if err := learner.Start(); err != nil {
		return out, err
	}
	for step := 0; ; step++ {
		theta, err := learner.Theta() // m₁, m₂, a
		if err != nil {
			return out, err
		}
		out.step = append(out.step, float64(step))
		out.sigma = append(out.sigma, 1/(1+math.Exp(-float64(theta[2]))))
		for k := range out.means {
			out.means[k] = append(out.means[k], float64(theta[k]))
		}
		if step == parts.Steps {
			return out, nil
		}
		if err := ctx.Err(); err != nil {
			return out, err
		}
		if _, err := learner.TrainStep(); err != nil {
			return out, err
		}
	}
}

// late is the mean over the last third of the steps.
func late(values []float64) float64 {
	values = values[len(values)-len(values)/3:]
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// figure draws the shares over the steps, below each other those of the methods and the one of the data.
func figure(runs []learned) (*plots.Figure, error) {
	panel := plots.Panel{
		Title:  "share of the left-hand mode, σ(a)",
		Range:  [2]float64{0, 1.02},
		Levels: []plots.Level{{Name: fmt.Sprintf("training data, %.3f", runs[0].share), Y: runs[0].share}},
	}
	for i, r := range runs {
		panel.Series = append(panel.Series, plots.Series{Name: methods[i].name, X: r.step, Y: r.sigma})
	}
	return plots.Curves(plots.CurvesOptions{Title: "two modes: what the model learns of their masses", Subtitle: "60 gradients a ladder and training step each", XLabel: "training step"}, panel)
}

func run(ctx context.Context, path string, sets []string) error {
	var runs []learned
	for _, m := range methods {
		r, err := train(ctx, m.file, backend.Options{}, sets...)
		if err != nil {
			return fmt.Errorf("%s: %w", m.file, err)
		}
		fmt.Printf("%-40s share %.3f (data %.3f), means %.3f and %.3f\n", m.name, late(r.sigma), r.share, late(r.means[0]), late(r.means[1]))
		runs = append(runs, r)
	}
	f, err := figure(runs)
	if err != nil {
		return err
	}
	return f.Save(path)
}

func main() {
	path := flag.String("o", "weights.png", "the figure, .png or .svg")
	flag.Parse()
	if err := run(context.Background(), *path, flag.Args()); err != nil {
		log.Fatal(err)
	}
}
