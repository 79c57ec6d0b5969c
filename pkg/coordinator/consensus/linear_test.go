package consensus

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

const (
	numClients     = 5
	numExperiments = 3
	faultEvery     = 170 // operations
)

// history makes clients work on a cluster under faults and records what they were told. view changes what reads are worth.
func history(t *testing.T, seed uint64, operations int64, view func(Consistency) Consistency) (ops []porcupine.Operation, start []register) {
	c := newCluster(t, "a", "b", "c")
	for name, cfg := range c.cfg {
		cfg.Heartbeat = 60 * time.Millisecond
		cfg.hooks.readView = view
		c.cfg[name] = cfg
	}
	c.startAll()
	exps := make([]ledger.ID, numExperiments)
	for i := range exps {
		exps[i] = c.experiment(fmt.Sprint("x", i))
	}
	err := c.ask(func(leader *Node) error {
		_, _, err := leader.View(within(t), Linearizable, func(s *ledger.State) {
			for _, e := range s.Experiments() {
				start = append(start, registerOf(e))
			}
		})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.RWMutex // of c.nodes
	var count atomic.Int64
	var wg sync.WaitGroup
	recorded := make([][]porcupine.Operation, numClients)
	begin := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for i := range numClients {
		client := &client{
			rng: rand.New(rand.NewPCG(seed, uint64(i))), id: i, exps: exps, seen: append([]register(nil), start...), any: view != nil,
			node: func(r *rand.Rand) *Node {
				mu.RLock()
				defer mu.RUnlock()
				name := string("abc"[r.IntN(3)])
				return c.nodes[name]
			},
		}
		wg.Go(func() {
			for count.Load() < operations && ctx.Err() == nil {
				if op, ok := client.work(begin); ok {
					recorded[i] = append(recorded[i], op)
					count.Add(1)
				}
			}
		})
	}
	rng := rand.New(rand.NewPCG(seed, math.MaxUint64))
	for at := int64(faultEvery); at < operations; at += faultEvery {
		for count.Load() < at && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		victim := string("abc"[rng.IntN(3)])
		if rng.IntN(3) > 0 { // mostly the leader
			mu.RLock()
			for name, n := range c.nodes {
				if n.Leads() {
					victim = name
				}
			}
			mu.RUnlock()
		}
		pause := time.Duration(50+rng.IntN(300)) * time.Millisecond
		if rng.IntN(2) == 0 {
			c.net.isolate(victim, true)
			time.Sleep(pause)
			c.net.isolate(victim, false)
			continue
		}
		mu.Lock()
		n := c.nodes[victim]
		delete(c.nodes, victim)
		mu.Unlock()
		n.closing.Do(func() { n.closed = n.shut() })
		time.Sleep(pause)
		n, err := Open(within(t), c.cfg[victim])
		if err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		c.nodes[victim] = n
		mu.Unlock()
	}
	wg.Wait()
	if ctx.Err() != nil {
		for name, n := range c.nodes {
			leader, _ := n.Leader()
			t.Logf("%s is %v, follows %q: %+v", name, n.raft.State(), leader, n.Stats())
		}
		t.Fatalf("KELVIN_SEED=%d: %d operations in two minutes, want %d", seed, count.Load(), operations)
	}
	for _, r := range recorded {
		ops = append(ops, r...)
	}
	return ops, start
}

// client is one of those who work on the experiments at the same time.
type client struct {
	rng  *rand.Rand
	id   int
	made uint64
	exps []ledger.ID
	seen []register // what it last read of each
	any  bool       // reads anywhere, not only on the leader
	last *Node      // that has answered
	node func(*rand.Rand) *Node
}

// work makes one operation; false if nothing happened.
func (c *client) work(begin time.Time) (porcupine.Operation, bool) {
	if c.last == nil || c.any {
		c.last = c.node(c.rng)
	}
	n := c.last
	if n == nil {
		time.Sleep(time.Millisecond)
		return porcupine.Operation{}, false
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	c.made++
	in := c.next()
	var out result
	ok := true
	call := time.Since(begin)
	if in.Kind == opRead {
		_, _, err := n.View(ctx, Linearizable, func(s *ledger.State) {
			e, _ := s.ByID(c.exps[in.Exp])
			out.Read = registerOf(e)
		})
		ok = err == nil
		if ok {
			c.seen[in.Exp] = out.Read
		}
	} else {
		out, ok = resultOf(n.Apply(ctx, c.exps[in.Exp], in.command()))
	}
	end := time.Since(begin)
	if out.Unknown {
		end = math.MaxInt64 // it may take effect at any time from now on
	}
	if !ok || out.Unknown {
		c.last = nil
		time.Sleep(time.Millisecond)
	}
	return porcupine.Operation{ClientId: c.id, Input: in, Output: out, Call: int64(call), Return: int64(end)}, ok
}

// next makes up an operation, mostly one that can succeed by what the client knows.
func (c *client) next() operation {
	unique := c.made*numClients + uint64(c.id) + 1
	o := operation{Exp: c.rng.IntN(len(c.exps)), Replica: c.rng.IntN(2)}
	seen := c.seen[o.Exp]
	o.Gen, o.Version, o.From = seen.Gen, seen.Version, ledger.Start
	if seen.NumCuts > 0 {
		o.From = int64(seen.Cuts[c.rng.IntN(seen.NumCuts)])
	}
	o.Lease = seen.Leases[o.Replica]
	switch o.Kind = opKind(c.rng.IntN(8)); o.Kind {
	case opSet:
		o.Priority = int32(unique)
	case opRegister:
		o.Lease = lease{Incarnation: unique}
	case opOpen:
		o.Gen++
	case opCut:
		o.Unique, o.Step = unique, uint64(c.rng.IntN(3))
		if seen.NumCuts > 0 {
			o.Step += seen.Cuts[seen.NumCuts-1]
		}
	case opLeaseEnd:
		if c.rng.IntN(2) == 0 { // leases should stand for a while
			o.Kind = opRead
		}
	default:
		o.Kind = opRead
	}
	return o
}

// seeds are those of KELVIN_SEED, or n from the clock.
func seeds(t *testing.T, n int) []uint64 {
	t.Helper()
	if s := os.Getenv("KELVIN_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return []uint64{seed}
	}
	out := make([]uint64, n)
	for i := range out {
		out[i] = rand.Uint64()
	}
	return out
}

// extent is how many histories are checked and how long each is: fewer under -short, the most if KELVIN_CHAOS is "long".
func extent() (histories int, operations int64) {
	switch os.Getenv("KELVIN_CHAOS") {
	case "":
		if testing.Short() {
			return 6, 1000
		}
	case "long":
		return 200, 5000
	}
	return 20, 1000
}

// TestLinearizable runs clients against a cluster whose nodes are killed and cut off, and looks for an order of all their
// operations, each between its call and its return, in which a single copy of the experiments would have told them the same.
// An operation of unknown outcome may have taken effect at any time after its call, or never. The times of the faults depend
// on the machine, so a seed that fails must perhaps be run more than once.
func TestLinearizable(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	histories, operations := extent()
	for _, seed := range seeds(t, histories) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			ops, start := history(t, seed, operations, nil)
			unknown, reads, refused := 0, 0, 0
			for _, o := range ops {
				switch out := o.Output.(result); {
				case out.Unknown:
					unknown++
				case o.Input.(operation).Kind == opRead:
					reads++
				case out.Refused:
					refused++
				}
			}
			t.Logf("%d operations: %d reads, %d refused, %d of unknown outcome", len(ops), reads, refused, unknown)
			if r := porcupine.CheckOperationsTimeout(sequential(start), ops, time.Minute); r != porcupine.Ok {
				t.Errorf("KELVIN_SEED=%d: %s, want a history that can be put in an order", seed, r)
				explain(t, start, ops)
			}
		})
	}
}

// explain shows where an order of the history ends.
func explain(t *testing.T, start []register, ops []porcupine.Operation) {
	model := sequential(start)
	for exp, part := range model.Partition(ops) {
		result, info := porcupine.CheckOperationsVerbose(model, part, time.Minute)
		if result == porcupine.Ok {
			continue
		}
		best := map[int]bool{}
		for _, order := range info.PartialLinearizations()[0] {
			if len(order) > len(best) {
				clear(best)
				for _, i := range order {
					best[i] = true
				}
			}
		}
		t.Logf("experiment %d: an order of %d of %d operations; first of the others:", exp, len(best), len(part))
		shown := 0
		for i, o := range part {
			if !best[i] && shown < 20 && o.Return != math.MaxInt64 {
				t.Logf("%v to %v, client %d: %+v: %+v", time.Duration(o.Call), time.Duration(o.Return), o.ClientId, o.Input, o.Output)
				shown++
			}
		}
	}
}

// A read of whatever a node has, called linearizable, must be caught: else TestLinearizable would prove nothing.
func TestStaleReadsAreNotLinearizable(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	for _, seed := range seeds(t, 5) {
		ops, start := history(t, seed, 1000, func(Consistency) Consistency { return Stale })
		if porcupine.CheckOperationsTimeout(sequential(start), ops, time.Minute) == porcupine.Illegal {
			return
		}
	}
	t.Error("five histories of stale reads pass for linearizable")
}
