// Command exchange is Kelvin's side of exchange_weights.py: it runs TorchEBM's weights of a small DiT, and draws weights
// for TorchEBM to run.
package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/gomlx/gomlx/pkg/core/dtypes"
	"github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

const channels, side, classes = 2, 8, 10

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: exchange FOLDER, with torch.safetensors and inputs.safetensors in it")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "exchange:", err)
		os.Exit(1)
	}
}

func run(dir string) error {
	config := models.Config{Kind: "transformer", Image: []int{channels, side, side}, PatchSize: new(2), EmbedDim: new(32), Depth: new(2), NumHeads: new(4),
		CondDim: new(24), HeadDim: new(16), HeadDepth: 1, HeadNumHeads: new(2), PosEmbed: "sincos", TimeScale: new(1.0)}
	network, err := config.BuildNetwork(0, classes)
	if err != nil {
		return err
	}
	field := network.(models.Field)
	inputs, _, err := checkpoint.ReadSafetensors(filepath.Join(dir, "inputs.safetensors"))
	if err != nil {
		return err
	}
	read, _, err := checkpoint.ReadSafetensors(filepath.Join(dir, "torch.safetensors"))
	if err != nil {
		return err
	}
	theirs, err := checkpoint.FlatParams[float32](field, read)
	if err != nil {
		return err
	}
	ours := make([]float32, len(theirs)) // drawn, for a new transformer gives 0
	normal := rand.New(rand.NewPCG(1, 2))
	for i := range ours {
		ours[i] = float32(0.1 * normal.NormFloat64())
	}
	written, err := checkpoint.ParamTensors(field, ours)
	if err != nil {
		return err
	}
	if err := checkpoint.WriteSafetensors(filepath.Join(dir, "kelvin.safetensors"), written, nil); err != nil {
		return err
	}
	outputs, err := outputs(field, inputs, theirs, ours)
	if err != nil {
		return err
	}
	return checkpoint.WriteSafetensors(filepath.Join(dir, "outputs.safetensors"), outputs, nil)
}

// outputs runs the field at their weights and at ours.
func outputs(field models.Field, inputs []checkpoint.Tensor, theirs, ours []float32) ([]checkpoint.Tensor, error) {
	x, err := checkpoint.Values[float32](inputs, "x", -1, channels, side, side)
	if err != nil {
		return nil, err
	}
	batch := len(x) / field.Dim()
	t, err := checkpoint.Values[float32](inputs, "t", batch)
	if err != nil {
		return nil, err
	}
	y, err := checkpoint.Values[int32](inputs, "y", batch)
	if err != nil {
		return nil, err
	}
	b, err := backend.Open(context.Background(), backend.Config{Kind: backend.Go, Threads: 1}, backend.Options{})
	if err != nil {
		return nil, err
	}
	in := []backend.Input{
		{Name: "x", Shape: shapes.Make(dtypes.Float32, batch, field.Dim())}, {Name: "t", Shape: shapes.Make(dtypes.Float32, batch)},
		{Name: "y", Shape: shapes.Make(dtypes.Int32, batch)}, {Name: "theta", Shape: shapes.Make(dtypes.Float32, len(ours))},
	}
	program, err := backend.Compile(b, "field", in, func(in []*graph.Node) []*graph.Node {
		return []*graph.Node{field.Field(in[0], in[1], in[2], models.Unpack(field, in[3]))}
	})
	if err != nil {
		return nil, err
	}
	defer program.Close()
	var out []checkpoint.Tensor
	for name, theta := range map[string][]float32{"theirs": theirs, "ours": ours} {
		res, err := program.Run(tensors.FromFlatDataAndDimensions(x, batch, field.Dim()), tensors.FromFlatDataAndDimensions(t, batch),
			tensors.FromFlatDataAndDimensions(y, batch), tensors.FromFlatDataAndDimensions(theta, len(theta)))
		if err != nil {
			return nil, err
		}
		values, err := backend.Read[float32](res[0])
		if err != nil {
			return nil, err
		}
		out = append(out, checkpoint.Tensor{Name: name, Shape: []int{batch, channels, side, side}, Data: values})
	}
	return out, nil
}
