// Command scale trains nothing on many replicas: coordinator, message server, replicas and messages are those of a training
// whose shards are rungs, but a step is a swap sweep over states of one number. It compares the index process with a
// serial program and prints what a scan costs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/averaging"
	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/plots"
	"github.com/kelvin-ebm/kelvin/pkg/replica"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

func main() {
	sizes := flag.String("replicas", "16,64,256,1000", "numbers of replicas, each with one rung")
	chains := flag.Int("chains", 2, "chains of a rung")
	scans := flag.Int("scans", 20, "scans, the first of which is not timed")
	picture := flag.String("plot", "", "draw the table into this file, PNG or SVG")
	flag.Parse()
	if err := run(*sizes, *chains, *scans, *picture); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

func run(sizes string, chains, scans int, picture string) error {
	var ks, scan, serial, each []float64
	fmt.Printf("| replicas | registered after, s | a scan, median ms | slowest | the same without messages | heap a replica, MiB | after the last scan |\n|---|---|---|---|---|---|---|\n")
	for size := range strings.SplitSeq(sizes, ",") {
		k, err := strconv.Atoi(size)
		if err != nil || k < 2 || chains < 1 || scans < 2 {
			return fmt.Errorf("%s replicas, %d chains, %d scans: want at least 2, 1 and 2", size, chains, scans)
		}
		r, err := measure(context.Background(), k, chains, scans)
		if err != nil {
			return fmt.Errorf("%d replicas: %w", k, err)
		}
		fmt.Printf("| %d | %.1f | %.1f | %.1f | %.3f | %.2f | %.2f |\n", k, r.registered.Seconds(), ms(r.median), ms(r.slowest), ms(r.serial), r.before, r.after)
		ks, scan, serial, each = append(ks, float64(k)), append(scan, ms(r.median)), append(serial, ms(r.serial)), append(each, ms(r.median)/float64(k))
	}
	if picture == "" {
		return nil
	}
	fig, err := plots.Curves(plots.CurvesOptions{Title: "Cost of a scan", Subtitle: fmt.Sprintf("one rung a replica, %d chains each", chains), XLabel: "replicas", LogX: true},
		plots.Panel{Title: "a scan, ms", LogY: true, Series: []plots.Series{{Name: "replicas", X: ks, Y: scan}, {Name: "one loop, no messages", X: ks, Y: serial}}},
		plots.Panel{Title: "a scan, ms a replica", Series: []plots.Series{{Name: "replicas", X: ks, Y: each}}})
	if err != nil {
		return err
	}
	return fig.Save(picture)
}

func ms(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

// result is what a number of replicas came to.
type result struct {
	registered      time.Duration // until all had
	median, slowest time.Duration // of a scan
	serial          time.Duration // a scan, in one loop
	before, after   float64       // MiB of heap a replica, after the first and after the last scan
}

const token = "scale"

// measure lets k replicas make scans, and fails if a walker is ever found on another rung than in the serial program.
func measure(ctx context.Context, k, chains, scans int) (r result, err error) {
	start := time.Now()
	want, err := serial(k, chains, scans)
	if err != nil {
		return r, err
	}
	r.serial = time.Since(start) / time.Duration(scans)

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	server, err := transport.StartServer(ctx, transport.ServerOptions{Token: token})
	if err != nil {
		return r, err
	}
	defer server.Close()
	b, err := backend.Open(ctx, backend.Config{Kind: backend.Go, Threads: 1}, backend.Options{NoInstall: true}) // computes nothing
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()

	layout := engine.Layout{Placement: "rung", Split: 1, Rungs: k, Chains: chains, Groups: 1}
	seen := newIndex(scans, k*chains)
	build := func([]byte, string) (replica.Experiment, error) {
		return replica.Experiment{Layout: layout, Averaging: averaging.Config{}.WithDefaults(),
			Member: func(_ *backend.Backend, _ int, local []uint32, mesh engine.Mesh) (replica.Member, error) {
				return newMember(layout, local, mesh, seen)
			}}, nil
	}
	var wait sync.WaitGroup
	defer wait.Wait()
	start = time.Now()
	for id := range k {
		o := replica.Options{Server: server, Token: token, ID: strconv.Itoa(id), Opened: b, Build: build}
		wait.Go(func() {
			if err := replica.Main(ctx, o); err != nil {
				cancel(err)
			}
		})
	}
	fleet, err := coordinator.New(ctx, coordinator.Config{Server: server, Token: token, Layout: layout, Averaging: averaging.Config{}.WithDefaults(),
		Replicas: k, Steps: scans, Every: []int{1}})
	if err != nil {
		cancel(err)
		return r, err
	}
	defer fleet.Close() // ends the replicas
	r.registered = time.Since(start)
	if err := fleet.Start(); err != nil {
		return r, err
	}
	var times []time.Duration
	for scan := range scans {
		start := time.Now()
		if _, err := fleet.TrainStep(); err != nil {
			return r, err
		}
		switch took := time.Since(start); scan {
		case 0:
			r.before = heap() / float64(k)
		default:
			times = append(times, took)
		}
	}
	r.after = heap() / float64(k)
	slices.Sort(times)
	r.median, r.slowest = times[len(times)/2], times[len(times)-1]
	if n := fleet.Generations(); n != 1 {
		return r, fmt.Errorf("%d generations, want one", n)
	}
	for scan := range want {
		if !slices.Equal(seen[scan], want[scan]) {
			return r, fmt.Errorf("scan %d: walkers are on other rungs than in the serial program", scan)
		}
	}
	return r, nil
}

// heap is what is in use, in MiB.
func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapInuse+m.StackInuse) / (1 << 20)
}
