// Command replicas times the training steps of one experiment in one process without any coordinator, on replicas that are
// goroutines and on replicas that are processes. All three are there from the start and take turns, a slice of steps each, since
// the speed of a shared machine drifts; a ratio is the median over the turns. Of processor time a busy neighbour takes less
// than of time by the clock, so that both are given.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/experiment"
	"github.com/kelvin-ebm/kelvin/pkg/local"
	"github.com/kelvin-ebm/kelvin/pkg/replica"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

// cases are experiments and the replicas that they are spread over: one each for a shard, and one that stands by behind the
// experiment that has one shard.
var cases = []struct {
	name     string
	sets     []string
	replicas int
}{
	{"1 shard", nil, 2},
	{"8 ranges of ladders", []string{"tempering.split=8"}, 8},
	{"8 rungs", []string{"tempering.rungs=8", "tempering.placement=rung"}, 8},
}

const (
	token = "replicas"
	// asReplica is the environment variable that makes this program a replica of the coordinator at its value.
	asReplica = "KELVIN_BENCH_REPLICA"
)

func main() {
	if url := os.Getenv(asReplica); url != "" {
		err := replica.Main(context.Background(), replica.Options{URL: url, Token: token, ID: os.Args[1], Build: local.Replicated})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(replica.ExitCode(err))
	}
	turns := flag.Int("turns", 9, "turns of each, the first of which is not timed")
	steps := flag.Int("steps", 40, "training steps a turn")
	file := flag.String("experiment", "examples/two-moons.yaml", "experiment; its loss must have chains")
	hidden := flag.Int("hidden", 64, "width of the network's two layers")
	chains := flag.Int("chains", 256, "ladders")
	flag.Parse()
	fmt.Printf("| experiment | replicas | one process, ms a step (of processors) | goroutines | processes | goroutines / one | processes / one |\n|---|---|---|---|---|---|---|\n")
	for _, c := range cases {
		cfg, err := experiment.Load(*file, append(c.sets, fmt.Sprintf("tempering.chains=%d", *chains), fmt.Sprintf("model.hidden=[%d, %[1]d]", *hidden), "backend={kind: xla:cpu, threads: 2}"))
		if err == nil {
			err = measure(c.name, cfg, c.replicas, *turns, *steps)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "replicas: %s: %v\n", c.name, err)
			os.Exit(1)
		}
	}
}

// measure prints a row of the table.
func measure(name string, cfg *experiment.Config, replicas, turns, steps int) (err error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	yaml, err := experiment.Marshal(cfg)
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return err
	}
	exp, err := local.Replicated(yaml, dir)
	if err != nil {
		return err
	}
	b, err := backend.Open(ctx, exp.Backend, backend.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()

	alone, err := exp.Member(b, 0, nil, nil)
	if err != nil {
		return err
	}
	defer alone.Close()
	learners := []engine.Learner{alone}
	pids := make(chan int, replicas)
	for _, process := range []bool{false, true} {
		work := func(server *transport.Server, id string) error {
			return replica.Main(ctx, replica.Options{Server: server, Token: token, ID: id, Build: local.Replicated, Opened: b})
		}
		var listen string
		if process {
			listen = "127.0.0.1:0"
			work = func(server *transport.Server, id string) error {
				cmd := exec.CommandContext(ctx, os.Args[0], id)
				share := fmt.Sprintf("GOMAXPROCS=%d", max(1, runtime.GOMAXPROCS(0)/replicas)) // as in train
				cmd.Env, cmd.Stderr = append(append([]string{share}, os.Environ()...), asReplica+"="+server.URL()), os.Stderr
				if err := cmd.Start(); err != nil {
					return err
				}
				pids <- cmd.Process.Pid
				return cmd.Wait()
			}
		}
		server, err := transport.StartServer(ctx, transport.ServerOptions{Listen: listen, Token: token})
		if err != nil {
			return err
		}
		var wait sync.WaitGroup
		defer func() {
			wait.Wait()
			server.Close()
		}()
		for i := range replicas {
			wait.Go(func() {
				if err := work(server, strconv.Itoa(i)); err != nil {
					cancel(err)
				}
			})
		}
		fleet, err := coordinator.New(ctx, coordinator.Config{Server: server, Token: token, Experiment: replica.Offer{Experiment: yaml, Dir: dir},
			Layout: exp.Layout, Averaging: averaging.Config{}.WithDefaults(), Replicas: replicas, Steps: turns * steps, Every: []int{steps}})
		if err != nil {
			cancel(err)
			return err
		}
		defer fleet.Close() // ends the replicas
		learners = append(learners, fleet)
	}
	programs := []int{os.Getpid()}
	for range replicas {
		programs = append(programs, <-pids)
	}
	times, busy := make([][]float64, len(learners)), make([][]float64, len(learners)) // ms a step, by turn
	for turn := range turns {
		for i, l := range learners {
			if turn == 0 {
				if err := l.Start(); err != nil {
					return err
				}
			}
			start, before := time.Now(), processors(programs)
			for range steps {
				if _, err := l.TrainStep(); err != nil {
					return err
				}
			}
			if turn > 0 {
				times[i] = append(times[i], float64(time.Since(start).Nanoseconds())/1e6/float64(steps))
				busy[i] = append(busy[i], (processors(programs)-before)/float64(steps))
			}
		}
	}
	var digests []string
	for _, l := range learners {
		cut, err := l.Cut()
		if err != nil {
			return err
		}
		digest, err := cut.Sum()
		if err != nil {
			return err
		}
		digests = append(digests, digest)
	}
	if len(slices.Compact(digests)) > 1 {
		return fmt.Errorf("digests of one process, goroutines and processes: %.12s, want them equal", digests)
	}
	fmt.Printf("| %s | %d", name, replicas)
	for i := range learners {
		fmt.Printf(" | %.2f (%.2f)", median(times[i]), median(busy[i]))
	}
	for i := range learners[1:] {
		fmt.Printf(" | %.2f (%.2f)", ratio(times[i+1], times[0]), ratio(busy[i+1], busy[0]))
	}
	fmt.Println(" |")
	return nil
}

// processors is the time in ms that programs have had of them so far, as Linux counts it: in hundredths of a second.
func processors(pids []int) (ms float64) {
	for _, pid := range pids {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)) // one that has ended counts nothing
		_, stat, _ = bytes.Cut(stat, []byte(") "))
		for i, field := range bytes.Fields(stat) {
			if ticks, err := strconv.Atoi(string(field)); err == nil && (i == 11 || i == 12) { // utime, stime
				ms += 10 * float64(ticks)
			}
		}
	}
	return ms
}

// ratio is the median over the turns.
func ratio(of, to []float64) float64 {
	out := make([]float64, len(of))
	for i := range of {
		out[i] = of[i] / to[i]
	}
	return median(out)
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
