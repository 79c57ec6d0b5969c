package coordinator

import (
	"context"
	"errors"

	"github.com/kelvin-ebm/kelvin/pkg/replica"
	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

// crew is what a [Fleet] knows of the replicas, and how it reaches them. The Fleet itself has neither clock nor network, so
// that all it decides can be tried on any course of events.
type crew interface {
	living() []string              // have a lease and do not want to leave, in order
	gather(n int) error            // waits until so many live
	drop(id string)                // ends a lease
	drain(id string) bool          // makes a replica want to leave; false: it has no lease
	draining(id string) bool       // it wants to
	enlist(holders []string)       // makes the holders of shards the members of a new generation
	enlisted() []string            // the members, in order
	leaving(holders []string) bool // a holder wants to leave, and somebody else could take its shards
	lopsided(holders []string) bool

	// ask sends a command to some members and waits for their answers, each as long as the member lives; at the first that
	// fails it calls failed.
	ask(to []string, generation uint64, cmd replica.Command, failed func()) ([]replica.Answer, []error)
	// reachable says whether a replica answers.
	reachable(id string, generation uint64) bool
	// late is the number of averaging rounds that waited for somebody longer than was to be expected.
	late() int
	// breathe waits a moment.
	breathe()
	// abort tells all members that the generation is over.
	abort(generation uint64)
	// pull fetches a blob from a member.
	pull(id string, key transport.Key) ([]byte, error)
	// give keeps a blob for the members until release.
	give(key transport.Key, data []byte) error
	release()
	// dismiss ends all replicas; close ends the crew.
	dismiss(generation uint64)
	close()
}

// meaning is what becomes of a command that was not answered.
type meaning int

const (
	again     meaning = iota // it works on it, or question or answer got lost: ask again
	unwilling                // it lives, and will not do it
	gone                     // it cannot be reached, or lives in another generation
)

func meaningOf(err error) meaning {
	is := func(targets ...error) bool {
		for _, target := range targets {
			if errors.Is(err, target) {
				return true
			}
		}
		return false
	}
	switch {
	case is(transport.ErrNotReady, context.DeadlineExceeded, transport.ErrDisconnected):
		return again
	case is(transport.ErrFailed, transport.ErrMalformed, transport.ErrUnhandled):
		return unwilling
	default:
		return gone
	}
}
