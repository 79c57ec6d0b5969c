package local

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/pkg/core/graph"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/models"
)

// drifting is an energy that is another one whenever it is built.
type drifting struct {
	models.Network
	energy models.Energy
	built  *int
}

func (d drifting) Energy(x *graph.Node, weights []*graph.Node) *graph.Node {
	*d.built++
	return graph.MulScalar(d.energy.Energy(x, weights), 1+float64(*d.built)/100)
}

// A training that comes to other bits the second time is refused before anything is written; others go on.
func TestCheckSerial(t *testing.T) {
	if err := parsedParts(t, small).checkSerial(context.Background(), checked("")); err != nil {
		t.Errorf("with a ladder: %v", err)
	}
	if err := parsedParts(t, smallField).checkSerial(context.Background(), checked("")); err != nil {
		t.Errorf("over data alone: %v", err)
	}
	cfg := parse(t, backend.Go, small)
	p, err := Build(cfg, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	opts := checked(filepath.Join(t.TempDir(), "run"))
	opts.Network = drifting{p.Network, p.Network.(models.Energy), new(int)}
	_, err = Train(context.Background(), cfg, opts)
	if !errors.Is(err, ErrSerial) || !strings.Contains(err.Error(), "at step 10 the digests") {
		t.Errorf("an energy that changes: %v, want ErrSerial at step 10", err)
	}
	if _, err := os.Stat(opts.Out); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the run's folder: %v, want none", err)
	}
}

func parsedParts(t *testing.T, text string) *Parts {
	t.Helper()
	p, err := Build(parse(t, backend.Go, text), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func checked(out string) Options {
	o := options(out)
	o.CheckSerial = 2
	return o
}

func TestTemperingConfig(t *testing.T) {
	c, err := TemperingConfig([]string{"rungs=4", "betas=[0, 0.2, 0.5, 1]", "chains=5", "ladder=fixed", "schedule=seo"})
	if err != nil || c.Rungs != 4 || len(c.Betas) != 4 || c.Chains != 5 || c.Schedule != "seo" || c.Path != "linear" {
		t.Errorf("%+v, %v", c, err)
	}
	_, err = TemperingConfig([]string{"rungs=0", "adapt_every=3", "path=sideways"})
	if err == nil || !strings.Contains(err.Error(), "rungs: 0") || !strings.Contains(err.Error(), `path: "sideways"`) {
		t.Errorf("%v, want every fault", err)
	}
	if _, err = TemperingConfig([]string{"adapt_every=3", "reference_scale=2", "split=2", "placement=rung"}); err == nil || !strings.Contains(err.Error(), "split: is about training") || !strings.Contains(err.Error(), "placement: is about training") ||
		!strings.Contains(err.Error(), "adapt_every: is about training") || !strings.Contains(err.Error(), "--reference-std") {
		t.Errorf("%v, want no keys about training", err)
	}
}
