package coordinator

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/blobs"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/consensus"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
	"github.com/kelvin-ebm/kelvin/pkg/engine"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

// Journal is the [Book] of an experiment in the replicated ledger. A cut is blobs first, durable on a quorum, and then one
// entry that names them.
type Journal struct {
	node *consensus.Node
	exp  ledger.ID
	lead context.Context
	cost func(checkpoint.Cut, time.Duration)
}

var _ Book = (*Journal)(nil)

// NewJournal is the book of an experiment while lead, a context of [consensus.Node.Leadership], lasts; cost, if not nil, is
// told of each cut how long it took to be durable.
func NewJournal(lead context.Context, node *consensus.Node, exp ledger.ID, cost func(checkpoint.Cut, time.Duration)) *Journal {
	return &Journal{node, exp, lead, cost}
}

// Of is the book of another experiment.
func (j *Journal) Of(exp ledger.ID) *Journal { return NewJournal(j.lead, j.node, exp, j.cost) }

// apply proposes a command until it is known what became of it. Commands are exactly-once: asking twice is harmless.
func (j *Journal) apply(cmd ledger.Command) (ledger.Outcome, error) {
	for {
		out, err := j.node.Apply(j.lead, j.exp, cmd)
		switch {
		case j.lead.Err() != nil:
			return out, j.deposed(err)
		case errors.Is(err, consensus.ErrTransfer): // which may come to nothing
			select {
			case <-time.After(pause / 10):
			case <-j.lead.Done():
			}
		case !errors.Is(err, consensus.ErrUncertain):
			return out, j.deposed(err)
		}
	}
}

// deposed is err, as ErrDeposed where it is one that comes with the end of a leadership.
func (j *Journal) deposed(err error) error {
	if _, other := errors.AsType[*consensus.NotLeaderError](err); err != nil && (other || j.lead.Err() != nil || errors.Is(err, consensus.ErrLeadershipLost)) {
		return fmt.Errorf("%w: %w", ErrDeposed, err)
	}
	return err
}

// experiment is the experiment as the ledger has it.
func (j *Journal) experiment() (exp ledger.Experiment, err error) {
	found := false
	_, _, err = j.node.View(j.lead, consensus.Leader, func(s *ledger.State) { exp, found = s.ByID(j.exp) })
	if err == nil && !found {
		err = fmt.Errorf("coordinator: experiment %s: %w", j.exp, ledger.ErrNotFound)
	}
	return exp, j.deposed(err)
}

// Past implements [Book]. Of cuts whose blobs are damaged or gone on every node, which a single node cannot help, the last
// whole one counts; without any, ErrNoCut of package checkpoint. While a node that may have a blob does not answer, it is waited
// for.
func (j *Journal) Past() (Past, error) {
	exp, err := j.experiment()
	if err != nil {
		return Past{}, err
	}
	p := Past{Generation: exp.Generation, Holders: exp.Holders}
	var faults []error
	for _, c := range slices.Backward(exp.Cuts) {
		if p.Cut, err = j.find(c); err == nil {
			p.Damaged = faults
			return p, nil
		}
		if _, unknown := errors.AsType[*unreachable](err); unknown {
			return p, j.deposed(fmt.Errorf("coordinator: experiment %s: cut of step %d: %w", exp.Name, c.Step, err))
		}
		faults = append(faults, fmt.Errorf("cut of step %d: %w", c.Step, err))
	}
	if len(faults) > 0 {
		return p, errors.Join(append([]error{fmt.Errorf("coordinator: experiment %s: %w", exp.Name, checkpoint.ErrNoCut)}, faults...)...)
	}
	return p, nil
}

// Leases implements [Book].
func (j *Journal) Leases() (out []Lease, err error) {
	exp, err := j.experiment()
	for _, r := range exp.Replicas {
		out = append(out, Lease{transport.Register{Replica: r.Name, Incarnation: r.Incarnation, Device: r.Device, Platform: r.Platform}, r.Token})
	}
	return out, err
}

// unreachable says that a blob may be somewhere, on a node that does not answer.
type unreachable struct{ error }

func (e *unreachable) Unwrap() error { return e.error }

const (
	// tries is how often something is tried that another node has a part in, pause the time between two tries: as long as it
	// takes to start a node again.
	tries = 20
	pause = 500 * time.Millisecond
)

// find fetches a cut. That it is damaged is known only when no node has a whole copy; one that does not answer is asked again.
func (j *Journal) find(c ledger.Cut) (cut *checkpoint.Cut, err error) {
	err = j.patiently(func() (again bool, err error) {
		cut, err = j.read(c)
		_, again = errors.AsType[*unreachable](err)
		return again, err
	})
	return cut, err
}

// patiently tries again while that is said to help, but not for ever.
func (j *Journal) patiently(try func() (again bool, err error)) error {
	for n := 1; ; n++ {
		again, err := try()
		if err == nil || !again || n == tries {
			return err
		}
		select {
		case <-time.After(pause):
		case <-j.lead.Done():
			return err
		}
	}
}

// read fetches a cut.
func (j *Journal) read(c ledger.Cut) (*checkpoint.Cut, error) {
	blob := func(d ledger.Digest) ([]byte, error) {
		data, err := j.node.Blob(j.lead, d)
		if err != nil && !errors.Is(err, blobs.ErrNotFound) {
			err = &unreachable{err}
		}
		return data, err
	}
	return ReadCut(c, blob)
}

// ReadCut puts a cut of the ledger together from its blobs, and verifies all of it.
func ReadCut(c ledger.Cut, blob func(ledger.Digest) ([]byte, error)) (*checkpoint.Cut, error) {
	manifest, err := blob(c.Manifest)
	if err != nil {
		return nil, err
	}
	return checkpoint.FromBlobs(manifest, func(_ string, sum [sha256.Size]byte) ([]byte, error) { return blob(ledger.Digest(sum)) })
}

// Register implements [Book].
func (j *Journal) Register(r transport.Register) (uint64, error) {
	out, err := j.apply(ledger.Register{Replica: r.Replica, Incarnation: r.Incarnation, Device: r.Device, Platform: r.Platform, Takeover: true})
	return out.Value, errors.Join(err, out.Err)
}

// End implements [Book].
func (j *Journal) End(id string, token uint64, lost bool) error {
	out, err := j.apply(ledger.LeaseEnd{Replica: id, Token: token, Lost: lost})
	return errors.Join(err, out.Err)
}

// Open implements [Book].
func (j *Journal) Open(holders []string, from int) (uint64, error) {
	exp, err := j.experiment()
	if err != nil {
		return 0, err
	}
	out, err := j.apply(ledger.GenerationOpen{Number: exp.Generation + 1, Holders: holders, From: int64(from)})
	switch {
	case err != nil:
		return 0, err
	case out.Err == nil:
		return exp.Generation + 1, nil
	case !errors.Is(out.Err, ledger.ErrNotFound):
		return 0, fmt.Errorf("coordinator: generation %d: %w", exp.Generation+1, out.Err)
	}
	if exp, err = j.experiment(); err != nil {
		return 0, err
	}
	gone := slices.DeleteFunc(slices.Clone(holders), func(id string) bool {
		return slices.ContainsFunc(exp.Replicas, func(r ledger.Replica) bool { return r.Name == id })
	})
	if len(gone) == 0 {
		return 0, fmt.Errorf("coordinator: generation %d: %w", exp.Generation+1, out.Err)
	}
	return 0, &GoneError{slices.Compact(gone)}
}

// Commit implements [Book].
func (j *Journal) Commit(generation uint64, cut checkpoint.Cut) Commitment {
	c := &journaled{done: make(chan struct{})}
	go func() {
		defer close(c.done)
		start := time.Now()
		if c.err = j.commit(generation, cut); c.err == nil && j.cost != nil {
			j.cost(cut, time.Since(start))
		}
	}()
	return c
}

// journaled is a cut on its way; err is that of its end.
type journaled struct {
	done chan struct{}
	err  error
}

// Wait implements [Commitment].
func (c *journaled) Wait() error {
	<-c.done
	return c.err
}

// Done implements [Commitment].
func (c *journaled) Done() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

func (j *Journal) commit(generation uint64, cut checkpoint.Cut) error {
	cmd, parts, err := Entry(cut)
	if err != nil {
		return err
	}
	exp, err := j.experiment()
	if err != nil {
		return err
	}
	var data [][]byte
	for _, b := range parts {
		data = append(data, b.Data)
	}
	if text := platform(exp.Replicas); text != "" {
		cmd.Parts = append(cmd.Parts, ledger.Part{Name: PlatformPart, Digest: sha256.Sum256([]byte(text)), Bytes: uint64(len(text))})
		slices.SortFunc(cmd.Parts, func(a, b ledger.Part) int { return strings.Compare(a.Name, b.Name) })
		data = append(data, []byte(text))
	}
	release := func() {}
	err = j.patiently(func() (again bool, err error) { // a node may just be starting again
		release, err = j.node.PutBlobs(j.lead, data...)
		return errors.Is(err, blobs.ErrNoQuorum), err
	})
	if err != nil {
		return j.deposed(fmt.Errorf("coordinator: cut of step %d: %w", cut.Step, err))
	}
	defer release()
	cmd.Generation = generation
	out, err := j.apply(cmd)
	switch {
	case err != nil:
		return err
	case errors.Is(out.Err, ledger.ErrInconsistent):
		return fmt.Errorf("%w: step %d, generation %d: %w", ErrInconsistent, cut.Step, generation, out.Err)
	case out.Err != nil:
		return fmt.Errorf("coordinator: cut of step %d: %w", cut.Step, out.Err)
	}
	return nil
}

// PlatformPart is the part of a cut in the ledger that says on what platform it was made, see replica.Platform. It is no part of
// the cut itself, whose contents hang on nothing but the experiment.
const PlatformPart = "platform"

// platform is the one that all replicas have; "" where none says.
func platform(replicas []ledger.Replica) string {
	for _, r := range replicas {
		if r.Platform != "" {
			return r.Platform
		}
	}
	return ""
}

// Entry is the ledger's command for a cut, and the blobs that it names, the manifest last. The walkers are counted from the
// written labels.
func Entry(cut checkpoint.Cut) (ledger.CutCommit, []checkpoint.Blob, error) {
	cmd := ledger.CutCommit{Step: uint64(cut.Step)}
	var err error
	if cmd.Conservation, err = Census(&cut); err != nil {
		return cmd, nil, err
	}
	parts, _, err := cut.Blobs()
	if err != nil {
		return cmd, nil, err
	}
	for _, b := range parts {
		if b.Name == checkpoint.Manifest {
			cmd.Manifest = b.SHA256
			continue
		}
		cmd.Parts = append(cmd.Parts, ledger.Part{Name: b.Name, Digest: b.SHA256, Bytes: uint64(len(b.Data))})
	}
	return cmd, parts, nil
}

// Census counts the walkers of all groups in a cut, from the written labels.
func Census(cut *checkpoint.Cut) (c ledger.Conservation, err error) {
	for group := range NumGroups(cut) {
		part, err := GroupCut(cut, group)
		if err != nil {
			return c, err
		}
		n, err := engine.Count(part)
		if err != nil {
			return c, err
		}
		c.Rungs = uint64(n.Rungs) // of every group
		c.Ladders, c.Labels = c.Ladders+uint64(n.Ladders), c.Labels+n.Labels
		c.Created, c.Retired, c.Live = c.Created+n.Created, c.Retired+n.Retired, c.Live+n.Live
	}
	return c, nil
}
