// Command custom-energy trains an energy of one's own: a landscape of learned hollows, on two moons.
//
//	go run ./examples/custom-energy
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"

	. "github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/experiment"
	"github.com/kelvin-ebm/kelvin/pkg/local"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// hollows is the energy −Σₖ exp(dₖ − ½ exp(wₖ) ‖x − cₖ‖²): n hollows in the plane, whose places, widths and depths are learned.
type hollows struct{ n int }

func (e hollows) Dim() int { return 2 }

func (e hollows) Params() []models.Param {
	normal := func(shape []int, s *models.Stream) []float64 { return s.Normals(models.Param{Shape: shape}.Size()) }
	return []models.Param{
		{Name: "centre", Shape: []int{e.n, 2}, Init: normal},
		{Name: "width", Shape: []int{e.n}, Init: normal},
		{Name: "depth", Shape: []int{e.n}, Init: normal},
	}
}

func (e hollows) Energy(x *Node, weights []*Node) *Node {
	centre, width, depth := Reshape(weights[0], 1, e.n, 2), Reshape(weights[1], 1, e.n), Reshape(weights[2], 1, e.n)
	squares := ReduceSum(Square(Sub(Reshape(x, -1, 1, 2), centre)), -1) // [batch, n]
	return Neg(ReduceSum(Exp(Sub(depth, MulScalar(Mul(Exp(width), squares), 0.5))), -1))
}

// settings are those of examples/two-moons.yaml, shorter. The energy is E = hollows − log q with a Gaussian q.
const settings = `
name: custom-energy
seed: 7
data: {dataset: two_moons, samples: 3000, noise: 0.05}
loss: {kind: parallel_tempering_cd}
sampler: {kind: mala, steps: 5, step_size: 0.003}
tempering: {rungs: 6, chains: 128, path: linear}
optimizer: {kind: adam, beta1: 0.5, lr: {kind: cosine, start: 3.0e-2, end: 3.0e-4}, clip_norm: 1}
train: {steps: 4000, batch: 512}
`

// train trains an energy; sets override settings as --set does on the command line.
func train(ctx context.Context, energy models.Energy, opts local.Options, sets ...string) (*local.Summary, error) {
	config, err := experiment.Parse("settings", []byte(settings), sets)
	if err != nil {
		return nil, err
	}
	opts.Network = energy
	return local.Train(ctx, config, opts)
}

func main() {
	useGoMLX := flag.Bool("gomlx", false, "train the network of gomlx.go instead")
	flag.Parse()
	var energy models.Energy = hollows{40}
	if *useGoMLX {
		var err error
		if energy, err = models.FromGoMLX(2, network); err != nil {
			log.Fatal(err)
		}
	}
	summary, err := train(context.Background(), energy, local.Options{Progress: os.Stderr}, flag.Args()...)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("test NLL %.3f nats after %d steps, figures in %s\n", *summary.Evaluation.NLL, summary.Steps, summary.Dir)
}
