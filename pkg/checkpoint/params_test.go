package checkpoint_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// A transformer's parameters go to a file that TorchEBM's DiT can load, and come back by name.
func ExampleParamTensors() {
	network, err := models.Config{Kind: "transformer", Image: []int{1, 4, 4}, EmbedDim: new(8), Depth: new(1), TimeScale: new(1.0)}.BuildNetwork(16, 0)
	if err != nil {
		panic(err)
	}
	dir, err := os.MkdirTemp("", "kelvin")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "params.safetensors")

	theta := models.InitParams(network, 7)
	tensors, err := checkpoint.ParamTensors(network, theta)
	if err != nil {
		panic(err)
	}
	if err := checkpoint.WriteSafetensors(path, tensors, nil); err != nil {
		panic(err)
	}
	tensors, _, err = checkpoint.ReadSafetensors(path)
	if err != nil {
		panic(err)
	}
	again, err := checkpoint.FlatParams[float64](network, tensors)
	if err != nil {
		panic(err)
	}
	qkv, err := checkpoint.Values[float64](tensors, "blocks.0.attn.qkv.weight", 24, 8)
	if err != nil {
		panic(err)
	}
	fmt.Println(len(theta), len(qkv), slices.Equal(theta, again))
	// Output: 3620 192 true
}

func TestFlatParamsReportsEveryFault(t *testing.T) {
	network, err := models.NewMLP(2, models.MLPConfig{Hidden: []int{3}, Activation: "silu", Init: "torch"})
	if err != nil {
		t.Fatal(err)
	}
	tensors, err := checkpoint.ParamTensors(network, make([]float32, models.NumParams(network)))
	if err != nil {
		t.Fatal(err)
	}
	tensors[0].Shape = []int{2, 3}
	tensors[1].Name = "net.0.scale"
	tensors[2].Data = make([]float64, 3)
	_, err = checkpoint.FlatParams[float32](network, tensors)
	for _, want := range []string{
		`tensor "net.0.weight": F32 [2 3], want F32 [3 2]`, `tensor "net.0.bias" is missing`, `tensor "net.2.weight": F64 [1 3], want F32 [1 3]`,
		`tensor "net.0.scale": the network has no such parameter`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want it to say %q", err, want)
		}
	}
	if _, err := checkpoint.ParamTensors(network, []float32{1}); err == nil || !strings.Contains(err.Error(), "1 parameters, want 13") {
		t.Errorf("a short vector: error %v", err)
	}
}
