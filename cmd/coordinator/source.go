package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
	"github.com/kelvin-ebm/kelvin/pkg/experiment"
	"github.com/kelvin-ebm/kelvin/pkg/local"
)

// last is the step of the newest cut.
const last = -1

// sourceFlags say where a command finds cuts: in a run's folder, or with the coordinators.
type sourceFlags struct {
	run     string
	cut     string
	cluster clusterFlags
}

// add adds the flags; use says what --cut picks, "" leaves it out.
func (f *sourceFlags) add(cmd *cobra.Command, use string) {
	cmd.Flags().StringVar(&f.run, "run", "", "the `folder` of a run, in place of an experiment's name")
	f.cut = "last"
	if use != "" {
		cmd.Flags().StringVar(&f.cut, "cut", "last", "`step` of the cut "+use)
	}
	f.cluster.add(cmd)
	cmd.Args = f.args
	cmd.ValidArgsFunction = f.cluster.complete
}

func (f *sourceFlags) args(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) > 1:
		return usageErrorf("%d names, want one: %s", len(args), cmd.UseLine())
	case (len(args) == 1) == (f.run != ""):
		return usageErrorf("want one of an experiment's NAME and --run DIR: %s", cmd.UseLine())
	case f.run != "" && f.cluster.named():
		return usageErrorf("--run: a folder of this machine, want no --server and no --context")
	}
	return nil
}

// step is the step that --cut asks for.
func (f *sourceFlags) step() (int, error) {
	if f.cut == "last" {
		return last, nil
	}
	var step int
	if n, err := fmt.Sscanf(f.cut, "%d", &step); n != 1 || err != nil || step < 0 || fmt.Sprint(step) != f.cut {
		return 0, usageErrorf("--cut: %q, want the step of a cut, or last", f.cut)
	}
	return step, nil
}

// source is where cuts come from.
type source interface {
	name() string
	config(ctx context.Context) (*experiment.Config, error)
	// list is what is known without reading the cuts, oldest first.
	list(ctx context.Context) ([]api.Cut, error)
	// load reads a cut and verifies the hash of every part.
	load(ctx context.Context, step int) (*checkpoint.Cut, error)
	// version is what replace is told, so that it refuses where others changed something since.
	version(ctx context.Context) (uint64, error)
	// replace puts a cut in place of that of its step, and of all later ones.
	replace(ctx context.Context, cut *checkpoint.Cut, version uint64) error
	// goOn says how the training goes on from a replaced cut.
	goOn() string
}

// open is the source of a command; close frees it.
func (f *sourceFlags) open(args []string) (_ source, close func(), _ error) {
	if f.run != "" {
		store, err := local.RunCuts(f.run)
		return runSource{f.run, store}, func() {}, err
	}
	c, err := f.cluster.open()
	if err != nil {
		return nil, nil, err
	}
	return clusterSource{c, args[0]}, c.Close, nil
}

// runSource is the folder of a run.
type runSource struct {
	dir   string
	store checkpoint.Store
}

func (s runSource) name() string { return s.dir }
func (s runSource) goOn() string { return "`coordinator train` with --resume goes on from it" }

func (s runSource) config(context.Context) (*experiment.Config, error) {
	return local.LoadExperiment(s.dir)
}

func (s runSource) list(context.Context) ([]api.Cut, error) {
	steps, err := s.store.Steps()
	if err != nil {
		return nil, err
	}
	cuts := []api.Cut{}
	for _, step := range steps {
		// What is wrong with a manifest is for `cut verify` to say.
		cut, _ := readManifest(filepath.Join(s.store.Dir, fmt.Sprintf("%08d", step), checkpoint.Manifest))
		cut.Meta, cut.Step = api.Kind("Cut"), uint64(step)
		cuts = append(cuts, cut)
	}
	return cuts, nil
}

// readManifest reads what a manifest says, unverified.
func readManifest(path string) (api.Cut, error) {
	var cut api.Cut
	text, err := os.ReadFile(path)
	if err != nil {
		return cut, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return cut, err
	}
	var m struct {
		Files []struct {
			Name, SHA256 string
			Bytes        uint64
		}
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return cut, err
	}
	cut.At = info.ModTime()
	sum := sha256.Sum256(text)
	cut.Manifest = hex.EncodeToString(sum[:])
	for _, f := range m.Files {
		cut.Parts = append(cut.Parts, api.Part{Name: f.Name, Digest: f.SHA256, Bytes: f.Bytes})
		cut.Bytes += f.Bytes
	}
	return cut, nil
}

func (s runSource) load(_ context.Context, step int) (*checkpoint.Cut, error) {
	if step == last {
		return s.store.Latest()
	}
	cut, err := s.store.Load(step)
	if errors.Is(err, os.ErrNotExist) {
		err = &api.Error{Code: api.NotFound, Message: fmt.Sprintf("run %s: no cut of step %d", s.dir, step), Next: "see `coordinator cut ls --run " + s.dir + "`"}
	}
	return cut, err
}

func (s runSource) version(context.Context) (uint64, error) { return 0, nil }

func (s runSource) replace(_ context.Context, cut *checkpoint.Cut, _ uint64) error {
	return local.ReplaceCut(s.dir, cut)
}

// clusterSource is an experiment of the coordinators.
type clusterSource struct {
	client     *api.Client
	experiment string
}

func (s clusterSource) name() string { return s.experiment }
func (s clusterSource) goOn() string {
	return "`coordinator resume " + s.experiment + "` goes on from it"
}

func (s clusterSource) config(ctx context.Context) (*experiment.Config, error) {
	exp, err := s.client.Experiment(ctx, s.experiment)
	if err != nil {
		return nil, err
	}
	return s.parse(exp)
}

func (s clusterSource) parse(exp api.Experiment) (*experiment.Config, error) {
	return experiment.Parse(filepath.Join(exp.Dir, s.experiment+".yaml"), []byte(exp.YAML), nil)
}

func (s clusterSource) list(ctx context.Context) ([]api.Cut, error) {
	list, err := s.client.Cuts(ctx, s.experiment)
	return list.Items, err
}

func (s clusterSource) load(ctx context.Context, step int) (*checkpoint.Cut, error) {
	cut, err := s.find(ctx, step)
	if err != nil {
		return nil, err
	}
	manifest, err := s.blob(ctx, cut.Manifest)
	if err != nil {
		return nil, fmt.Errorf("cut of step %d: %s: %w", cut.Step, checkpoint.Manifest, err)
	}
	return checkpoint.FromBlobs(manifest, func(_ string, sum [sha256.Size]byte) ([]byte, error) {
		return s.blob(ctx, hex.EncodeToString(sum[:]))
	})
}

// platform is what the cut of a step was made on; "" where nobody has said.
func (s clusterSource) platform(ctx context.Context, step int) (string, error) {
	cut, err := s.find(ctx, step)
	part, there := platformOf(cut)
	if err != nil || !there {
		return "", err
	}
	text, err := s.blob(ctx, part.Digest)
	return string(text), err
}

func platformOf(cut api.Cut) (part api.Part, there bool) {
	i := slices.IndexFunc(cut.Parts, func(p api.Part) bool { return p.Name == coordinator.PlatformPart })
	if i < 0 {
		return part, false
	}
	return cut.Parts[i], true
}

// find is what the coordinators say of a cut, without reading it.
func (s clusterSource) find(ctx context.Context, step int) (api.Cut, error) {
	cuts, err := s.list(ctx)
	if err != nil {
		return api.Cut{}, err
	}
	for _, c := range slices.Backward(cuts) {
		if !c.Refused && (step == last || int(c.Step) == step) {
			return c, nil
		}
	}
	message := fmt.Sprintf("experiment %s: no cut of step %d", s.experiment, step)
	if step == last {
		message = fmt.Sprintf("experiment %s: no cut yet", s.experiment)
	}
	return api.Cut{}, &api.Error{Code: api.NotFound, Message: message, Next: "see `coordinator cut ls " + s.experiment + "`"}
}

// damage is a blob of a cut that the coordinators do not have, or not whole.
type damage struct{ error }

func (d damage) Unwrap() error { return d.error }

// blob is a blob of the coordinators, its bytes checked.
func (s clusterSource) blob(ctx context.Context, digest string) ([]byte, error) {
	var b bytes.Buffer
	_, err := s.client.Blob(ctx, digest, &b)
	if e, is := errors.AsType[*api.Error](err); is && e.Status != 0 && e.Code != api.NoLeader && e.Code != api.Unauthorized && e.Code != api.Forbidden {
		err = damage{err}
	}
	return b.Bytes(), err
}

func (s clusterSource) version(ctx context.Context) (uint64, error) {
	exp, err := s.client.Experiment(ctx, s.experiment)
	return exp.Version, err
}

func (s clusterSource) replace(ctx context.Context, cut *checkpoint.Cut, version uint64) error {
	put, err := s.upload(ctx, cut)
	if err != nil {
		return err
	}
	_, err = s.client.ReplaceCut(ctx, s.experiment, uint64(cut.Step), put, version)
	return err
}

// upload brings the blobs of a cut to the coordinators, if it keeps the conservation laws, and says which they are.
func (s clusterSource) upload(ctx context.Context, cut *checkpoint.Cut) (put api.ReplaceCut, err error) {
	conserved, err := local.CheckCut(cut)
	if err != nil {
		return put, err
	}
	blobs, _, err := cut.Blobs()
	if err != nil {
		return put, err
	}
	put.Conservation = conservation(conserved)
	contents := map[string][]byte{}
	for _, b := range blobs {
		digest := hex.EncodeToString(b.SHA256[:])
		contents[digest] = b.Data
		if b.Name == checkpoint.Manifest {
			put.Manifest = digest
		} else {
			put.Parts = append(put.Parts, api.Part{Name: b.Name, Digest: digest, Bytes: uint64(len(b.Data))})
		}
	}
	if old, err := s.find(ctx, cut.Step); err == nil { // in whose place it comes
		if part, there := platformOf(old); there {
			put.Parts = append(put.Parts, part)
		}
	}
	return put, s.client.PutBlobs(ctx, contents)
}

func conservation(c ledger.Conservation) api.Conservation {
	return api.Conservation{Ladders: c.Ladders, Rungs: c.Rungs, Labels: c.Labels, Created: c.Created, Retired: c.Retired, Live: c.Live}
}
