package local

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/experiment"
	"github.com/kelvin-ebm/kelvin/pkg/replica"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

// The values of Options.Spawn.
const (
	SpawnGoroutine = "goroutine" // replicas are goroutines of this process and share its backend
	SpawnProcess   = "process"   // this program is started again for each
	SpawnNone      = "none"      // others start them: the program replica, with Options.Listen and Options.Token
)

// Spawns lists the values of Options.Spawn.
func Spawns() []string { return []string{SpawnGoroutine, SpawnProcess, SpawnNone} }

// Environment variables that stand for flags.
const (
	TokenVariable    = "KELVIN_TOKEN"    // the token itself, for --token-file
	InsecureVariable = "KELVIN_INSECURE" // 1 for --insecure
)

// ReadToken reads the token of an experiment from a file, or from the environment where none is named. Tokens are no flags: those show in
// lists of processes.
func ReadToken(path string) (string, error) {
	if path == "" {
		if token := os.Getenv(TokenVariable); token != "" {
			return token, nil
		}
		return "", fmt.Errorf("--token-file: missing, and %s is not set, want the token of the experiment", TokenVariable)
	}
	token, err := api.ReadToken(path)
	if err != nil {
		return "", fmt.Errorf("--token-file: %w", err)
	}
	return token, nil
}

// chained is a learner with chains: one in this process, or a fleet.
type chained = replica.Chained

// chainsOf are those of a learner; nil for one that keeps none.
func (p *Parts) chainsOf(l engine.Learner) chained {
	c, ok := l.(chained)
	if !ok || !p.Config.Loss.Chains() {
		return nil
	}
	return c
}

// settled says whether a learner is at the step of its last report: replicas may be ahead for a while.
func settled(l engine.Learner) bool {
	f, ok := l.(interface{ Settled() bool })
	return !ok || f.Settled()
}

// layoutOf cuts an experiment into shards; those of a loss over data alone are parts of a step's rows.
func layoutOf(cfg *experiment.Config) engine.Layout {
	if !cfg.Loss.Chains() {
		return engine.Layout{Placement: "ladder", Split: cfg.Train.Split, Rungs: 1, Chains: cfg.Train.Split, Groups: cfg.Averaging.Groups}
	}
	t := cfg.Tempering
	return engine.Layout{Placement: t.Placement, Split: t.Split, Rungs: t.Rungs, Chains: t.Chains, Groups: cfg.Averaging.Groups}
}

func (p *Parts) layout() engine.Layout { return layoutOf(p.Config) }

// distributed says whether a training needs a coordinator: for several replicas, or several groups.
func (p *Parts) distributed(replicas int) bool { return replicas > 1 || p.Config.Averaging.Travels() }

// replicated is what a replica needs of the experiment.
func (p *Parts) replicated() replica.Experiment {
	return replica.Experiment{
		Backend: p.Config.Backend, Layout: p.layout(), Averaging: p.Config.Averaging,
		Member: func(b *backend.Backend, group int, local []uint32, mesh engine.Mesh) (replica.Member, error) {
			sync := p.Config.Averaging.Outer == "sync"
			if !p.Config.Loss.Chains() {
				cfg := p.data
				cfg.Group, cfg.Local, cfg.Mesh, cfg.Sync = group, local, mesh, sync
				return engine.NewDataTrainer(b, cfg)
			}
			cfg := p.chains
			cfg.Group, cfg.Local, cfg.Mesh, cfg.Sync = group, local, mesh, sync
			return engine.NewTrainer(b, cfg)
		},
	}
}

// Replicated builds an experiment for a replica, from its resolved YAML; see [replica.Options].
func Replicated(yaml []byte, dir string) (replica.Experiment, error) {
	cfg, err := experiment.Parse(filepath.Join(dir, experimentFile), yaml, nil)
	if err != nil {
		return replica.Experiment{}, err
	}
	p, err := Build(cfg, nil, nil)
	if err != nil {
		return replica.Experiment{}, err
	}
	return p.replicated(), nil
}

// fleet is a training on replicas that this process has started.
type fleet struct {
	*coordinator.Fleet
	server *transport.Server
	wait   sync.WaitGroup
	end    context.CancelFunc // of replicas that outlive the training
}

// openFleet starts the replicas and waits until all have come.
func (p *Parts) openFleet(ctx context.Context, b *backend.Backend, opts Options, book coordinator.Book, notice func(string)) (_ *fleet, err error) {
	yaml, err := experiment.Marshal(p.Config)
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(p.Config.Dir)
	if err != nil {
		return nil, err
	}
	token := opts.Token
	if token == "" {
		token = rand.Text()
	}
	server := transport.ServerOptions{Token: token}
	switch opts.Spawn {
	case SpawnProcess:
		server.Listen = "127.0.0.1:0"
	case SpawnNone:
		server.Listen = opts.Listen
	}
	f := &fleet{}
	if f.server, err = transport.StartServer(ctx, server); err != nil {
		return nil, err
	}
	ctx, failed := context.WithCancelCause(ctx)
	defer failed(nil)
	living, end := context.WithCancel(context.WithoutCancel(ctx))
	f.end = end
	replicas, own := max(1, opts.Replicas), max(1, opts.Replicas)
	if opts.Spawn == SpawnNone {
		own = 0
		if opts.Progress != nil { // the bar is not there yet
			fmt.Fprintf(opts.Progress, "waiting for %d of `replica --coordinator %s`\n", replicas, f.server.URL())
		}
	}
	for i := range own {
		work := func() error {
			return replica.Main(living, replica.Options{Server: f.server, Token: token, ID: strconv.Itoa(i), Opened: b, Version: opts.Version,
				Build: func([]byte, string) (replica.Experiment, error) { return p.replicated(), nil }})
		}
		if opts.Spawn == SpawnProcess {
			work = func() error { return runReplica(living, f.server.URL(), token, i, own) }
		}
		f.wait.Go(func() {
			if err := work(); err != nil {
				failed(err)
			}
		})
	}
	f.Fleet, err = coordinator.New(ctx, coordinator.Config{
		Server: f.server, Token: token, Experiment: replica.Offer{Experiment: yaml, Dir: dir}, Layout: p.layout(), Averaging: p.Config.Averaging,
		Platform: replica.Platform(opts.Version, b.Fingerprint().String()), Replicas: replicas, Steps: p.Steps, Every: p.looks(), Book: book, Notice: notice,
	})
	if err != nil {
		f.stop()
		return nil, err
	}
	return f, nil
}

// looks are the intervals, in steps, at which the training loop looks at more than reports.
func (p *Parts) looks() []int {
	out := recordEvery(p.Config)
	if p.Config.Train.Frames > 0 {
		out = append(out, p.frameEvery())
	}
	return out
}

// Close ends the replicas.
func (f *fleet) Close() {
	f.Fleet.Close()
	f.stop()
}

// stop waits for the replicas, who have been told to end, and ends who does not.
func (f *fleet) stop() {
	late := time.AfterFunc(replica.Lease, f.end)
	if f.Fleet == nil {
		f.end()
	}
	f.wait.Wait()
	late.Stop()
	f.end()
	f.server.Close()
}

// runReplica starts this program again as one of several replicas, and returns when that has ended; it is killed at the end of
// ctx. Each gets its share of the processors, unless the environment says otherwise: with all of them, threads that look for
// work in vain would take the time of the others.
func runReplica(ctx context.Context, url, token string, id, of int) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, program, "replica", "--coordinator", url, "--id", strconv.Itoa(id))
	share := fmt.Sprintf("GOMAXPROCS=%d", max(1, runtime.GOMAXPROCS(0)/of))
	cmd.Env = append(append([]string{share}, os.Environ()...), TokenVariable+"="+token) // of two values the last counts
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(said.String()), "\n")
		return fmt.Errorf("replica %d: %w: %s", id, err, lines[len(lines)-1])
	}
	return nil
}

// open opens the backend, and the learner on it or on replicas.
func (r *run) open(ctx context.Context) (err error) {
	if !r.parts.distributed(r.opts.Replicas) && r.opts.Spawn != SpawnNone {
		r.backend, r.trainer, err = r.parts.Open(ctx, r.opts.Backend)
		return err
	}
	if r.opts.Spawn == SpawnNone && (r.opts.Listen == "" || r.opts.Token == "") {
		return errors.New("spawn: none needs an address to listen at and a token, by which replicas find the training")
	}
	if r.opts.Spawn != "" && r.opts.Spawn != SpawnGoroutine && (r.opts.Network != nil || r.opts.Loss != nil) {
		return errors.New("spawn: " + r.opts.Spawn + " cannot hand over a network or a loss of the caller's own, want goroutine")
	}
	if r.backend, err = backend.Open(ctx, r.parts.Config.Backend, r.opts.Backend); err != nil {
		return err
	}
	f, err := r.parts.openFleet(ctx, r.backend, r.opts, r.keeper.journal, func(text string) {
		if r.show != nil {
			r.show.Log(text)
			r.muster()
		}
	})
	if err != nil {
		return errors.Join(err, r.backend.Close())
	}
	r.trainer = f
	if r.opts.Replicas > 1 {
		r.crew = &crew{layout: r.parts.layout(), scans: max(1, r.parts.Config.Tempering.Scans)}
	}
	return nil
}
