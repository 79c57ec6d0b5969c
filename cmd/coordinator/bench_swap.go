package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/replica"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

// swapBench is the machinery of a swap sweep without the numerics around it: coordinator, replicas and broker are the real
// ones, energies come from a table.
type swapBench struct {
	Program  string `json:"program"`
	Exchange string `json:"exchange"`
	Rungs    int    `json:"rungs"`
	Chains   int    `json:"chains"`
	Dim      int    `json:"dim"`
	Replicas int    `json:"replicas"`
	Link     string `json:"link"`
	Sweeps   int    `json:"sweeps"`

	MedianMS   float64 `json:"median_ms"`
	P90MS      float64 `json:"p90_ms"`
	P99MS      float64 `json:"p99_ms"`
	DecideMS   float64 `json:"decide_ms"` // median of the part in which a replica decides all swaps, alone
	PerSecond  float64 `json:"sweeps_per_second"`
	Acceptance float64 `json:"acceptance"` // of tried swaps

	// EnergyBytes are those by which the lead tells one other replica of a chain, LeadBytes those by which it is told, over all
	// chains, its own too; RowBytes those of all states that a sweep moves.
	EnergyBytes float64 `json:"energy_bytes_a_chain"`
	LeadBytes   float64 `json:"lead_bytes_a_chain"`
	RowBytes    float64 `json:"row_bytes_a_sweep"`
}

func newBenchSwapCommand() *cobra.Command {
	bench := swapBench{Program: "kelvin"}
	var output string
	cmd := &cobra.Command{
		Use:   "swap",
		Short: "Time a swap sweep between replicas over a broker on this machine",
		Long: `Time a swap sweep of a ladder whose rungs are on replicas of their own: each posts the energies of its chains, the lead
gathers them for all, and all decide all swaps; with exchange state it then posts the states that leave it and pulls those that come.
Coordinator, replicas and broker are those of a training, here in one process; the replicas reach the broker over the
loopback interface (--link tcp) or within the process. Instead of exploring, chains get energies that swap one time in three.`,
		Example: `  coordinator bench swap --rungs 8 --chains 1024 --exchange label -o json
  coordinator bench swap --rungs 32 --chains 64 --exchange state --dim 3072`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&bench.Exchange, "exchange", "label", "what an accepted swap moves: label or state")
	f.IntVar(&bench.Rungs, "rungs", 8, "rungs, each a shard")
	f.IntVar(&bench.Chains, "chains", 1024, "chains of a rung")
	f.IntVar(&bench.Dim, "dim", 2, "numbers of a state")
	f.IntVar(&bench.Replicas, "replicas", 0, "replicas; 0 is one for each rung")
	f.StringVar(&bench.Link, "link", "tcp", "how replicas reach the broker: tcp or process")
	f.IntVar(&bench.Sweeps, "sweeps", 500, "sweeps to time")
	check := addOutputFlag(cmd, &output, "table", "table", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if bench.Replicas == 0 {
			bench.Replicas = bench.Rungs
		}
		if err := positive(map[string]int{"rungs": bench.Rungs, "chains": bench.Chains, "dim": bench.Dim, "replicas": bench.Replicas, "sweeps": bench.Sweeps}); err != nil {
			return err
		}
		switch {
		case bench.Rungs < 2:
			return usageErrorf("--rungs: 1, want at least 2")
		case bench.Replicas > bench.Rungs:
			return usageErrorf("--replicas: %d, want at most the %d of --rungs", bench.Replicas, bench.Rungs)
		case !slices.Contains(engine.Exchanges(), bench.Exchange):
			return usageErrorf("--exchange: %q, want %s", bench.Exchange, strings.Join(engine.Exchanges(), " or "))
		case bench.Link != "tcp" && bench.Link != "process":
			return usageErrorf("--link: %q, want tcp or process", bench.Link)
		}
		if err := check(); err != nil {
			return err
		}
		if err := bench.run(cmd.Context()); err != nil {
			return err
		}
		if output == "json" {
			return writeJSON(cmd.OutOrStdout(), bench)
		}
		return printf(cmd.OutOrStdout(), "exchange %s, %d rungs of %d chains × %d on %d replicas over %s: median %.3f ms (p90 %.3f, p99 %.3f of %d; %.3f of it decide), %.1f sweeps/s, acceptance %.2f, %.1f B of energies a chain and replica, %s of states a sweep\n",
			bench.Exchange, bench.Rungs, bench.Chains, bench.Dim, bench.Replicas, bench.Link, bench.MedianMS, bench.P90MS, bench.P99MS, bench.Sweeps, bench.DecideMS, bench.PerSecond, bench.Acceptance, bench.EnergyBytes, size(bench.RowBytes))
	}
	return cmd
}

// warmSweeps come before those that are timed.
const warmSweeps = 20

func (r *swapBench) layout() engine.Layout {
	return engine.Layout{Placement: "rung", Split: 1, Rungs: r.Rungs, Chains: r.Chains, Groups: 1}
}

func (r *swapBench) run(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	options := transport.ServerOptions{Token: "bench"}
	if r.Link == "tcp" {
		options.Listen = "127.0.0.1:0"
	}
	server, err := transport.StartServer(ctx, options)
	if err != nil {
		return err
	}
	defer server.Close()
	b, err := backend.Open(ctx, backend.Config{Kind: backend.Go, Threads: 1}, backend.Options{NoInstall: true}) // computes nothing
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()

	var lead *swapMember
	build := func([]byte, string) (replica.Experiment, error) {
		return replica.Experiment{Layout: r.layout(), Averaging: averaging.Config{}.WithDefaults(),
			Member: func(_ *backend.Backend, _ int, local []uint32, mesh engine.Mesh) (replica.Member, error) {
				m, err := newSwapMember(*r, local, mesh)
				if err == nil && m.Lead() {
					lead = m
				}
				return m, err
			}}, nil
	}
	var wait sync.WaitGroup
	defer wait.Wait()
	for id := range r.Replicas {
		o := replica.Options{Token: "bench", ID: strconv.Itoa(id), Opened: b, Build: build}
		if r.Link == "tcp" {
			o.URL = server.URL()
		} else {
			o.Server = server
		}
		wait.Go(func() {
			if err := replica.Main(ctx, o); err != nil {
				cancel(err)
			}
		})
	}
	fleet, err := coordinator.New(ctx, coordinator.Config{
		Server: server, Token: "bench", Layout: r.layout(), Averaging: averaging.Config{}.WithDefaults(), Replicas: r.Replicas, Steps: warmSweeps + r.Sweeps,
	})
	if err != nil {
		cancel(err)
		return err
	}
	defer fleet.Close() // ends the replicas
	if err := fleet.Start(); err != nil {
		return err
	}
	for range warmSweeps + r.Sweeps {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if _, err := fleet.TrainStep(); err != nil {
			return err
		}
	}
	r.report(lead, fleet.Moved())
	return nil
}

// report is made of the times of the lead, who like everybody waits for the slowest, and of what all have moved.
func (r *swapBench) report(lead *swapMember, moved map[string]replica.Moved) {
	times := lead.times[warmSweeps:]
	total := 0.0
	for _, ms := range times {
		total += ms
	}
	_, r.MedianMS, r.P90MS = quantiles(times)
	_, r.DecideMS, _ = quantiles(lead.deciding[warmSweeps:])
	r.P99MS = times[int(0.99*float64(len(times)-1)+0.5)]
	r.PerSecond = 1e3 * float64(len(times)) / total
	var attempts, accepted uint64
	for _, pair := range lead.ensemble.Stats().Pairs {
		attempts, accepted = attempts+pair.Attempts, accepted+pair.Accepted
	}
	r.Acceptance = float64(accepted) / float64(attempts)
	for _, m := range moved {
		r.EnergyBytes += float64(m.Kinds[engine.GatheredBlob].BytesReceived)
		r.LeadBytes += float64(m.Kinds[engine.EnergiesBlob].BytesReceived)
		r.RowBytes += float64(m.Kinds[engine.RowsBlob].BytesReceived)
	}
	all := float64(warmSweeps + r.Sweeps)
	r.EnergyBytes /= all * float64(r.Rungs*r.Chains*max(1, r.Replicas-1))
	r.LeadBytes /= all * float64(r.Rungs*r.Chains)
	r.RowBytes /= all
}

// swapMember stands in for the trainer of a group: a step is a sweep.
type swapMember struct {
	bench    swapBench
	places   []engine.Place
	local    []uint32
	mesh     engine.Mesh
	ensemble *tempering.Ensemble
	labels   []int32     // row whose place holds the chain of each row, under exchange of labels
	rungOf   []int32     // of the chain at each place
	v        []float64   // of a sweep
	rows     [][]float32 // of the local shards
	noise    []float64   // table of normal numbers
	step     int
	times    []float64 // ms a sweep
	deciding []float64 // ms of it
}

func newSwapMember(bench swapBench, local []uint32, mesh engine.Mesh) (*swapMember, error) {
	ladder, err := tempering.NewLadder(tempering.Config{Rungs: bench.Rungs, Chains: bench.Chains, Ladder: "uniform"}.WithDefaults())
	if err != nil {
		return nil, err
	}
	m := &swapMember{bench: bench, places: bench.layout().Shards(0), local: local, mesh: mesh, rows: make([][]float32, bench.Rungs), noise: make([]float64, 1<<16)}
	if m.ensemble, err = tempering.NewEnsemble(tempering.Settings{Ladder: ladder, Columns: bench.Chains, Seed: 1}); err != nil {
		return nil, err
	}
	for _, shard := range local {
		m.rows[shard] = make([]float32, bench.Chains*bench.Dim)
	}
	for i := range bench.Rungs * bench.Chains {
		m.labels, m.rungOf = append(m.labels, int32(i)), append(m.rungOf, int32(i/bench.Chains))
	}
	m.v = make([]float64, len(m.labels))
	z := rand.New(rand.NewPCG(1, 1)) // the same on every replica and at every run
	for i := range m.noise {
		m.noise[i] = z.NormFloat64()
	}
	return m, nil
}

// energy is V of a chain on a rung. V of neighbours differs by a normal law under which the log ratio of a swap is N(−σ²/2, σ²)
// with σ = 1.935: then a third of the swaps is accepted, 2Φ(−σ/2).
func (m *swapMember) energy(rung, row int) float64 {
	const sigma = 1.935
	perRung := float64(m.bench.Rungs - 1) // 1/Δβ
	at := (m.step*m.bench.Chains*m.bench.Rungs + rung*m.bench.Chains + row) % (len(m.noise) - 1)
	return sigma*sigma/2*perRung*float64(rung) + sigma*perRung/math.Sqrt2*m.noise[at]
}

// TrainStep implements [engine.Learner].
func (m *swapMember) TrainStep() (engine.Report, error) {
	start := time.Now()
	scan := uint64(m.step)
	v, err := m.exchangeEnergies(scan)
	if err != nil {
		return engine.Report{}, err
	}
	began := time.Now()
	swept, err := m.ensemble.Sweep(scan, nil, v)
	if err != nil {
		return engine.Report{}, err
	}
	m.deciding = append(m.deciding, milliseconds(began))
	if m.bench.Exchange == "label" {
		next := swept.Perm // which is ours
		for i, from := range swept.Perm {
			next[i] = m.labels[from]
		}
		m.labels = next
		for k := range m.bench.Rungs {
			for _, at := range m.labels[k*m.bench.Chains:][:m.bench.Chains] {
				m.rungOf[at] = int32(k)
			}
		}
	} else if err := m.exchangeRows(scan, swept.Perm); err != nil {
		return engine.Report{}, err
	}
	for _, shard := range m.local {
		m.mesh.Release(shard, scan) // whoever posted this scan's energies has what he wanted of those before
	}
	m.step++
	m.times = append(m.times, milliseconds(start))
	return engine.Report{Step: m.step}, nil
}

func milliseconds(since time.Time) float64 { return float64(time.Since(since).Nanoseconds()) / 1e6 }

// exchangeEnergies posts what a training posts of the local shards and gives V of all, [K·B], which the lead gathers.
func (m *swapMember) exchangeEnergies(scan uint64) ([]float64, error) {
	b := m.bench.Chains
	rates := 1
	if m.bench.Exchange == "label" {
		rates = b
	}
	for _, shard := range m.local {
		found := make([]float32, 2*b+rates+3) // with a count, and a hash of eight bytes
		for row := range b {
			found[row] = float32(m.energy(int(m.rungOf[int(shard)*b+row]), row))
		}
		copy(found[b:2*b], found[:b])
		data, err := binary.Append(nil, binary.LittleEndian, found)
		if err != nil {
			return nil, err
		}
		m.mesh.Post(engine.Key{Shard: shard, Kind: engine.EnergiesBlob, Scan: scan}, data)
	}
	key := engine.Key{Shard: m.lead(), Kind: engine.GatheredBlob, Scan: scan}
	if slices.Contains(m.local, m.lead()) {
		at := make([]float32, m.bench.Rungs*b) // by place
		for _, p := range m.places {
			data, err := m.mesh.Pull(context.Background(), engine.Key{Shard: p.ID, Kind: engine.EnergiesBlob, Scan: scan})
			if err != nil {
				return nil, err
			}
			if _, err := binary.Decode(data, binary.LittleEndian, at[int(p.ID)*b:int(p.ID+1)*b]); err != nil {
				return nil, err
			}
		}
		all := make([]float32, len(at)+m.bench.Rungs+1) // with the acceptance of the rungs and a count
		for i, place := range m.labels {
			all[i] = at[place]
		}
		data, err := binary.Append(nil, binary.LittleEndian, all)
		if err != nil {
			return nil, err
		}
		m.mesh.Post(key, data)
	}
	data, err := m.mesh.Pull(context.Background(), key)
	if err != nil {
		return nil, err
	}
	for i := range m.v {
		m.v[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:])))
	}
	return m.v, nil
}

// lead is the shard that gathers the energies.
func (m *swapMember) lead() uint32 { return m.places[m.bench.layout().Lead()].ID }

// exchangeRows moves the states of accepted swaps, each of which is between neighbours.
func (m *swapMember) exchangeRows(scan uint64, perm []int32) error {
	b, dim := m.bench.Chains, m.bench.Dim
	moved := make([][]int, len(m.places)-1) // ladders whose pair i swapped
	for i := range moved {
		for j := range b {
			if int(perm[i*b+j]) == (i+1)*b+j {
				moved[i] = append(moved[i], j)
			}
		}
	}
	each := func(f func(key engine.Key, ladders []int) error) error { // every direction of a pair with swaps
		for i, ladders := range moved {
			for _, way := range [][2]uint32{{uint32(i), uint32(i + 1)}, {uint32(i + 1), uint32(i)}} {
				if len(ladders) > 0 {
					if err := f(engine.Key{Shard: way[0], Kind: engine.RowsBlob, Scan: scan, To: way[1]}, ladders); err != nil {
						return err
					}
				}
			}
		}
		return nil
	}
	err := each(func(key engine.Key, ladders []int) error {
		if m.rows[key.Shard] == nil {
			return nil
		}
		rows := make([]float32, 0, len(ladders)*dim)
		for _, j := range ladders {
			rows = append(rows, m.rows[key.Shard][j*dim:(j+1)*dim]...)
		}
		data, err := binary.Append(nil, binary.LittleEndian, rows)
		m.mesh.Post(key, data)
		return err
	})
	if err != nil {
		return err
	}
	return each(func(key engine.Key, ladders []int) error {
		if m.rows[key.To] == nil {
			return nil
		}
		data, err := m.mesh.Pull(context.Background(), key)
		if err != nil {
			return err
		}
		rows := make([]float32, len(ladders)*dim)
		if _, err := binary.Decode(data, binary.LittleEndian, rows); err != nil {
			return err
		}
		for n, j := range ladders {
			copy(m.rows[key.To][j*dim:(j+1)*dim], rows[n*dim:(n+1)*dim])
		}
		return nil
	})
}

// Lead, and what follows, implement [replica.Member]: nothing is learnt and nothing is kept.
func (m *swapMember) Lead() bool                            { return m.rows[m.bench.Rungs-1] != nil }
func (m *swapMember) Start() error                          { return nil }
func (m *swapMember) StartAt([]float32) error               { return nil }
func (m *swapMember) Step() int                             { return m.step }
func (m *swapMember) Weights() ([]float32, error)           { return nil, nil }
func (m *swapMember) SetTheta([]float32) error              { return nil }
func (m *swapMember) Theta() ([]float32, error)             { return nil, nil }
func (m *swapMember) Close()                                {}
func (m *swapMember) Params() ([]checkpoint.Tensor, error)  { return nil, nil }
func (m *swapMember) Energies([]float32) ([]float64, error) { return nil, engine.ErrNoEnergy }

// Cut implements [engine.Learner]; it is empty.
func (m *swapMember) Cut() (checkpoint.Cut, error) {
	if !m.Lead() {
		return checkpoint.Cut{}, engine.ErrNotLead
	}
	return checkpoint.Cut{Step: m.step, Meta: json.RawMessage("{}")}, nil
}

// Restore implements [engine.Learner]: a sweep cannot be made again.
func (m *swapMember) Restore(*checkpoint.Cut) error {
	return fmt.Errorf("bench swap: a replica was lost after %d sweeps", m.step)
}
