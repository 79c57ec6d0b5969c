package local

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/experiment"
	"github.com/kelvin-ebm/kelvin/pkg/replica"
	"github.com/kelvin-ebm/kelvin/pkg/runlog"
)

// A training on replicas leaves the run that one in this process leaves: the digest of its last cut and every number in its
// metrics, its clock apart, also when it was interrupted and went on.
func TestReplicasLeaveTheSameRun(t *testing.T) {
	// until trains until step 25, where a record is written, and on the way there is interrupted at another step, if any.
	until := func(t *testing.T, text string, replicas, interrupt int) (string, []runlog.Record) {
		t.Helper()
		dir := filepath.Join(t.TempDir(), "run")
		for _, at := range []int{interrupt, 25} {
			if at == 0 {
				continue
			}
			ctx, cancel := context.WithCancel(t.Context())
			opts := options(dir)
			opts.Replicas, opts.Resume = replicas, at == 25 && interrupt > 0
			opts.afterStep = func(step int) {
				if step == at {
					cancel()
				}
			}
			_, err := Train(ctx, parse(t, backend.Go, text), opts)
			cancel()
			if !errors.Is(err, ErrInterrupted) {
				t.Fatalf("error %v, want an interruption", err)
			}
		}
		records, err := runlog.ReadMetrics(dir)
		if err != nil {
			t.Fatal(err)
		}
		info, err := runlog.ReadRunInfo(dir)
		if err != nil {
			t.Fatal(err)
		}
		if info.Steps != 25 || info.Replicas != max(1, replicas) || info.StepsRedone != 0 {
			t.Errorf("run.json says %d steps, %d replicas and %d steps made again, want 25, %d and none", info.Steps, info.Replicas, info.StepsRedone, max(1, replicas))
		}
		return info.Digest, records
	}
	with := func(old, now string) string { return strings.Replace(small, old, now, 1) }
	field := func(old, now string) string { return strings.Replace(smallField, old, now, 1) }
	for _, tc := range []struct {
		name, text string
		replicas   int
	}{
		{"chains on one shard", small, 2},
		{"rungs apart", with("chains: 16}", "chains: 16, placement: rung, split: 2}"), 4},
		{"two groups", with("backend:", "averaging: {groups: 2, every: 4}\nbackend:"), 2},
		{"two groups, gradients averaged", with("backend:", "averaging: {groups: 2, outer: sync}\nbackend:"), 2},
		{"data alone", smallField, 2},
		{"rungs apart, gradients on all", with("chains: 16}", "chains: 16, placement: rung, gradient_on: all}"), 3},
		{"a large buffer on four shards", with("chains: 16}", "chains: 16, split: 4}") + "buffer: {size: 48, reinit: 0.1, warmup: 4}\n", 3},
		{"rows on four shards", field("batch: 16", "batch: 16, split: 4"), 3},
		{"rows of two groups", field("batch: 16", "batch: 16, split: 2") + "averaging: {groups: 2, every: 4, outer: nesterov}\n", 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			digest, records := until(t, tc.text, 0, 0)
			for _, interrupt := range []int{0, 13} {
				gotDigest, got := until(t, tc.text, tc.replicas, interrupt)
				if gotDigest != digest {
					t.Errorf("interrupted at step %d: digest %.12s, want %.12s", interrupt, gotDigest, digest)
				}
				compareRecords(t, got, records)
			}
		})
	}
}

// A field has no energy, on replicas as in one process, and its training ends well.
func TestReplicasOfAField(t *testing.T) {
	opts := options(filepath.Join(t.TempDir(), "run"))
	opts.Replicas = 2
	if _, err := Train(t.Context(), parse(t, backend.Go, smallField), opts); err != nil {
		t.Fatal(err)
	}
}

// compareRecords compares metrics but for times.
func compareRecords(t *testing.T, got, want []runlog.Record) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d records, want %d", len(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		if g.Step != w.Step || len(g.Values) != len(w.Values) {
			t.Fatalf("record %d is of step %d with %d values, want step %d with %d", i, g.Step, len(g.Values), w.Step, len(w.Values))
		}
		for j, value := range w.Values {
			if value.Key == "steps_per_second" {
				continue
			}
			if a, b := g.Values[j], value; a.Key != b.Key || a.Number != b.Number || len(a.List) != len(b.List) {
				t.Errorf("step %d: %v, want %v", g.Step, a, b)
			} else {
				for k := range b.List {
					if a.List[k] != b.List[k] {
						t.Errorf("step %d: %s: %v, want %v", g.Step, a.Key, a.List, b.List)
						break
					}
				}
			}
		}
	}
}

// What a replica builds from the resolved YAML is what was built here, its data found from wherever it stands.
func TestReplicated(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "points.csv"), []byte("x,y\n"+strings.Repeat("0,1\n1,0\n0.5,0.5\n", 30)), 0o600); err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(strings.Replace(small, "{dataset: two_moons, samples: 300, noise: 0.1, test_samples: 200}", "{dataset: csv, path: points.csv}", 1), "KIND", backend.Go)
	cfg, err := experiment.Parse(filepath.Join(dir, "x.yaml"), []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Build(cfg, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	yaml, err := experiment.Marshal(p.Config)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Replicated(yaml, dir)
	if err != nil {
		t.Fatal(err)
	}
	if got.Layout != p.layout() || got.Backend != p.Config.Backend || got.Averaging != p.Config.Averaging {
		t.Errorf("built %+v", got)
	}
	if _, err := Replicated([]byte("data: 3"), dir); err == nil {
		t.Error("a faulty experiment was built")
	}
}

func TestFleetFaults(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Options)
		want   string
	}{
		{"unknown spawn", func(o *Options) { o.Spawn = "thread" }, `spawn: "thread", want one of goroutine, process, none`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			opts := options(filepath.Join(t.TempDir(), "run"))
			opts.Replicas = 2
			tc.change(&opts)
			if _, err := Train(t.Context(), parse(t, backend.Go, small), opts); err == nil || err.Error() != tc.want {
				t.Errorf("error %v, want %s", err, tc.want)
			}
		})
	}
}

// Replicas that others start find the training by its address and its token, and come to the same run.
func TestReplicasStartedByOthers(t *testing.T) {
	alone, err := Train(t.Context(), parse(t, backend.Go, small), options(filepath.Join(t.TempDir(), "alone")))
	if err != nil {
		t.Fatal(err)
	}
	said, say := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		line, err := bufio.NewReader(said).ReadString('\n')
		go io.Copy(io.Discard, said)
		if err != nil {
			ended <- err
			return
		}
		url := strings.Trim(line[strings.Index(line, "nats://"):], "`\n")
		ended <- replica.Main(t.Context(), replica.Options{URL: url, Token: "a token", ID: "one", Build: Replicated, Version: Version()})
	}()
	opts := options(filepath.Join(t.TempDir(), "run"))
	opts.Spawn, opts.Listen, opts.Token, opts.Version, opts.Progress = SpawnNone, "127.0.0.1:0", "a token", Version(), say
	s, err := Train(t.Context(), parse(t, backend.Go, small), opts)
	if err != nil {
		t.Fatal(err)
	}
	if s.Digest != alone.Digest {
		t.Errorf("digest %.12s, want %.12s as in one process", s.Digest, alone.Digest)
	}
	if err := <-ended; err != nil {
		t.Errorf("the replica ended with %v", err)
	}
}
