package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Kind is what may befall a cluster.
type Kind string

// The kinds. Whoever is killed, ended or cut off comes back after Fault.Hold.
const (
	KillReplica       Kind = "kill replica"
	KillReplicas      Kind = "kill half of the replicas"
	KillFollower      Kind = "kill follower"
	KillLeader        Kind = "kill leader"
	KillLeaderReplica Kind = "kill leader and replica"
	KillCoordinators  Kind = "kill all coordinators"
	LoseReplica       Kind = "lose a replica's machine" // nobody is told that its connections ended
	LoseLeader        Kind = "lose the leader's machine"
	FreezeReplica     Kind = "freeze replica" // SIGSTOP
	FreezeFollower    Kind = "freeze follower"
	FreezeLeader      Kind = "freeze leader"
	EndReplica        Kind = "end replica" // SIGTERM
	EndLeader         Kind = "end leader"
	CutReplica        Kind = "cut off replica" // from everybody
	CutFollower       Kind = "cut off follower"
	CutLeader         Kind = "cut off leader"
	PartLeader        Kind = "part leader from followers" // replicas still reach all of them
	MuteLeader        Kind = "mute leader"                // it hears the followers, and they do not hear it
	Delay             Kind = "delay everything"
	Narrow            Kind = "narrow replica" // to a few hundred kilobytes a second
	Reset             Kind = "reset connections"
	Abandon           Kind = "half-open connections"
)

// kinds are all of them, in the order of reports.
var kinds = []Kind{
	KillReplica, KillReplicas, KillFollower, KillLeader, KillLeaderReplica, KillCoordinators, LoseReplica, LoseLeader,
	FreezeReplica, FreezeFollower, FreezeLeader, EndReplica, EndLeader, CutReplica, CutFollower, CutLeader, PartLeader, MuteLeader,
	Delay, Narrow, Reset, Abandon,
}

// Fault is something that will happen.
type Fault struct {
	Kind Kind
	Gap  int           // steps of training since the last one was over
	Hold time.Duration // until it is undone
	Pick uint64        // whom it hits, among those whom it may
	Link Link          // of Delay and Narrow
}

func (f Fault) String() string {
	return fmt.Sprintf("%s for %v, %d steps later", f.Kind, f.Hold.Round(time.Millisecond), f.Gap)
}

// Deck is how often each kind comes, relative to the others.
type Deck map[Kind]int

// Commonest has each of the commonest kinds once.
var Commonest = Deck{
	KillReplica: 1, KillFollower: 1, KillLeader: 1, FreezeReplica: 1, FreezeLeader: 1, CutLeader: 1, Delay: 1, KillCoordinators: 1,
}

// Everything has every kind.
var Everything = Deck{
	KillReplica: 6, KillReplicas: 2, KillFollower: 2, KillLeader: 5, KillLeaderReplica: 2, KillCoordinators: 1, LoseReplica: 2, LoseLeader: 2,
	FreezeReplica: 3, FreezeFollower: 1, FreezeLeader: 3, EndReplica: 2, EndLeader: 2, CutReplica: 2, CutFollower: 1, CutLeader: 3,
	PartLeader: 2, MuteLeader: 1, Delay: 2, Narrow: 1, Reset: 2, Abandon: 2,
}

// Plan draws n faults. The deck is dealt to the end before it is shuffled again, so that none of its kinds is left out. No hold
// is longer than most, which is above a second. Equal arguments give equal plans.
func Plan(seed uint64, deck Deck, n int, most time.Duration) []Fault {
	random := rand.New(rand.NewPCG(seed, 7))
	var cards []Kind
	for kind, times := range deck {
		cards = append(cards, slices.Repeat([]Kind{kind}, times)...)
	}
	slices.Sort(cards) // the map's order is none
	between := func(least, longest time.Duration) time.Duration {
		return least + time.Duration(random.Int64N(int64(longest-least)))
	}
	var faults []Fault
	for i := range n {
		at := i % len(cards)
		if at == 0 {
			random.Shuffle(len(cards), func(a, b int) { cards[a], cards[b] = cards[b], cards[a] })
		}
		f := Fault{Kind: cards[at], Gap: 10 + random.IntN(100), Pick: random.Uint64()}
		switch word, _, _ := strings.Cut(string(f.Kind), " "); word {
		case "freeze":
			f.Hold = between(time.Second, min(30*time.Second, most))
		case "cut", "part", "mute", "lose", "delay", "narrow":
			f.Hold = between(time.Second, min(10*time.Second, most))
		case "kill", "end":
			f.Hold = between(0, min(3*time.Second, most))
		}
		low := between(5*time.Millisecond, 50*time.Millisecond)
		switch f.Kind {
		case Delay:
			f.Link = Link{Delay: low, Jitter: low / 2}
		case Narrow:
			f.Link = Link{Rate: 100_000 + random.IntN(400_000)}
		}
		faults = append(faults, f)
	}
	return faults
}
