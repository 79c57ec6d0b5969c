package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

func TestReplicasServeOneExperimentAfterTheOther(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		a, b := s.ask("a"), s.ask("b")
		s.expect("a without work", now(t, a), "")
		s.expect("the pool", s.in(), "a: b:")
		one := s.submit("one", 2, 2)
		s.submit("two", 2, 1)
		r := <-a
		want := api.Assignment{Meta: api.Kind("Assignment"), Experiment: "one", UID: one.String(), Secret: ledger.ExperimentSecret([32]byte{2}, one), NATS: r.NATS}
		if fmt.Sprint(r.Assignment) != fmt.Sprint(want) || !slices.Equal(r.NATS, []string{"nats://n1:4222", "nats://n2:4222", "nats://n:4222"}) {
			t.Errorf("assignment %+v, want %+v", r.Assignment, want)
		}
		s.expect("b", now(t, b), "one")
		s.expect("one", s.phase("one"), "waiting")
		s.expect("two", s.phase("two"), "queued")
		s.expect("message of two", s.exp("two").Message, "for replicas, 1 to begin with")
		s.registers(one, "a")
		s.registers(one, "b")
		time.Sleep(time.Hour)
		s.expect("the pool", s.in(), "a:one b:one")

		s.ends("one", ledger.Completed, "")
		a, b = s.ask("a"), s.ask("b")
		s.expect("a", now(t, a), "two")
		s.expect("b", now(t, b), "two")
		s.expect("drivers", s.drove(), "[one two]")
		s.expect("leases of one", len(s.exp("one").Replicas), 0)
	})
}

func TestAssignmentThatLeadsToNoLeaseIsGivenBack(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		s.submit("one", 1, 1)
		s.expect("a", now(t, s.ask("a")), "one")
		b := s.ask("b")
		s.expect("b", now(t, b), "")
		time.Sleep(longPoll)
		s.expect("b", now(t, b), "nothing")
		b = s.ask("b")
		time.Sleep(handover - longPoll - 5*time.Second)
		s.expect("b, shortly before", now(t, b), "")
		time.Sleep(5 * time.Second)
		s.expect("b", now(t, b), "one")
		s.expect("the pool", s.in(), "b:one")
	})
}

// Whoever asks does not work, whatever was given to him before: he gets it again.
func TestAnswerThatGotLostIsGivenAgain(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		one := s.submit("one", 1, 1)
		s.expect("a", now(t, s.ask("a")), "one")
		s.expect("a, again", now(t, s.ask("a")), "one")
		s.registers(one, "a")
		s.expect("a, whose coordinator got lost", now(t, s.ask("a")), "one")
		s.expect("a, started anew", now(t, s.asks(api.Ask{ID: "a", Incarnation: 2})), "one")
		s.expect("a, which cannot work for it", now(t, s.asks(api.Ask{ID: "a", Incarnation: 2, Refuses: []string{one.String()}})), "")
	})
}

func TestBoundReplicas(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		bound := func(id, to string) chan replied { return s.asks(api.Ask{ID: id, Incarnation: 1, Experiment: to}) }
		s.expect("an unknown one", now(t, bound("x", "none")), "done, exit 42: experiment none: not found")
		one, two := s.submit("one", 1, 1), s.submit("two", 2, 2)
		s.expect("of the first", now(t, bound("a", "one")), "one")
		s.registers(one, "a")
		b := bound("b", "two")
		s.expect("while it is queued", now(t, b), "")
		s.do(two, ledger.ExpSet{Desired: ledger.Pause})
		s.expect("while it is paused", now(t, b), "")
		s.expect("two", s.phase("two"), "paused")
		c := bound("c", "two")
		s.expect("while it is paused", now(t, c), "")
		s.do(two, ledger.ExpSet{Desired: ledger.Run})
		s.expect("in its turn", now(t, b), "two")
		s.expect("in its turn", now(t, c), "two")
		d := bound("d", "two")
		s.expect("beyond what is wanted", now(t, d), "")
		s.ends("two", ledger.Failed, "loss is NaN")
		s.expect("after a failure", now(t, d), "done, exit 42: experiment two is failed: loss is NaN")
		s.ends("one", ledger.Completed, "")
		s.expect("after the end", now(t, bound("a", "one")), "done, exit 0: experiment one is completed")
	})
}

func TestDesires(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		settled := func(name, want string) {
			t.Helper()
			time.Sleep(2 * time.Second)
			s.expect(name, s.phase(name), want)
		}
		one := s.submit("one", 1, 1)
		settled("one", "queued")
		s.do(one, ledger.ExpSet{Desired: ledger.Pause})
		settled("one", "paused")
		s.do(one, ledger.ExpSet{Desired: ledger.Run})
		settled("one", "queued")
		s.expect("a", now(t, s.ask("a")), "one")
		s.do(one, ledger.ExpSet{Desired: ledger.Pause}) // its driver's to obey, with a replica or without
		settled("one", "waiting")
		s.registers(one, "a")
		settled("one", "waiting")
		s.ends("one", ledger.Paused, "at the cut of step 7")
		settled("one", "paused")
		s.expect("what the driver said", s.exp("one").Message, "at the cut of step 7")
		s.do(one, ledger.ExpSet{Desired: ledger.Cancel})
		settled("one", "cancelled")
		s.expect("drivers", s.drove(), "[one]")
	})
}

func TestDriverThatEndedIsStartedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		one := s.submit("one", 1, 1)
		s.expect("a", now(t, s.ask("a")), "one")
		s.registers(one, "a")
		for range 3 {
			s.put("one", s.driver("one"))
			time.Sleep(2 * retry)
		}
		s.expect("drivers", s.drove(), "[one one one one]")
		s.expect("the pool", s.in(), "a:one")
	})
}

// A new leader hears of replicas that work by their leases, and of the others when they ask again.
func TestAnotherLeaderGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.expect("without a leader", now(t, s.ask("a")), errNotHere.Error())
		depose := s.lead()
		one := s.submit("one", 1, 1)
		s.expect("a", now(t, s.ask("a")), "one")
		s.registers(one, "a")
		b := s.ask("b")
		s.expect("b", now(t, b), "")
		depose()
		s.expect("b, whose leader is gone", now(t, b), errNotHere.Error())
		s.expect("the pool without a leader", s.in(), "")

		two := s.submit("two", 1, 1)
		s.do(two, ledger.ExpSet{Desired: ledger.Pause})
		depose = s.lead()
		time.Sleep(time.Minute)
		s.expect("the pool", s.in(), "a:one")
		s.expect("two", s.phase("two"), "paused")
		s.do(two, ledger.ExpSet{Desired: ledger.Run})
		s.expect("b", now(t, s.ask("b")), "two")
		s.expect("drivers", s.drove(), "[one one two]")
		depose()
	})
}

func TestReplicaThatWentAwayIsGivenNothing(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		ctx, hangUp := context.WithCancel(t.Context())
		gone := s.asksWith(ctx, hangUp, api.Ask{ID: "a", Incarnation: 1})
		s.expect("a", now(t, gone), "")
		hangUp()
		s.expect("a", now(t, gone), "nothing")
		s.expect("the pool", s.in(), "")

		b := s.ask("b")
		time.Sleep(longPoll)
		s.expect("b", now(t, b), "nothing")
		s.expect("the pool, in which b is about to ask again", s.in(), "b:")
		s.submit("one", 1, 1)
		time.Sleep(time.Second)
		s.expect("one", s.phase("one"), "queued")
		s.expect("b", now(t, s.ask("b")), "one")
	})
}

func TestOneProcessAnId(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		first := s.ask("a")
		s.expect("the first", now(t, first), "")
		s.expect("another process", now(t, s.asks(api.Ask{ID: "a", Incarnation: 2})), "another process asks for work as replica a, want an id that no other has")
		again := s.ask("a")
		s.expect("the same once more", now(t, again), "")
		s.expect("the first", now(t, first), "nothing")
		s.submit("one", 1, 1)
		s.expect("the same once more", now(t, again), "one")
		for _, bad := range []api.Ask{{ID: "a.b"}, {ID: ""}, {ID: "b", Refuses: make([]string, 65)}} {
			_, _, err := s.Ask(t.Context(), bad)
			if e, ok := errors.AsType[*api.Error](err); !ok || e.Code != api.Invalid {
				t.Errorf("%+v: %v", bad, err)
			}
		}
	})
}

func TestReleasedReplicaEnds(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		one := s.submit("one", 1, 1)
		s.expect("a", now(t, s.ask("a")), "one")
		lease := s.registers(one, "a")
		s.Release("a")
		time.Sleep(time.Minute)
		s.do(one, ledger.LeaseEnd{Replica: "a", Token: lease})
		s.expect("a", now(t, s.ask("a")), "done, exit 143: asked to leave")
		s.expect("a, started again", now(t, s.ask("a")), "one")
	})
}

func TestLeaseThatIsLostFreesThePlace(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		one := s.submit("one", 1, 1)
		s.expect("a", now(t, s.ask("a")), "one")
		lease := s.registers(one, "a")
		b := s.ask("b")
		s.expect("b", now(t, b), "")
		s.do(one, ledger.LeaseEnd{Replica: "a", Token: lease, Lost: true})
		s.expect("b", now(t, b), "one")
		s.expect("the pool", s.in(), "a: b:one")
		time.Sleep(between)
		s.expect("the pool", s.in(), "b:one")
	})
}

func TestSchedulerOutlastsALedgerThatDoesNotAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		s.submit("one", 1, 1)
		time.Sleep(time.Second)
		s.fail(true)
		a := s.ask("a")
		time.Sleep(10 * time.Second)
		s.expect("a", now(t, a), "")
		s.fail(false)
		s.expect("a", now(t, a), "one")
	})
}

// A ledger in which nothing is left to do is not written to.
func TestSchedulerComesToRest(t *testing.T) {
	bubble(t, func(t *testing.T, s *stage) {
		one := s.submit("one", 2, 1)
		s.submit("two", 4, 4)
		s.expect("a", now(t, s.ask("a")), "one")
		s.registers(one, "a")
		time.Sleep(time.Minute)
		index := s.index()
		for range 10 {
			b := s.ask("b")
			time.Sleep(longPoll)
			_ = now(t, b)
		}
		s.expect("log index", s.index(), index)
	})
}
