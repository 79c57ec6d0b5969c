package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
)

// The tables of what coordinators have. They are for people, and may change.

func experimentSheet(list []api.Experiment) func() *sheet {
	return func() *sheet {
		s := &sheet{header: []string{"name", "phase", "step", "replicas", "last cut", "age", "wanted", "priority", "owner", "generation", "redone", "blobs", "message"}, wide: 7}
		for _, e := range list {
			cut := "–"
			if e.LastCut != nil {
				cut = fmt.Sprintf("%d, %s", e.LastCut.Step, since(e.LastCut.At))
			}
			s.row(e.Name, e.Phase, fmt.Sprintf("%d of %d", e.Step, e.Steps), fmt.Sprintf("%d of %d", e.LiveReplicas, mostReplicas(e)), cut, ago(e.Created),
				e.Desired, e.Priority, dash(e.Owner), e.Generation, e.StepsRedone, size(float64(e.Bytes)), short(e.Message, 60))
		}
		return s
	}
}

// mostReplicas is how many replicas an experiment may have.
func mostReplicas(e api.Experiment) uint32 {
	if e.Replicas == 0 {
		return e.Shards
	}
	return e.Replicas
}

func replicaSheet(list []api.Replica) func() *sheet {
	return func() *sheet {
		s := &sheet{header: []string{"replica", "state", "shards", "device", "age", "lease", "incarnation", "platform"}, wide: 3}
		for _, r := range list {
			var shards []string
			for _, n := range r.Shards {
				shards = append(shards, fmt.Sprint(n))
			}
			s.row(r.Name, r.State, dash(short(strings.Join(shards, " "), 40)), r.Device, ago(r.Since), r.Lease, r.Incarnation, r.Platform)
		}
		return s
	}
}

func shardSheet(list []api.Shard) func() *sheet {
	return func() *sheet {
		s := &sheet{header: []string{"shard", "group", "rung", "rows", "replica"}}
		for _, p := range list {
			rung := "all"
			if p.Rung != nil {
				rung = fmt.Sprint(*p.Rung)
			}
			s.row(p.Shard, p.Group, rung, p.Rows, dash(p.Replica))
		}
		return s
	}
}

func ladderSheet(l api.Ladder) func() *sheet {
	return func() *sheet {
		s := &sheet{header: []string{"rung", "β", "step size", "accept", "swaps", "tried", "accepted"}, wide: 2}
		s.title = fmt.Sprintf("step %d", l.Step)
		s.notes = []string{fmt.Sprintf("barrier %.3g, %d restarts, %d round trips, %.3g a scan", l.Barrier, l.Restarts, l.RoundTrips, l.RoundTripRate)}
		for _, r := range l.Rungs {
			s.row(r.Rung, fmt.Sprintf("%.4g", r.Beta), fmt.Sprintf("%.3g", r.StepSize), known(r.ExplorerAccept), known(r.SwapAccept), r.SwapAttempts, r.SwapAccepted)
		}
		return s
	}
}

// known is a share, a dash where it is not known.
func known(v *float64) string {
	if v == nil {
		return "–"
	}
	return fmt.Sprintf("%.3f", *v)
}

func heldSheet(b api.Buffer) func() *sheet {
	return func() *sheet {
		s := &sheet{header: []string{"step", "groups", "columns", "live", "rungs", "dim", "fill", "ages", "mean age", "size"}}
		s.row(b.Step, b.Groups, b.Columns, b.Live, b.Rungs, b.Dim, fmt.Sprintf("%.0f %%", 100*b.Fill), fmt.Sprintf("%d to %d", b.AgeMin, b.AgeMax), fmt.Sprintf("%.1f", b.AgeMean), size(float64(b.Bytes)))
		return s
	}
}

func eventSheet(list []api.Event) func() *sheet {
	return func() *sheet {
		s := &sheet{header: []string{"age", "event", "what", "index"}, wide: 1}
		for _, e := range list {
			s.row(ago(e.At), e.Reason, e.Text, e.Index)
		}
		return s
	}
}

func memberSheet(list []api.Member) func() *sheet {
	return func() *sheet {
		s := &sheet{header: []string{"member", "role", "leader", "healthy", "behind", "API", "peer", "NATS", "feature"}, wide: 3}
		for _, m := range list {
			healthy := yesNo(m.Healthy)
			if m.Message != "" {
				healthy += ": " + short(m.Message, 50)
			}
			leader := ""
			if m.Leader {
				leader = "*"
			}
			s.row(m.Name, m.Role, leader, healthy, m.Behind, dash(m.API), dash(m.Peer), dash(m.NATS), m.Feature)
		}
		return s
	}
}

func tokenSheet(list []api.Token) func() *sheet {
	return func() *sheet {
		s := &sheet{header: []string{"token", "scope", "owner", "experiments", "expires", "uses left"}}
		for _, t := range list {
			expires, uses, which := "never", "–", t.Experiments
			if t.Expires != nil {
				expires = t.Expires.Local().Format(time.DateTime)
			}
			if t.Spent {
				uses = "none left"
			} else if t.Uses > 0 {
				uses = fmt.Sprint(t.Uses)
			}
			if which == "" {
				which = "all"
			}
			s.row(t.Name, t.Scope, dash(t.Owner), which, expires, uses)
		}
		return s
	}
}

func quotaSheet(list []api.Quota) func() *sheet {
	return func() *sheet {
		s := &sheet{header: []string{"owner", "experiments", "replicas", "blobs"}}
		of := func(used, most uint64, text func(uint64) string) string {
			if most == 0 {
				return text(used)
			}
			return text(used) + " of " + text(most)
		}
		number := func(n uint64) string { return fmt.Sprint(n) }
		for _, q := range list {
			s.row(q.Owner, of(uint64(q.Used.Experiments), uint64(q.Experiments), number), of(uint64(q.Used.Replicas), uint64(q.Replicas), number),
				of(q.Used.Bytes, q.Bytes, func(n uint64) string { return size(float64(n)) }))
		}
		return s
	}
}

func poolSheet(list []api.PoolReplica) func() *sheet {
	return func() *sheet {
		s := &sheet{header: []string{"replica", "works for", "only for", "device", "age", "platform"}, wide: 1}
		for _, r := range list {
			s.row(r.ID, dash(r.Experiment), dash(r.Bound), r.Device, ago(r.Since), r.Platform)
		}
		return s
	}
}
