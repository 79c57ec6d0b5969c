package consensus

import (
	"errors"
	"fmt"

	"github.com/anishathalye/porcupine"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// register is the sequential model of one experiment that the histories of TestLinearizable are held against. It is written
// from what the ledger's commands promise, not from its code. A version or token of 0 is one that nobody was told, because
// the operation that set it has an unknown outcome.
type register struct {
	Version  uint64
	Floor    uint64 // the last version that is known
	Priority int32
	Gen      uint64
	From     int64
	Leases   [2]lease
	Cuts     [ledger.KeptCuts]uint64 // oldest first
	NumCuts  int
}

type lease struct {
	Incarnation, Token uint64 // 0 and 0: none
}

type opKind int

const (
	opRead opKind = iota
	opSet         // compare and set of the priority
	opRegister
	opLeaseEnd
	opOpen // a generation
	opCut
)

// operation is what a client asks of an experiment.
type operation struct {
	Exp      int
	Kind     opKind
	Version  uint64
	Priority int32
	Replica  int
	Lease    lease
	Gen      uint64
	From     int64
	Step     uint64
	Unique   uint64 // of cuts
}

// result is what it was told.
type result struct {
	Unknown bool
	Refused bool
	Value   uint64
	Read    register
}

func (o operation) command() ledger.Command {
	switch o.Kind {
	case opSet:
		return ledger.ExpSet{Version: o.Version, Priority: &o.Priority}
	case opRegister:
		return ledger.Register{Replica: replicaName(o.Replica), Incarnation: o.Lease.Incarnation}
	case opLeaseEnd:
		return ledger.LeaseEnd{Replica: replicaName(o.Replica), Token: o.Lease.Token}
	case opOpen:
		return ledger.GenerationOpen{Number: o.Gen, Holders: []string{replicaName(0), replicaName(0)}, From: o.From}
	case opCut:
		return ledger.CutCommit{Generation: o.Gen, Step: o.Step, Conservation: ledger.Conservation{Created: o.Unique, Retired: o.Unique}}
	}
	panic(fmt.Sprintf("operation %d has no command", o.Kind))
}

func replicaName(i int) string { return fmt.Sprint("r", i) }

// registerOf is an experiment as the model sees it.
func registerOf(e ledger.Experiment) register {
	r := register{Version: e.Version, Floor: e.Version, Priority: e.Priority, Gen: e.Generation, From: e.From, NumCuts: len(e.Cuts)}
	for i := range r.Leases {
		for _, l := range e.Replicas {
			if l.Name == replicaName(i) {
				r.Leases[i] = lease{l.Incarnation, l.Token}
			}
		}
	}
	for i, c := range e.Cuts {
		r.Cuts[i] = c.Step
	}
	return r
}

// told takes over a version that somebody was told; false if it cannot be.
func (r *register) told(version uint64) bool {
	if r.Version == 0 {
		if version <= r.Floor {
			return false
		}
		r.Version, r.Floor = version, version
	}
	return r.Version == version
}

// changed is the state after a change whose version is known, or 0.
func (r register) changed(version uint64) (register, bool) {
	if version != 0 && (version <= r.Floor || version <= r.Version) {
		return r, false
	}
	r.Version, r.Floor = version, max(r.Floor, r.Version, version)
	return r, true
}

// outcomes are what can follow when an operation takes effect: nothing that comes to what its client was told if that is
// impossible.
func outcomes(r register, o operation, out result) (next []register) {
	refused := func() {
		if out.Unknown || out.Refused {
			next = append(next, r)
		}
	}
	same := func() { // accepted, and nothing changes
		if !out.Unknown && !out.Refused && !r.told(out.Value) || out.Refused {
			return
		}
		next = append(next, r)
	}
	done := func(change func(*register)) {
		if out.Refused {
			return
		}
		value := out.Value
		if out.Unknown {
			value = 0
		}
		if n, ok := r.changed(value); ok {
			change(&n)
			next = append(next, n)
		}
	}
	switch o.Kind {
	case opRead:
		if !r.told(out.Read.Version) {
			return nil
		}
		for i := range r.Leases {
			if l := &r.Leases[i]; l.Incarnation != 0 && l.Token == 0 {
				l.Token = out.Read.Leases[i].Token
			}
		}
		r.Floor = out.Read.Floor
		if r == out.Read {
			next = append(next, r)
		}
	case opSet:
		if r.Version == o.Version || r.Version == 0 && o.Version > r.Floor {
			set := r
			if set.told(o.Version) {
				r, set = set, r
				done(func(n *register) { n.Priority = o.Priority })
				r = set
			}
		}
		if r.Version != o.Version {
			refused()
		}
	case opRegister:
		if r.Leases[o.Replica].Incarnation != 0 {
			refused()
			break
		}
		done(func(n *register) { n.Leases[o.Replica] = lease{o.Lease.Incarnation, n.Version} })
	case opLeaseEnd:
		l := r.Leases[o.Replica]
		if l.Incarnation != 0 && o.Lease.Token != 0 && (l.Token == o.Lease.Token || l.Token == 0) {
			done(func(n *register) { n.Leases[o.Replica] = lease{} })
		}
		if l.Incarnation == 0 || l.Token != o.Lease.Token || l.Token == 0 {
			same()
		}
	case opOpen:
		from := 0 // cuts that are kept
		there := o.From == ledger.Start && r.NumCuts == 0
		for i := range r.NumCuts {
			if int64(r.Cuts[i]) == o.From {
				there, from = true, i+1
			}
		}
		switch {
		case o.Gen == r.Gen && o.From == r.From && r.Gen > 0:
			same()
		case o.Gen != r.Gen+1 || !there || r.Leases[0].Incarnation == 0:
			refused()
		default:
			done(func(n *register) {
				n.Gen, n.From = o.Gen, o.From
				clear(n.Cuts[from:])
				n.NumCuts = from
			})
		}
	case opCut:
		if o.Gen != r.Gen || r.Gen == 0 || r.NumCuts > 0 && o.Step <= r.Cuts[r.NumCuts-1] {
			refused()
			break
		}
		done(func(n *register) {
			if n.NumCuts == ledger.KeptCuts {
				copy(n.Cuts[:], n.Cuts[1:])
				n.NumCuts--
			}
			n.Cuts[n.NumCuts] = o.Step
			n.NumCuts++
		})
	}
	return next
}

// sequential is the model for porcupine; start are the experiments when the history begins.
func sequential(start []register) porcupine.Model {
	m := porcupine.NondeterministicModel{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			parts := make([][]porcupine.Operation, len(start))
			for _, o := range history {
				i := o.Input.(operation).Exp
				parts[i] = append(parts[i], o)
			}
			return parts
		},
		Init: func() []any {
			out := make([]any, len(start))
			for i, r := range start {
				out[i] = r
			}
			return out
		},
		Step: func(state, input, output any) []any {
			var next []any
			for _, r := range outcomes(state.(register), input.(operation), output.(result)) {
				next = append(next, r)
			}
			return next
		},
		Equal: func(a, b any) bool { return a == b },
	}
	return m.ToModel()
}

// resultOf is what a client learned; false if nothing happened.
func resultOf(out ledger.Outcome, err error) (result, bool) {
	switch {
	case err == nil:
		return result{Refused: out.Err != nil, Value: out.Value}, true
	case errors.Is(err, ErrUncertain):
		return result{Unknown: true}, true
	}
	return result{}, false
}
