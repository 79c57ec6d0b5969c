package plan_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/plan"
)

// small is three rungs of four ladders, a rung a shard: small enough to count by hand.
func small() plan.Experiment {
	return plan.Experiment{
		Layout:   engine.Layout{Placement: "rung", Split: 1, Rungs: 3, Chains: 4, Groups: 1},
		Exchange: "state", Scans: 2, Accept: []float64{0.5, 0.25}, Params: 10, Dim: 2, Batch: 8, Products: 7,
		Optimizer: engine.OptimizerConfig{Kind: "adam", EMA: 0.9},
	}
}

func must(t *testing.T, e plan.Experiment, holders ...int) *plan.Plan {
	t.Helper()
	p, err := plan.New(e, holders)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*math.Max(1, math.Abs(b)) }

func equalTraffic(t *testing.T, got, want plan.Traffic) {
	t.Helper()
	for _, c := range []struct {
		name      string
		got, want float64
	}{{"energies", got.Energies, want.Energies}, {"rows", got.Rows, want.Rows}, {"negatives", got.Negatives, want.Negatives}, {"theta", got.Theta, want.Theta},
		{"gradient", got.Gradient, want.Gradient}, {"headers", got.Headers, want.Headers}, {"total", got.Total, want.Total}} {
		if !near(c.got, c.want) {
			t.Errorf("%s: %s %g bytes, want %g", want.Exchange, c.name, c.got, c.want)
		}
	}
	if got.Exchange != want.Exchange {
		t.Errorf("exchange %q, want %q", got.Exchange, want.Exchange)
	}
}

func TestRungsOnReplicasOfTheirOwn(t *testing.T) {
	p := must(t, small(), 0, 1, 2)
	// Each of 2 shards tells the lead 4·(2·4+1+3) bytes, twice a step, which tells both 4·(12+3+1); and 4·(10+5) once. A swap of the first
	// pair is accepted in a quarter of the scans, of the second in an eighth, and moves a state of 8 bytes each way, in 4
	// ladders and 2 scans. An eighth of the 4 negatives comes from the rung below.
	state := plan.Traffic{Exchange: "state", Energies: 2*2*48 + 2*2*64, Theta: 2 * 60, Rows: 2*(2*4*0.25*8) + 2*(2*4*0.125*8), Negatives: 4 * 0.125 * 8}
	first, second := 1-math.Pow(0.75, 4), 1-math.Pow(0.875, 4) // chances that a scan swaps anything
	state.Headers = 169 * (2*2 + 2*2 + 2 + 2*2*first + 2*2*second + 4*0.125)
	state.Total = state.Energies + state.Theta + state.Rows + state.Negatives + state.Headers
	equalTraffic(t, p.Traffic[0], state)
	// Labels: four acceptances for one; a third of the chains that are negatives is on each shard.
	label := plan.Traffic{Exchange: "label", Energies: 2*2*60 + 2*2*64, Theta: 2 * 60, Negatives: 2 * 4. / 3 * 8, Headers: 169 * (2*2 + 2*2 + 2 + 2)}
	label.Total = label.Energies + label.Theta + label.Negatives + label.Headers
	equalTraffic(t, p.Traffic[1], label)

	for r, want := range []plan.Memory{
		{Parameters: 40, Chains: 64, Inputs: 48, Workspace: 4 * 4 * (14 + 12), Total: 568},
		{Parameters: 40, Chains: 64, Inputs: 48, Workspace: 416, Total: 568},
		{Parameters: 80, Optimizer: 80, Average: 40, Chains: 64, Inputs: 48 + 64 + 32, Workspace: 4 * ((8+4)*14 + 30), Total: 1200},
	} {
		if got := p.Replicas[r].Memory; got != want {
			t.Errorf("replica %d: %+v, want %+v", r, got, want)
		}
	}
	if want := (plan.Cut{ToLeads: 2 * 32, ToCoordinator: 4*10*4 + 3*32}); p.Cut != want {
		t.Errorf("cut %+v, want %+v", p.Cut, want)
	}
	if p.Rounds != nil {
		t.Errorf("averaging rounds %v of a single group", p.Rounds)
	}
	var sent, received float64
	for _, r := range p.Replicas {
		sent, received = sent+r.Sent, received+r.Received
	}
	if !near(sent, state.Total) || !near(received, state.Total) {
		t.Errorf("replicas send %g and receive %g bytes, want %g", sent, received, state.Total)
	}
}

// Where everything is on one replica nothing is sent; its device holds what all would.
func TestOneReplica(t *testing.T) {
	p := must(t, small(), 0, 0, 0)
	equalTraffic(t, p.Traffic[0], plan.Traffic{Exchange: "state"})
	if m := p.Replicas[0].Memory; m.Parameters != 40*4 || m.Chains != 3*64 || m.Workspace != 3*416 || p.Cut.ToLeads != 0 {
		t.Errorf("memory %+v, cut %+v", m, p.Cut)
	}
	if !slices.Equal(p.Replicas[0].Shards, []uint32{0, 1, 2}) || !p.Shards[2].Lead || p.Shards[1].Lead || p.Shards[1].Rungs != [2]int{1, 2} || p.Shards[1].Rows != 4 {
		t.Errorf("shards %+v", p.Shards)
	}
}

func TestGroups(t *testing.T) {
	e := small()
	e.Layout = engine.Layout{Placement: "ladder", Split: 2, Rungs: 3, Chains: 4, Groups: 2}
	e.Params, e.Virtual = 1000, true
	e.Averaging = averaging.Config{Groups: 2, Every: 10, Outer: "mean", Format: "int8"}
	p := must(t, e, 0, 1, 2, 3)
	// Of each group: one shard of 6 rows tells the other 4·(12+3+3), which tells it 4·(12+3+1), twice; 2 ladders of 2 rungs are negatives elsewhere.
	want := plan.Traffic{Exchange: "state", Energies: 2 * 2 * (72 + 64), Negatives: 2 * 4 * 8, Theta: 2 * 4020, Headers: 2 * 169 * (2*2 + 1 + 1)}
	want.Total = want.Energies + want.Negatives + want.Theta + want.Headers
	equalTraffic(t, p.Traffic[0], want)
	rounds := []plan.Round{{"int8", 2 * 1016, 4 * 1016}, {"fp32", 2 * 4000, 4 * 4000}, {"bf16", 2 * 2000, 4 * 2000}}
	if !slices.Equal(p.Rounds, rounds) || p.Every != 10 {
		t.Errorf("every %d steps %v, want every 10 %v", p.Every, p.Rounds, rounds)
	}

	e.Averaging = averaging.Config{Groups: 2, Every: 1, Outer: "sync", Format: "fp32"}
	p = must(t, e, 0, 1, 2, 3)
	if got := p.Traffic[0].Gradient; got != 2*4000 || p.Rounds != nil {
		t.Errorf("gradients of %g bytes, rounds %v, want 8000 bytes and none", got, p.Rounds)
	}
}

// A rung that is drawn anew gives the states of its swaps away, and takes none.
func TestFreshDrawsAreNotSent(t *testing.T) {
	e := small()
	e.Fresh = true
	if got, want := must(t, e, 0, 1, 2).Traffic[0].Rows, 2*4*0.25*8+2*(2*4*0.125*8); got != want {
		t.Errorf("rows of %g bytes, want %g", got, want)
	}
}

func TestWindowsAndBuffers(t *testing.T) {
	e := small()
	e.Schedule, e.Window = "windowed", 2
	// Every other window of two scans the first pair swaps with probability 1 − ½², the second with 1 − (¾)².
	want := 2 * (2 * 4 * 8) * (0.75/4 + (1-9./16)/4)
	if got := must(t, e, 0, 1, 2).Traffic[0].Rows; !near(got, want) {
		t.Errorf("rows of %g bytes, want %g", got, want)
	}
	e = small()
	e.Layout.Placement, e.Pool, e.Mix = "ladder", 16, true
	m := must(t, e, 0).Replicas[0].Memory
	if m.Pool != 4*3*16*2 || m.Inputs != 4*12+4*8*2+4*3*(16+4)+4*12*3 {
		t.Errorf("memory %+v", m)
	}
	e = small()
	e.Layout = engine.Layout{Placement: "ladder", Split: 1, Rungs: 1, Groups: 1}
	e.Accept, e.Twice = nil, true
	if m := must(t, e, 0).Replicas[0].Memory; m.Chains != 0 || m.Workspace != 4*(8*28+30) {
		t.Errorf("memory %+v of a loss without chains", m)
	}
}

func TestFaultsAreReportedTogether(t *testing.T) {
	e := small()
	e.Exchange, e.Params, e.Accept = "both", 0, []float64{0.5, math.NaN()}
	e.Averaging.Groups = 3
	_, err := plan.New(e, []int{0, 1, 2})
	for _, want := range []string{`exchange: "both"`, "parameters: 0", "accept: pair 1 has NaN", "averaging.groups: 3"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	for _, holders := range [][]int{{0, 1}, {0, 2, 2}, {0, 1, -1}} {
		if _, err := plan.New(small(), holders); err == nil {
			t.Errorf("no error for holders %v", holders)
		}
	}
}
