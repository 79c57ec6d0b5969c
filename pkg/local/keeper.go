package local

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/consensus"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
	"github.com/kelvin-ebm/kelvin/pkg/experiment"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

const (
	// coordinatorFolder, in a run's folder, is the data directory of the coordinator that keeps the run. `coordinator serve
	// --data-dir` can go on with it.
	coordinatorFolder = "coordinator"
	// keeperName is what that coordinator is called.
	keeperName = "train"
	// single is the replica of a training that has no others.
	single = "0"
)

// keeper keeps the cuts of a run as a cluster does: by a coordinator, which is alone, in its ledger and its blobs. The files
// under cuts/ are links to those.
type keeper struct {
	node       *consensus.Node
	exp        ledger.ID
	journal    *coordinator.Journal
	end        context.CancelFunc
	shards     int
	generation uint64 // of a training without replicas
}

// openKeeper opens the coordinator of a run that goes on from a cut, or begins where cut is nil. A ledger with a newer cut that is
// whole ended before that was linked: the run goes on from it. Else what is under cuts/ counts, where people may have put another
// cut: a ledger that ends elsewhere, or is damaged, is begun anew. One that is not this run's alone is left as it is.
func (p *Parts) openKeeper(ctx context.Context, f folder, cut *checkpoint.Cut) (_ *keeper, newer *checkpoint.Cut, err error) {
	dir := f.path(coordinatorFolder)
	defer func() {
		if err != nil {
			err = fmt.Errorf("coordinator of the run, %s: %w", dir, err)
		}
	}()
	if cut != nil {
		k, err := p.keeperAt(ctx, dir)
		switch {
		case err == nil:
			if newer, fits := k.fits(ctx, f.cuts(), cut); fits {
				return k, newer, k.vacate()
			}
		case !errors.Is(err, consensus.ErrCorrupt):
			return nil, nil, errors.Join(err, k.close())
		}
		if err := k.close(); err != nil {
			return nil, nil, err
		}
	}
	if err := consensus.Discard(dir); err != nil {
		return nil, nil, err
	}
	k, err := p.keeperAt(ctx, dir)
	if err == nil {
		err = k.begin(ctx, p, cut)
	}
	if err != nil {
		return nil, nil, errors.Join(err, k.close())
	}
	return k, cut, nil
}

// fits says whether the ledger can go on with a run whose newest cut this is, and from which cut.
func (k *keeper) fits(ctx context.Context, store checkpoint.Store, cut *checkpoint.Cut) (*checkpoint.Cut, bool) {
	last, err := k.last(ctx)
	if err != nil {
		return nil, false
	}
	if int(last.Step) > cut.Step {
		if _, err := k.link(ctx, store); err == nil {
			newer, err := store.Load(int(last.Step))
			return newer, err == nil
		}
	}
	return cut, k.ends(ctx, *cut)
}

// keeperAt opens the coordinator in a folder. It may have no experiment yet.
func (p *Parts) keeperAt(ctx context.Context, dir string) (*keeper, error) {
	k := &keeper{end: func() {}, shards: p.layout().NumShards()}
	var err error
	// The disk is the run's own to fill, and as fast as it may be.
	if k.node, err = consensus.Open(ctx, consensus.Config{Name: keeperName, DataDir: dir, SegmentSize: 1 << 20, FillDisk: true, BlobRate: math.MaxInt64 / 4}); err != nil {
		return k, err
	}
	alone, cancel := context.WithTimeoutCause(ctx, 10*time.Second, errors.New("it does not lead: if it has become one of several, go on there"))
	defer cancel()
	if _, err := k.node.Leadership(alone); err != nil {
		return k, err
	}
	leads, err := k.node.Leadership(ctx)
	if err != nil {
		return k, err
	}
	// The end of ctx is that of the training: what it leaves behind is still to be written down.
	lead, end := context.WithCancelCause(context.WithoutCancel(ctx))
	context.AfterFunc(leads, func() {
		if ctx.Err() == nil {
			end(context.Cause(leads))
		}
	})
	k.end = func() { end(nil) }
	several := 0
	if _, _, err := k.node.View(ctx, consensus.Leader, func(s *ledger.State) {
		if all := s.Experiments(); len(all) == 1 {
			k.exp = all[0].ID
		} else {
			several = len(all)
		}
	}); err != nil {
		return k, err
	}
	if several > 0 {
		return k, fmt.Errorf("it has %d experiments, want the run's own: serve it, and go on there", several)
	}
	k.journal = coordinator.NewJournal(lead, k.node, k.exp, nil)
	return k, nil
}

// begin creates the experiment, and takes over the cut that it goes on from.
func (k *keeper) begin(ctx context.Context, p *Parts, cut *checkpoint.Cut) error {
	yaml, err := experiment.Marshal(p.Config)
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(p.Config.Dir)
	if err != nil {
		return err
	}
	_, _ = rand.Read(k.exp[:]) // never fails
	name := p.Config.Name
	if !ledger.IsName(name) {
		name = "run"
	}
	for _, cmd := range []ledger.Command{
		ledger.ExpCreate{Name: name, Owner: keeperName, Spec: yaml, Dir: dir, Steps: uint64(p.Steps), Shards: uint32(k.shards), Min: 1, CutEvery: p.Config.Train.CutInterval()},
		ledger.ExpPhase{Phase: ledger.Waiting}, ledger.ExpPhase{Phase: ledger.Running},
	} {
		out, err := k.node.Apply(ctx, k.exp, cmd)
		if err := errors.Join(err, out.Err); err != nil {
			return err
		}
	}
	k.journal = k.journal.Of(k.exp)
	if cut == nil {
		return nil
	}
	if err := k.work(-1); err != nil {
		return err
	}
	if err := k.journal.Commit(k.generation, *cut).Wait(); err != nil {
		return err
	}
	return k.vacate()
}

// ends says whether the ledger's last cut is this one.
func (k *keeper) ends(ctx context.Context, cut checkpoint.Cut) bool {
	want, _, err := coordinator.Entry(cut)
	if err != nil {
		return false
	}
	last, err := k.last(ctx)
	return err == nil && last.Manifest == want.Manifest
}

func (k *keeper) last(ctx context.Context) (last ledger.Cut, err error) {
	found := false
	_, _, err = k.node.View(ctx, consensus.Leader, func(s *ledger.State) {
		if exp, ok := s.ByID(k.exp); ok && len(exp.Cuts) > 0 {
			last, found = exp.Cuts[len(exp.Cuts)-1], true
		}
	})
	if err == nil && !found {
		err = checkpoint.ErrNoCut
	}
	return last, err
}

// vacate ends all leases: those who had them ended with the process that trained before.
func (k *keeper) vacate() error {
	leases, err := k.journal.Leases()
	for _, l := range leases {
		err = errors.Join(err, k.journal.End(l.Replica, l.Token, false))
	}
	return err
}

// work begins a generation of the training in this process, from the cut of a step or, for −1, from the start.
func (k *keeper) work(from int) (err error) {
	if _, err := k.journal.Register(transport.Register{Replica: single, Incarnation: 1}); err != nil {
		return err
	}
	k.generation, err = k.journal.Open(slices.Repeat([]string{single}, k.shards), from)
	return err
}

// link makes the files of the last cut in a store, and returns its digest.
func (k *keeper) link(ctx context.Context, store checkpoint.Store) (digest string, err error) {
	last, err := k.last(ctx)
	if err != nil {
		return "", err
	}
	manifest, err := k.node.Blob(ctx, last.Manifest)
	if err != nil {
		return "", err
	}
	return store.Adopt(manifest, func(_ string, sum [sha256.Size]byte, path string) error {
		return k.node.Blobs().Link(ctx, ledger.Digest(sum), path)
	})
}

// why is an error of the keeper with what is behind it: a disk that failed, perhaps.
func (k *keeper) why(err error) error {
	select {
	case fatal := <-k.node.Fatal():
		return fmt.Errorf("%w: %w", err, fatal)
	default:
		return err
	}
}

func (k *keeper) close() error {
	k.end()
	if k.node == nil {
		return nil
	}
	return k.node.Close()
}
