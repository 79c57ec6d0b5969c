//go:build unix

package coordinator_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/backend"
	"github.com/kelvin-ebm/kelvin/pkg/internal/testutil"
)

// TestReturnOfTheStopped stops a replica until its lease is over, and lets it go on: what it still wants of the old
// generation is refused, it registers again and takes its share. The digest is that of a training without all this.
func TestReturnOfTheStopped(t *testing.T) {
	s := byRung(backend.Go)
	want := alone(t, testutil.Backend(t, backend.Go), s)
	server := listening(t)
	newProcess(t, server.URL(), "0")
	stopped := newProcess(t, server.URL(), "1")
	f := fleet(t, s, server, 2, 1)
	if err := f.Start(); err != nil {
		t.Fatal(err)
	}
	train(t, f, 3)
	if err := stopped.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	train(t, f, 6)
	if got := f.Generations(); got != 2 {
		t.Errorf("generation %d, want 2 after the loss", got)
	}
	if err := stopped.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); len(f.Replicas()) < 2; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("the replica has not come back after a minute")
		}
	}
	if _, err := f.Cut(); err != nil {
		t.Fatal(err)
	}
	if got := f.Generations(); got != 3 {
		t.Errorf("generation %d, want 3 with the replica that came back", got)
	}
	train(t, f, steps)
	if got := digest(t, f); got != want {
		t.Errorf("digest %.12s, want %.12s", got, want)
	}
}
