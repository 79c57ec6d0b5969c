package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/datasets"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/experiment"
	"github.com/kelvin-ebm/kelvin/pkg/runlog"
)

// trained is the folder of a run on the pure-Go backend that was interrupted at step 6, and its last cut.
func trained(t *testing.T, sets ...string) (string, *checkpoint.Cut) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "run")
	trainUntil(t, parse(t, "go", small, append(sets, "train.frames=0", "train.cut_every=1e-9", "train.log_every=1")...), options(dir), 6)
	return dir, lastCut(t, dir)
}

// trainUntil interrupts a training at a step, so that it is not evaluated.
func trainUntil(t *testing.T, cfg *experiment.Config, o Options, step int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o.afterStep = interruptAt(step, cancel)
	if _, err := Train(ctx, cfg, o); !errors.Is(err, ErrInterrupted) {
		t.Fatal(err)
	}
}

func lastCut(t *testing.T, dir string) *checkpoint.Cut {
	t.Helper()
	store, err := RunCuts(dir)
	if err != nil {
		t.Fatal(err)
	}
	cut, err := store.Latest()
	if err != nil {
		t.Fatal(err)
	}
	return cut
}

// resumed goes on with a run and returns its digest at a step.
func resumed(t *testing.T, dir string, step int) string {
	t.Helper()
	cfg, err := LoadExperiment(dir)
	if err != nil {
		t.Fatal(err)
	}
	o := options(dir)
	o.Resume = true
	trainUntil(t, cfg, o, step)
	cut := lastCut(t, dir)
	if cut.Step != step {
		t.Fatalf("last cut of step %d, want %d", cut.Step, step)
	}
	return cut.Digest
}

// readBack is what an npz file of the arrays holds.
func readBack(t *testing.T, arrays []datasets.Array) []datasets.Array {
	t.Helper()
	path := filepath.Join(t.TempDir(), "buffer.npz")
	if err := WriteArrays(path, arrays); err != nil {
		t.Fatal(err)
	}
	out, err := datasets.ReadNPZ(path)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A buffer that goes out and comes back leaves every bit of the cut as it was; one that comes back changed is read as it
// was written, and training goes on from it.
func TestBufferGoesOutAndComesBack(t *testing.T) {
	for _, tc := range []struct {
		name          string
		sets          []string
		groups, slots int
		rungs         int
	}{
		{"every column live", nil, 1, 16, 3},
		{"a pool, some columns refilled", []string{"buffer.size=24", "buffer.reinit=0.2"}, 1, 24, 3},
		{"labels move", []string{"tempering.exchange=label"}, 1, 16, 3},
		{"two groups of two shards", []string{"averaging={groups: 2, every: 2}", "tempering.split=2"}, 2, 16, 3},
		{"one rung", []string{"loss={kind: persistent_cd}", "tempering={chains: 16}"}, 1, 16, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir, cut := trained(t, tc.sets...)
			sum, err := CheckCut(cut)
			if err != nil {
				t.Fatal(err)
			}
			want := uint64(tc.groups * tc.slots)
			if sum.Ladders != want || sum.Rungs != uint64(tc.rungs) || sum.Labels != sum.Ladders*sum.Rungs || sum.Created-sum.Retired != sum.Live {
				t.Errorf("conservation %+v, want %d ladders of %d rungs", sum, want, tc.rungs)
			}
			buffer, err := ReadBuffer(cut)
			if err != nil {
				t.Fatal(err)
			}
			if s := buffer.Stats(); s.Groups != tc.groups || s.Columns != tc.slots || len(s.Rungs) != tc.rungs || s.Drawn == 0 || s.AgeMax < s.AgeMin || s.Rungs[0].Std <= 0 {
				t.Errorf("stats %+v", s)
			}
			arrays := readBack(t, buffer.Arrays())
			if err := buffer.SetArrays(cut, arrays); err != nil {
				t.Fatal(err)
			}
			if same, err := cut.Sum(); err != nil || same != cut.Digest {
				t.Fatalf("the same buffer gives digest %.12s, want %.12s (%v)", same, cut.Digest, err)
			}

			for _, a := range arrays {
				if strings.Contains(a.Name, "rung") {
					for i := range a.Data.([]float64) {
						a.Data.([]float64)[i] += 0.25
					}
				}
			}
			if err := buffer.SetArrays(cut, arrays); err != nil {
				t.Fatal(err)
			}
			if err := ReplaceCut(dir, cut); err != nil {
				t.Fatal(err)
			}
			again, err := ReadBuffer(lastCut(t, dir))
			if err != nil {
				t.Fatal(err)
			}
			for g := range buffer.groups {
				if !slices.Equal(again.groups[g].States, buffer.groups[g].States) {
					t.Errorf("group %d: other states than were written", g)
				}
			}
			info, err := runlog.ReadRunInfo(dir)
			if err != nil || info.Digest != lastCut(t, dir).Digest || info.Digest == cut.Digest {
				t.Errorf("run.json: digest %.12s, the cut's is %.12s (%v)", info.Digest, lastCut(t, dir).Digest, err)
			}
			resumed(t, dir, 8)
		})
	}
}

// What does not fit the training is refused with every fault, and nothing changes.
func TestBufferImportRefuses(t *testing.T) {
	_, cut := trained(t)
	for _, tc := range []struct {
		name  string
		spoil func(map[string]*datasets.Array)
		want  string
	}{
		{"a rung missing", func(a map[string]*datasets.Array) { a["rung1"].Name = "rung7" }, `array "rung1": missing, want shape [16 2]`},
		{"another array", func(a map[string]*datasets.Array) { a["ages"].Name = "aegs" }, `array "aegs": not one of a buffer of 3 rungs of 16 columns`},
		{"another shape", func(a map[string]*datasets.Array) { a["rung2"].Shape = []int{8, 4} }, `array "rung2": shape [8 4], want [16 2]`},
		{"NaN", func(a map[string]*datasets.Array) { a["rung0"].Data.([]float64)[5] = math.NaN() }, `array "rung0": number 5 is NaN, want finite`},
		{"too large for float32", func(a map[string]*datasets.Array) { a["rung0"].Data.([]float64)[5] = 1e39 }, `number 5 is 1e+39`},
		{"a walker twice", func(a map[string]*datasets.Array) {
			labels := a["labels"].Data.([]float64)
			labels[0] = labels[16]
		}, "want each label once"},
		{"half a walker", func(a map[string]*datasets.Array) { a["labels"].Data.([]float64)[0] = 0.5 }, "want 0 to 2"},
		{"older than the run", func(a map[string]*datasets.Array) { a["ages"].Data.([]float64)[3] = 1e6 }, "column 3 is 1e+06 scans old"},
		{"not born yet", func(a map[string]*datasets.Array) { a["ages"].Data.([]float64)[3] = 0 }, "want before scan"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			buffer, err := ReadBuffer(cut)
			if err != nil {
				t.Fatal(err)
			}
			arrays, byName := readBack(t, buffer.Arrays()), map[string]*datasets.Array{}
			for i := range arrays {
				byName[arrays[i].Name] = &arrays[i]
			}
			tc.spoil(byName)
			if err := buffer.SetArrays(cut, arrays); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
			if sum, err := cut.Sum(); err != nil || sum != cut.Digest {
				t.Errorf("a refused import changed the cut (%v)", err)
			}
		})
	}
	flow, _ := ReadBuffer(&checkpoint.Cut{Files: map[string][]checkpoint.Tensor{}, Meta: []byte("{}")})
	_, err := ReadBuffer(&checkpoint.Cut{Files: map[string][]checkpoint.Tensor{}, Meta: []byte("{}")})
	if flow != nil || !errors.Is(err, engine.ErrNoChains) {
		t.Errorf("a cut without chains: %v", err)
	}
}

// A run that is put back to an older cut, and one that is made of a cut, go on to the digest of the run itself.
func TestRestoredAndExportedRunsGoOnBitForBit(t *testing.T) {
	dir, cut := trained(t, "buffer.size=24")
	want := cut.Digest
	store, err := RunCuts(dir)
	if err != nil {
		t.Fatal(err)
	}
	older, err := store.Load(4)
	if err != nil {
		t.Fatal(err)
	}
	if err := SameTraining(older, cut); err != nil {
		t.Errorf("cuts of one run: %v", err)
	}
	yaml, err := os.ReadFile(filepath.Join(dir, experimentFile))
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "copied")
	err = Export{
		Experiment: yaml, Dir: dir, Info: runlog.RunInfo{StepsWanted: 30},
		Cut: func(s checkpoint.Store) error {
			_, err := s.Save(*older)
			return err
		},
		Metrics: func(w io.Writer) error {
			_, err := fmt.Fprintln(w, `{"step":4,"seconds":1.5,"loss":0.1}`)
			return err
		},
	}.Write(copied)
	if err != nil {
		t.Fatal(err)
	}
	run, err := OpenRun(t.Context(), copied, OpenOptions{Backend: options("").Backend})
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Close(); err != nil {
		t.Fatal(err)
	}
	if got := resumed(t, copied, 6); got != want {
		t.Errorf("the exported run comes to digest %.12s, want %.12s", got, want)
	}

	if err := ReplaceCut(dir, older); err != nil {
		t.Fatal(err)
	}
	if steps, err := store.Steps(); err != nil || slices.Max(steps) != 4 {
		t.Errorf("cuts of steps %v after going back to 4 (%v)", steps, err)
	}
	info, err := runlog.ReadRunInfo(dir)
	if err != nil || info.Steps != 4 || info.Digest != older.Digest || !info.Finished.IsZero() {
		t.Errorf("run.json says %+v (%v)", info, err)
	}
	params, _, err := checkpoint.ReadSafetensors(filepath.Join(dir, paramsFile))
	if err != nil || len(params) != len(older.Files["params"]) {
		t.Errorf("%d parameters (%v)", len(params), err)
	}
	if got := resumed(t, dir, 6); got != want {
		t.Errorf("the restored run comes to digest %.12s, want %.12s", got, want)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || slices.ContainsFunc(entries, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), ".") }) {
		t.Errorf("left behind: %v (%v)", entries, err)
	}

	for _, tc := range []struct{ set, want string }{
		{"seed=4", "seed 4, want 3"},
		{"buffer.size=20", `chains: "column_start" is U64[20], want U64[24]`},
		{"averaging={groups: 2}", "2 groups, want 1"},
	} {
		_, other := trained(t, "buffer.size=24", tc.set)
		if err := SameTraining(other, older); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("a cut of a run with %s: %v, want %q", tc.set, err, tc.want)
		}
	}
}

// An export that fails leaves nothing.
func TestExportLeavesNothingBehind(t *testing.T) {
	text := bytes.ReplaceAll([]byte(small), []byte("KIND"), []byte("go"))
	full := errors.New("disk full")
	for _, tc := range []struct {
		name string
		e    Export
		want string
	}{
		{"a bad experiment", Export{Experiment: []byte("name: x\nmodle: {}\n")}, "modle"},
		{"no blobs", Export{Experiment: text, Cut: func(checkpoint.Store) error { return full }}, "disk full"},
		{"no cut", Export{Experiment: text, Cut: func(checkpoint.Store) error { return nil }}, "no cut"},
	} {
		dir := filepath.Join(t.TempDir(), "a", "b")
		if err := tc.e.Write(dir); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
		if _, err := os.Stat(filepath.Dir(dir)); err == nil {
			t.Errorf("%s: a folder is left", tc.name)
		}
	}
}
