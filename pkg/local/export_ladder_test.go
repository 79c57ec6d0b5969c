package local

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A run goes on, on another ladder, from its folder and from its file with the new number of rungs, to the same bits.
func TestSetLadder(t *testing.T) {
	for _, tc := range []struct {
		name   string
		sets   []string
		to     Ladder
		goOn   []string // what the file is given beside
		ladder string
		betas  []float64 // of the experiment
	}{
		{"more rungs", nil, Ladder{Rungs: 5}, []string{"tempering.rungs=5"}, "adaptive", nil},
		{"fewer rungs", nil, Ladder{Rungs: 2}, []string{"tempering.rungs=2"}, "adaptive", nil},
		{"given rungs", nil, Ladder{Betas: []float64{0, 0.2, 0.4, 1}}, []string{"tempering.rungs=4", "tempering.betas=[0, 0.2, 0.4, 1]"}, "adaptive", []float64{0, 0.2, 0.4, 1}},
		{"the power path", []string{"tempering.path=power", "tempering.beta_min=0.2"}, Ladder{Rungs: 4}, []string{"tempering.rungs=4"}, "adaptive", nil},
		{"a formula", []string{"tempering.ladder=uniform"}, Ladder{Rungs: 5}, []string{"tempering.rungs=5"}, "uniform", nil},
		{"a formula left for given rungs", []string{"tempering.ladder=uniform"}, Ladder{Betas: []float64{0, 0.7, 0.9, 1}}, nil, "fixed", []float64{0, 0.7, 0.9, 1}},
		{"fixed rungs", []string{"tempering.ladder=fixed", "tempering.betas=[0, 0.5, 1]"}, Ladder{Rungs: 2}, nil, "fixed", []float64{0, 1}},
		{"two groups, shards of rungs", []string{"averaging={groups: 2, every: 2}", "tempering.placement=rung"}, Ladder{Rungs: 4}, []string{"tempering.rungs=4"}, "adaptive", nil},
		{"a pool, labels elsewhere", []string{"buffer.size=24", "buffer.reinit=0.2"}, Ladder{Rungs: 4}, []string{"tempering.rungs=4"}, "adaptive", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir, before := trained(t, tc.sets...)
			cfg, cut, err := SetLadder(dir, tc.to)
			if err != nil {
				t.Fatal(err)
			}
			rungs := max(tc.to.Rungs, len(tc.to.Betas))
			if cfg.Tempering.Rungs != rungs || cfg.Tempering.Ladder != tc.ladder || !slices.Equal(cfg.Tempering.Betas, tc.betas) {
				t.Errorf("experiment %+v, want %d rungs, %s, of %v", cfg.Tempering, rungs, tc.ladder, tc.betas)
			}
			sum, err := CheckCut(cut)
			if err != nil || sum.Rungs != uint64(rungs) || sum.Labels != sum.Ladders*sum.Rungs || sum.Created-sum.Retired != sum.Live {
				t.Errorf("conservation %+v, %v", sum, err)
			}
			if err := SameTraining(cut, before); err == nil {
				t.Error("the cut could go on as before")
			}
			if got := lastCut(t, dir); got.Step != before.Step || SameTraining(got, cut) != nil {
				t.Errorf("the folder's last cut is of step %d", got.Step)
			}
			store, err := RunCuts(dir)
			if err != nil {
				t.Fatal(err)
			}
			if steps, err := store.Steps(); err != nil || len(steps) != 1 {
				t.Errorf("cuts of steps %v, %v, want the last alone: no other goes on", steps, err)
			}
			books, err := CutBooks(cut)
			if err != nil {
				t.Fatal(err)
			}
			if tc.betas != nil && !slices.Equal(books[0].Betas, tc.betas) {
				t.Errorf("β of the cut %v, want %v", books[0].Betas, tc.betas)
			}

			twin := filepath.Join(t.TempDir(), "twin")
			if err := os.CopyFS(twin, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			want := resumed(t, dir, 9)
			if tc.goOn == nil {
				return
			}
			o := options(twin)
			o.Resume = true
			sets := append(append(slices.Clone(tc.sets), "train.frames=0", "train.cut_every=1e-9", "train.log_every=1"), tc.goOn...)
			trainUntil(t, parse(t, "go", small, sets...), o, 9)
			if got := lastCut(t, twin); got.Digest != want {
				t.Error("the file with the new number of rungs comes to other bits than the run's own")
			}
		})
	}
}

// A change that fails leaves the run as it was.
func TestSetLadderRefusals(t *testing.T) {
	dir, before := trained(t)
	was, err := os.ReadFile(filepath.Join(dir, experimentFile))
	if err != nil {
		t.Fatal(err)
	}
	for want, to := range map[string]Ladder{
		"want one of the two": {},
		"at least 2":          {Rungs: 1},
		"increase":            {Betas: []float64{0, 0.5, 0.5, 1}},
		"linear path":         {Betas: []float64{0.5, 1}},
	} {
		if _, _, err := SetLadder(dir, to); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", to, err, want)
		}
	}
	is, err := os.ReadFile(filepath.Join(dir, experimentFile))
	if err != nil || string(is) != string(was) || lastCut(t, dir).Digest != before.Digest {
		t.Error("the run was changed")
	}
	if _, _, err := SetLadder(t.TempDir(), Ladder{Rungs: 3}); err == nil {
		t.Error("a folder without a run")
	}
}

func TestRestOfAnExperimentIsWhatItsLadderLeaves(t *testing.T) {
	rest := func(sets ...string) string {
		text, err := withoutLadder(parse(t, "go", small, sets...))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if rest("tempering.rungs=9") != rest() || rest("tempering.rungs=2", "tempering.ladder=fixed", "tempering.betas=[0, 1]") != rest() {
		t.Error("the ladder is in it")
	}
	if rest("tempering.chains=32") == rest() || rest("seed=9") == rest() {
		t.Error("what belongs to the training is not in it")
	}
}
