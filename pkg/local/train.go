// Package local trains, samples and evaluates an experiment in one process, and keeps the run's folder.
//
//	config, err := experiment.Load("examples/two-moons.yaml", nil)
//	if err != nil {
//		return err
//	}
//	summary, err := local.Train(ctx, config, local.Options{Out: "runs/two-moons", Progress: os.Stderr})
//	if err != nil {
//		return err
//	}
//	fmt.Println(*summary.Evaluation.NLL)
//
// A context that is cancelled ends the training at the next step: a cut is saved, and Options.Resume goes on from it bit
// for bit.
package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/experiment"
	"github.com/kelvin-ebm/kelvin/pkg/internal/atomicfile"
	"github.com/kelvin-ebm/kelvin/pkg/losses"
	"github.com/kelvin-ebm/kelvin/pkg/models"
	"github.com/kelvin-ebm/kelvin/pkg/runlog"
	"github.com/kelvin-ebm/kelvin/pkg/tempering"
)

// Options say where a run goes and how it shows itself.
type Options struct {
	Out     string // the run's folder; runs/<name> by default
	Resume  bool   // go on with the run that Out holds
	Command []string
	Version string
	Backend backend.Options

	Progress io.Writer // where the bar or the lines go; nil shows nothing
	Show     runlog.ProgressOptions

	// Network is an energy or a field of the caller's own, trained in place of the model section's.
	Network models.Network
	// Loss is a loss of the caller's own, minimised in place of the loss section's, which must be one over data alone.
	Loss losses.Loss

	// Params is a safetensors file with the first weights, under the names of the network's parameters; "" draws them.
	Params string

	// CheckSerial makes so many adaptation rounds twice before the run, the second time with a cut and a restore in their
	// middle, and returns ErrSerial, with nothing written, where they come to other bits. 0 checks nothing.
	CheckSerial int

	// Replicas is the number of workers that the shards of the experiment are spread over: any number comes to the same
	// numbers. 0 and 1 train in this process without more ado, but for several groups.
	Replicas int
	Spawn    string // one of Spawns; "" is goroutine
	// Under SpawnNone: the address that replicas connect to, of this machine alone, and the token that they show.
	Listen, Token string

	afterStep func(step int) // tests interrupt a run here
}

// Summary is what a run ended with.
type Summary struct {
	Dir        string
	Steps      int
	Seconds    float64 // of training, over all starts
	Digest     string  // SHA-256 over the last cut's contents
	Evaluation *Evaluation
}

// ErrInterrupted is returned by Train when its context was cancelled and the run's state was saved.
var ErrInterrupted = errors.New("interrupted")

// errNoSlope is returned for a training that would go nowhere.
var errNoSlope = errors.New("step 1: the gradient of the loss is exactly 0, and no weight would ever move: want weights that do not begin at such a point " +
	"(--params), and under loss.energy_type: l2, whose field must not start at 0, energy_type: dot or model.energy: l2")

// run is one training under way.
type run struct {
	opts    Options
	parts   *Parts
	folder  folder
	backend *backend.Backend
	trainer engine.Learner
	metrics *runlog.Writer
	info    runlog.RunInfo
	show    runlog.Progress
	before  float64 // seconds of earlier starts
	started time.Time
	lastCut int // step of the last cut; -1 before the first
	redone  int // steps made again in earlier starts
	monitor monitor
	crew    *crew // nil where one replica trains, or none
	keeper  *keeper
}

// Train trains an experiment from its start or from its last cut, and leaves everything in the run's folder. Nothing is
// written before the experiment, its data and the folder were found good.
func Train(ctx context.Context, cfg *experiment.Config, opts Options) (summary *Summary, err error) {
	parts, err := Build(cfg, opts.Network, opts.Loss)
	if err != nil {
		return nil, err
	}
	if opts.Spawn != "" && !slices.Contains(Spawns(), opts.Spawn) {
		return nil, fmt.Errorf("spawn: %q, want one of %s", opts.Spawn, strings.Join(Spawns(), ", "))
	}
	if opts.CheckSerial > 0 {
		if err := parts.checkSerial(ctx, opts); err != nil {
			return nil, fmt.Errorf("check serial: %w", err)
		}
		if opts.Progress != nil {
			fmt.Fprintf(opts.Progress, "check serial: the first steps, made twice and with a cut and a restore between, come to the same bits\n")
		}
	}
	if opts.Out == "" {
		opts.Out = "runs/" + parts.Config.Name
	}
	r := &run{opts: opts, parts: parts, folder: folder{dir: opts.Out}, lastCut: -1}
	if opts.Resume {
		if err := r.sameExperiment(); err != nil {
			return nil, err
		}
	} else if r.folder, err = createFolder(opts.Out); err != nil {
		return nil, err
	}
	fresh := !opts.Resume
	defer func() {
		// A run that never made a cut has nothing to go on from.
		if err != nil && fresh && r.lastCut < 0 {
			err = errors.Join(err, r.folder.removeUnstarted())
		}
	}()
	var cut *checkpoint.Cut
	var skipped []error
	if opts.Resume {
		if cut, skipped, err = r.folder.cuts().LatestGood(); err != nil {
			return nil, fmt.Errorf("resume: %w", err)
		}
	}
	if r.keeper, cut, err = parts.openKeeper(ctx, r.folder, cut); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.keeper.close()) }()
	if err := r.open(ctx); err != nil {
		return nil, err
	}
	defer func() {
		r.trainer.Close()
		err = errors.Join(err, r.backend.Close())
	}()
	defer func() { err = errors.Join(err, r.close()) }()
	if opts.Resume {
		err = r.resume(cut, skipped)
	} else {
		err = r.start()
	}
	if err != nil {
		return nil, err
	}
	if err := r.loop(ctx); err != nil {
		return nil, err
	}
	if r.crew != nil {
		r.show.Log(r.crew.total(r.trainer.(*fleet).Moved()))
	}
	r.show.Done("evaluating the model and drawing its figures …")
	return r.finish(ctx)
}

// close ends what writes.
func (r *run) close() (err error) {
	if r.show != nil {
		r.show.Done("")
	}
	r.monitor.close()
	if r.metrics != nil {
		err = r.metrics.Close()
	}
	return err
}

// sameExperiment compares the experiment with that of the run to go on with, line by line.
func (r *run) sameExperiment() error {
	cfg := r.parts.Config.Clone()
	if err := cfg.Rebase(r.folder.dir); err != nil {
		return err
	}
	want, err := experiment.Marshal(cfg)
	if err != nil {
		return err
	}
	path := r.folder.path(experimentFile)
	got, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("resume: %w: want the folder of a run, or no --resume to start one", err)
	}
	if line, was, is := difference(got, want); line > 0 {
		return fmt.Errorf("resume: the experiment is not the run's: %s line %d has %q, this one %q; want the same file and --set flags, or another --out", path, line, was, is)
	}
	return nil
}

func (r *run) progress() runlog.Progress {
	o := r.opts.Show
	o.Name, o.Total, o.Start, o.Replicas = r.parts.Config.Name, r.parts.Steps, r.trainer.Step(), r.opts.Replicas
	w := r.opts.Progress
	if w == nil {
		w, o.Quiet = io.Discard, true
	}
	return runlog.NewProgress(w, o)
}

// start begins a new run.
func (r *run) start() (err error) {
	r.show = r.progress()
	r.announce()
	r.muster()
	if err := r.parts.begin(r.trainer, r.opts.Params); err != nil {
		return err
	}
	if err := r.work(-1); err != nil {
		return err
	}
	if err := r.folder.writeExperiment(r.parts.Config); err != nil {
		return err
	}
	if r.metrics, err = runlog.Create(r.folder.dir); err != nil {
		return err
	}
	r.started = time.Now()
	r.info = runlog.RunInfo{
		Name: r.parts.Config.Name, Version: r.opts.Version, Command: r.opts.Command, Seed: r.parts.Config.Seed,
		Backend: r.backend.Kind(), Fingerprint: r.backend.Fingerprint().String(), Replicas: max(1, r.opts.Replicas), StepsWanted: r.parts.Steps, Generations: 1, Started: r.started.UTC(),
	}
	if err := r.cut(); err != nil { // also proves, before any work, that the disk takes a cut
		return err
	}
	return r.keepFrame()
}

// work begins the generation of a training without replicas.
func (r *run) work(from int) error {
	if _, led := r.trainer.(*fleet); led {
		return nil
	}
	return r.keeper.work(from)
}

// resume goes on from the newest cut that is whole.
func (r *run) resume(cut *checkpoint.Cut, skipped []error) (err error) {
	if r.info, err = runlog.ReadRunInfo(r.folder.dir); err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	if err := r.trainer.Restore(cut); err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	if err := r.work(cut.Step); err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	r.lastCut = cut.Step
	r.show = r.progress()
	r.announce()
	for _, err := range skipped {
		r.show.Log(fmt.Sprintf("skipped a damaged cut: %v", err))
	}
	if was, is := r.info.Fingerprint, r.backend.Fingerprint().String(); was != is {
		r.show.Log(fmt.Sprintf("the run began on %s, this is %s: it goes on, but not bit for bit", was, is))
	}
	records, err := runlog.ReadMetrics(r.folder.dir)
	if err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	if r.info.Steps == cut.Step {
		r.before = r.info.Seconds
	}
	redone := 0
	for _, rec := range records {
		if rec.Step <= cut.Step {
			r.before = max(r.before, rec.Seconds)
		}
		redone = max(redone, rec.Step-cut.Step)
	}
	if r.metrics, err = runlog.Resume(r.folder.dir, cut.Step); err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	if text := r.metrics.Recovered().String(); text != "" {
		r.show.Log(text)
	}
	r.show.Log(fmt.Sprintf("resumed at step %d of %d", cut.Step, r.parts.Steps))
	r.info.StepsRedone += redone
	r.redone = r.info.StepsRedone
	r.info.Backend, r.info.Fingerprint = r.backend.Kind(), r.backend.Fingerprint().String()
	r.info.Finished = time.Time{}
	r.started = time.Now()
	return nil
}

func (r *run) announce() {
	cfg := r.parts.Config
	r.show.Log(r.backend.Why())
	t := cfg.Tempering
	chains := fmt.Sprintf("%d chains", t.Chains)
	switch {
	case !cfg.Loss.Chains():
		chains = "no chains"
	case t.Rungs > 1:
		chains = fmt.Sprintf("%d rungs × %d ladders, %s path", t.Rungs, t.Chains, t.Path)
	}
	r.show.Log(fmt.Sprintf("%s: %d rows of %d numbers, %d parameters, %s, %d steps → %s",
		cfg.Name, r.parts.Data.N(), r.parts.Data.Dim, models.NumParams(r.parts.Network), chains, r.parts.Steps, r.folder.dir))
}

// begin starts a learner with the weights of a file, or with those that the seed draws where params is "".
func (p *Parts) begin(l engine.Learner, params string) error {
	if params == "" {
		return l.Start()
	}
	tensors, _, err := checkpoint.ReadSafetensors(params)
	if err != nil {
		return fmt.Errorf("params: %w", err)
	}
	theta, err := checkpoint.FlatParams[float32](p.Network, tensors)
	if err != nil {
		return fmt.Errorf("params: %s: %w", params, err)
	}
	return l.StartAt(theta)
}

func (r *run) seconds() float64 { return r.before + time.Since(r.started).Seconds() }

// loop makes the training steps.
func (r *run) loop(ctx context.Context) error {
	cfg := r.parts.Config.Train
	lastCut := time.Now()
	recorder := NewRecorder(r.parts.Config, r.trainer.Step())
	r.muster()
	for r.trainer.Step() < r.parts.Steps {
		if ctx.Err() != nil && settled(r.trainer) {
			if err := r.cut(); err != nil {
				return err
			}
			return fmt.Errorf("%w at step %d of %d, saved in %s: the same command with --resume goes on", ErrInterrupted, r.trainer.Step(), r.parts.Steps, r.folder.dir)
		}
		report, err := r.trainer.TrainStep()
		if err != nil {
			return r.withLastCut(err)
		}
		if report.Step == 1 && report.GradNorm == 0 && !r.parts.Config.Loss.Chains() { // chains may be where the data are
			return errNoSlope
		}
		recorder.Add(report)
		if r.opts.afterStep != nil {
			r.opts.afterStep(report.Step)
		}
		chains := r.parts.chainsOf(r.trainer)
		stats := swaps(chains)
		accept := acceptance(stats)
		status := runlog.Status{Loss: report.Loss, SwapAccept: accept}
		if accept != nil {
			status.Note = fmt.Sprintf("restarts %d", stats.Restarts)
		}
		r.show.Update(report.Step, status)
		if settled(r.trainer) {
			r.muster()
		}
		last := report.Step == r.parts.Steps
		every := r.parts.Config.Evaluate.Every
		look := every > 0 && report.Step%every == 0 && !last
		var monitored []runlog.Value
		if look {
			// A look that fails is no reason to end a training, and one that is interrupted leaves that to the next step.
			if monitored, err = r.monitor.look(ctx, r); err != nil && ctx.Err() == nil {
				r.show.Log(fmt.Sprintf("step %d: no likelihood of the test rows: %v", report.Step, err))
			}
		}
		if records(recordEvery(r.parts.Config), report.Step, r.parts.Steps) {
			rec := recorder.Record(report, chains, r.seconds())
			rec.Values = append(rec.Values, monitored...)
			if err := r.metrics.Write(rec); err != nil {
				return err
			}
			r.round(report.Step, status, stats)
			if chains != nil {
				chains.ResetPairs()
			}
		}
		if cfg.Frames > 0 && (last || report.Step%r.parts.frameEvery() == 0) {
			if err := r.keepFrame(); err != nil {
				return err
			}
		}
		if every := cfg.CutInterval(); last || every > 0 && time.Since(lastCut) >= every && settled(r.trainer) {
			if err := r.cut(); err != nil {
				return err
			}
			lastCut = time.Now()
		}
	}
	return nil
}

// withLastCut adds to an error about numbers that are not finite where the state before them is.
func (r *run) withLastCut(err error) error {
	var bad *engine.NonFiniteError
	if errors.As(err, &bad) && r.lastCut >= 0 {
		return fmt.Errorf("%w; the last good cut is %s", err, r.folder.path(cutsFolder, fmt.Sprintf("%08d", r.lastCut)))
	}
	return err
}

// swaps are the swap statistics of chains; zero without a ladder.
func swaps(c chained) tempering.Stats {
	if c == nil {
		return tempering.Stats{}
	}
	return c.Stats()
}

// cut saves the state of the run; a step that is saved already is not saved again.
func (r *run) cut() error {
	if r.lastCut == r.trainer.Step() {
		return nil
	}
	cut, err := r.trainer.Cut()
	if err != nil {
		return r.withLastCut(err)
	}
	if _, led := r.trainer.(*fleet); !led { // a fleet writes its cuts down itself
		if err := r.keeper.journal.Commit(r.keeper.generation, cut).Wait(); err != nil {
			return r.keeper.why(err)
		}
	}
	digest, err := r.keeper.link(context.Background(), r.folder.cuts())
	if err != nil {
		return err
	}
	if err := r.metrics.Sync(); err != nil {
		return err
	}
	r.lastCut = cut.Step
	if f, ok := r.trainer.(*fleet); ok {
		r.info.Generations, r.info.StepsRedone = f.Generations(), r.redone+f.Redone()
	}
	r.info.Digest, r.info.Steps, r.info.Seconds = digest, cut.Step, r.seconds()
	return runlog.WriteRunInfo(r.folder.dir, r.info)
}

// finish evaluates the trained model and writes what a reader of the run wants to have.
func (r *run) finish(ctx context.Context) (*Summary, error) {
	params, err := r.trainer.Params()
	if err != nil {
		return nil, err
	}
	if err := checkpoint.WriteSafetensors(r.folder.path(paramsFile), params, map[string]string{"format": "kelvin", "model": r.parts.ModelName()}); err != nil {
		return nil, err
	}
	ev, err := r.parts.Evaluate(ctx, r.backend, r.trainer)
	if err != nil {
		return nil, err
	}
	if err := writeEvaluation(r.folder, ev); err != nil {
		return nil, err
	}
	if t := ev.Drawn(); t != nil {
		if err := t.Write(r.folder.dir); err != nil {
			return nil, err
		}
	}
	if ev.samples != nil {
		if err := r.parts.writeSamples(r.folder.path(samplesFile), ev.samples, r.trainer); err != nil {
			return nil, err
		}
	}
	r.info.Finished = time.Now().UTC()
	if err := Figures(r.folder.dir, r.info, r.parts, r.trainer, ev); err != nil {
		return nil, err
	}
	// Last: run.json says that the run is finished when all of it is there.
	if err := runlog.WriteRunInfo(r.folder.dir, r.info); err != nil {
		return nil, err
	}
	return &Summary{Dir: r.folder.dir, Steps: r.trainer.Step(), Seconds: r.info.Seconds, Digest: r.info.Digest, Evaluation: ev}, nil
}

func writeEvaluation(f folder, ev *Evaluation) error {
	text, err := ev.JSON()
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(f.path(evaluationFile), text, 0o644)
}
