package transport

import (
	"context"
	"errors"
	"fmt"
)

// Why a message is refused. A refusal travels back to the sender, so that these errors are found on both sides with
// [errors.Is]; on the receiving side [Counts] counts them by name.
var (
	ErrShort      = errors.New("message cut short")
	ErrTooLarge   = errors.New("message too large")
	ErrMagic      = errors.New("not a message of this protocol")
	ErrVersion    = errors.New("unknown protocol version")
	ErrChecksum   = errors.New("checksum does not match")
	ErrMalformed  = errors.New("malformed message")
	ErrExperiment = errors.New("message of another experiment")
	ErrStale      = errors.New("message of another generation")
	ErrUnhandled  = errors.New("nobody handles this type of message here")
	ErrNotReady   = errors.New("not ready")
	ErrFailed     = errors.New("handler failed")
)

// What goes wrong on the way.
var (
	ErrNoResponders = errors.New("no responders")
	ErrDisconnected = errors.New("disconnected from the message server")
	ErrClosed       = errors.New("connection closed")
	ErrUnauthorized = errors.New("not allowed by the message server")
)

// refusals are the errors that travel, each by its index, and the names of their counters. Appending one is a new version
// of the protocol.
var refusals = [...]struct {
	name string
	err  error
}{
	{"short", ErrShort},
	{"too_large", ErrTooLarge},
	{"magic", ErrMagic},
	{"version", ErrVersion},
	{"checksum", ErrChecksum},
	{"malformed", ErrMalformed},
	{"experiment", ErrExperiment},
	{"generation", ErrStale},
	{"unhandled", ErrUnhandled},
	{"not_ready", ErrNotReady},
	{"failed", ErrFailed},
}

// refusalOf is the index in refusals of an error. A handler whose context ended is not ready; whatever else has no place
// in the table counts as failed.
func refusalOf(err error) int {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		err = ErrNotReady
	}
	failed := 0
	for i, r := range refusals {
		if errors.Is(err, r.err) {
			return i
		}
		if r.err == ErrFailed {
			failed = i
		}
	}
	return failed
}

// StaleError says that a message and the one who refused it are of different generations. It is an ErrStale.
type StaleError struct {
	Message uint64 // generation of the message
	Current uint64 // generation of the one who refused it
}

func (e *StaleError) Error() string {
	return fmt.Sprintf("%v: %d, want %d", ErrStale, e.Message, e.Current)
}

func (e *StaleError) Unwrap() error { return ErrStale }

// RemoteError is the answer of a peer that refused a request or failed at it. It unwraps to the refusal.
type RemoteError struct {
	Refusal error  // one of the package's errors
	Text    string // the peer's words
}

func (e *RemoteError) Error() string { return "peer answers: " + e.Text }

func (e *RemoteError) Unwrap() error { return e.Refusal }
