//go:build linux

package chaos

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// newPlace is a place for a shell that runs a line.
func newPlace(t *testing.T, line string) *Place {
	t.Helper()
	p := &Place{Name: "sh", program: "/bin/sh", args: []string{"-c", line}, log: filepath.Join(t.TempDir(), "log"), names: &dialer{}}
	t.Cleanup(func() { p.Kill() })
	return p
}

func TestAProcessIsKilledFrozenAndStartedAgain(t *testing.T) {
	p := newPlace(t, "echo hello; exec sleep 1000")
	for range 2 {
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		if err := p.Start(); err == nil {
			t.Fatal("started twice")
		}
		if err := p.Freeze(); err != nil {
			t.Fatal(err)
		}
		if err := p.Thaw(); err != nil {
			t.Fatal(err)
		}
		if err := p.Freeze(); err != nil {
			t.Fatal(err)
		}
		if err := p.Kill(); err != nil || p.Running() {
			t.Fatalf("error %v, running %v, want neither", err, p.Running())
		}
		if p.Freeze() == nil {
			t.Fatal("froze a process that was killed")
		}
	}
	if err := p.Kill(); err != nil {
		t.Fatalf("killing nobody: %v", err)
	}
}

func TestAProcessThatIsAskedSaysHowItEnded(t *testing.T) {
	p := newPlace(t, "trap 'exit 143' TERM; echo ready; while :; do sleep 0.01; done")
	p.Ended = func(int) bool {
		t.Error("it was asked to end, and that is told as if it had ended by itself")
		return false
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if log, _ := os.ReadFile(p.log); strings.Contains(string(log), "ready") {
			break
		} else if time.Now().After(deadline) {
			t.Fatal("it does not get ready")
		}
	}
	if err := p.Ask(); err != nil {
		t.Fatal(err)
	}
	if code, err := p.Wait(20 * time.Second); code != 143 || err != nil {
		t.Errorf("exit code %d and %v, want 143", code, err)
	}
}

func TestAProcessThatEndsByItselfIsStartedAgainWhereWanted(t *testing.T) {
	p := newPlace(t, "exit 75")
	codes, ends := make(chan int, 3), 0
	p.Ended = func(code int) bool {
		codes <- code
		ends++
		return ends < cap(codes)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	for range cap(codes) {
		select {
		case code := <-codes:
			if code != 75 {
				t.Errorf("exit code %d, want 75", code)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("it is not started again")
		}
	}
}
