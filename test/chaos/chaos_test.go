//go:build linux

package chaos

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
)

// size is how much happens: little wherever tests run, all of it with KELVIN_CHAOS=long.
type size struct {
	coordinators, replicas int
	deck                   Deck
	faults                 int
	longest                time.Duration // of a fault
	experiments            []string
	steps                  int // of each
	punctual               bool
}

var (
	short = size{3, 4, Commonest, 8, 7 * time.Second, []string{ladder, groups}, 500, false}
	long  = size{3, 8, Everything, 60, 30 * time.Second, []string{ladder, groups, columns}, 6000, true}
)

// The experiments: chains whose states move between replicas; groups whose parameters are averaged with momentum and sent with
// errors that are made good later; columns that wait in a buffer, with fewer shards than replicas. Together they have all the
// state that a cut can hold.
const ladder = `
name: ladder
seed: 11
data: {dataset: two_moons, samples: 300, noise: 0.1, test_samples: 0}
model: {kind: mlp, hidden: [8]}
loss: {kind: parallel_tempering_cd}
sampler: {kind: mala, steps: 2, step_size: 0.01}
tempering: {rungs: 4, chains: 8, split: 2, placement: rung}
optimizer: {kind: adam, lr: 0.01}
train: {steps: STEPS, batch: 16, cut_every: 1, log_every: 100}
evaluate: {samples: 64, scans: 4, measure: 0, projections: 8}
backend: {kind: go, threads: 1}
`

const groups = `
name: groups
seed: 12
data: {dataset: two_moons, samples: 300, noise: 0.1, test_samples: 0}
model: {kind: mlp, hidden: [8]}
loss: {kind: parallel_tempering_cd}
sampler: {kind: mala, steps: 2, step_size: 0.01}
tempering: {rungs: 3, chains: 4, placement: rung}
optimizer: {kind: adam, lr: 0.01}
averaging: {groups: 2, every: 10, outer: nesterov, format: int8}
train: {steps: STEPS, batch: 16, cut_every: 1, log_every: 100}
evaluate: {samples: 64, scans: 4, measure: 0, projections: 8}
backend: {kind: go, threads: 1}
`

const columns = `
name: columns
seed: 13
data: {dataset: two_moons, samples: 300, noise: 0.1, test_samples: 0}
model: {kind: mlp, hidden: [8]}
loss: {kind: parallel_tempering_cd}
sampler: {kind: mala, steps: 2, step_size: 0.01}
tempering: {rungs: 3, chains: 4, placement: ladder}
buffer: {size: 12, reinit: 0.1}
optimizer: {kind: adam, lr: 0.01, ema: 0.9}
averaging: {groups: 3, every: 10}
train: {steps: STEPS, batch: 16, cut_every: 1, log_every: 100}
evaluate: {samples: 64, scans: 4, measure: 0, projections: 8}
backend: {kind: go, threads: 1}
`

// A training that is killed, frozen and cut off, in every part and again and again, comes to the numbers of one that is left
// alone; whatever was acknowledged stays. KELVIN_CHAOS_SEED repeats a sequence of faults,
// KELVIN_CHAOS_DIR is an empty folder for data and logs, which stay there.
func TestNoRunDiffersForItsFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("starts seven processes and kills them for a minute")
	}
	size := short
	if os.Getenv("KELVIN_CHAOS") == "long" {
		size = long
	}
	seed := uint64(time.Now().UnixNano() % 1_000_000)
	if text := os.Getenv("KELVIN_CHAOS_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("KELVIN_CHAOS_SEED: %v", err)
		}
	}
	t.Logf("KELVIN_CHAOS_SEED=%d", seed)
	dir := programs(t)
	var experiments []Experiment
	for _, text := range size.experiments {
		experiments = append(experiments, undisturbed(t, dir, strings.Replace(text, "STEPS", strconv.Itoa(size.steps), 1)))
	}
	data := t.TempDir()
	if d := os.Getenv("KELVIN_CHAOS_DIR"); d != "" {
		data = d
	}
	cluster, err := Start(t.Context(), ClusterConfig{Dir: data, Programs: dir, Coordinators: size.coordinators, Replicas: size.replicas, Punctual: size.punctual})
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	report, err := cluster.Run(t.Context(), experiments, Plan(seed, size.deck, size.faults, size.longest), t.Logf)
	t.Logf("\n%s", report)
	if err != nil {
		t.Errorf("KELVIN_CHAOS_SEED=%d: %v\n%s", seed, err, cluster.Logs(30))
	}
}

// A replica that is cut off when its experiment ends hears nothing of the end, and asks for other work all the same.
func TestAReplicaThatMissedTheEndAsksForOtherWork(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three processes and trains for a few seconds")
	}
	dir := programs(t)
	experiment := undisturbed(t, dir, strings.Replace(ladder, "STEPS", "400", 1))
	cluster, err := Start(t.Context(), ClusterConfig{Dir: t.TempDir(), Programs: dir, Coordinators: 1, Replicas: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	r := cluster.newRun([]Experiment{experiment}, t.Logf)
	defer r.leave()
	if err := r.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	cluster.Network.Isolate(cluster.Replicas[1].Name)
	if _, err := r.watch.until(t.Context(), patience, func(e api.Experiment) bool { return e.Phase == api.Completed }); err != nil {
		t.Fatal(err)
	}
	cluster.Network.Heal()
	if err := r.finish(t.Context()); err != nil {
		t.Errorf("%v\n%s", err, cluster.Logs(10))
	}
}

// bin is the folder for the programs, which are built once.
var (
	bin   string
	build = sync.OnceValue(func() error { return Build(context.Background(), bin) })
)

func TestMain(m *testing.M) {
	var err error
	if bin, err = os.MkdirTemp("", "kelvin-chaos"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(bin)
	os.Exit(code)
}

func programs(t *testing.T) string {
	t.Helper()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	return bin
}

// undisturbed trains an experiment in one process.
func undisturbed(t *testing.T, programs, text string) Experiment {
	t.Helper()
	dir := t.TempDir()
	file, out := filepath.Join(dir, "x.yaml"), filepath.Join(dir, "run")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(programs, "coordinator"), "train", file, "--out", out, "--set", "train.cut_every=0")
	start := time.Now()
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	raw, err := os.ReadFile(filepath.Join(out, "run.json"))
	if err != nil {
		t.Fatal(err)
	}
	var info struct {
		Name, Digest string
		Steps        int
	}
	if err := json.Unmarshal(raw, &info); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %d steps in one process in %v, digest %.12s", info.Name, info.Steps, time.Since(start).Round(time.Millisecond), info.Digest)
	return Experiment{Name: info.Name, YAML: []byte(text), Digest: info.Digest}
}
