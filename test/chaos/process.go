//go:build linux

package chaos

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Place is where a process runs, and runs again after it ended: its name, its command line and its log stay. Its methods may
// be called by several goroutines.
type Place struct {
	Name string
	// Ended, if not nil, is told when a process ends that nobody ended, and says whether another takes its place.
	Ended func(code int) (again bool)

	args  []string
	log   string // file
	names *dialer

	mu      sync.Mutex
	program string      // file
	process *os.Process // nil: none runs
	asked   bool        // it is to end
	ended   chan struct{}
	code    int
}

// Use says what program the next process runs.
func (p *Place) Use(program string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.program = program
}

// Start starts the process; one must not run.
func (p *Place) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process != nil {
		return fmt.Errorf("chaos: start %s: it runs", p.Name)
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("chaos: start %s: %w", p.Name, err)
	}
	defer log.Close() // the process has its own
	cmd := exec.Command(p.program, p.args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "KELVIN_NO_INSTALL=1", "NO_COLOR=1")
	// A group of its own, so that a Ctrl-C is for the test alone; nothing outlives the test, however it ends.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("chaos: start %s: %w", p.Name, err)
	}
	fmt.Fprintf(log, "--- %s process %d of %s\n", time.Now().Format(time.TimeOnly), cmd.Process.Pid, p.Name)
	p.names.know(cmd.Process.Pid, p.Name)
	p.process, p.asked, p.ended = cmd.Process, false, make(chan struct{})
	go p.reap(cmd, p.ended)
	return nil
}

// reap waits for the end of a process.
func (p *Place) reap(cmd *exec.Cmd, ended chan struct{}) {
	cmd.Wait()
	p.names.know(cmd.Process.Pid, "")
	p.mu.Lock()
	code, asked := cmd.ProcessState.ExitCode(), p.asked
	p.process, p.code = nil, code
	p.mu.Unlock()
	close(ended)
	if !asked && p.Ended != nil && p.Ended(code) {
		_ = p.Start() // where that fails, it is not at work when all must be
	}
}

// Running says whether a process runs, stopped or not.
func (p *Place) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.process != nil
}

// Freeze stops the process where it stands, Thaw lets it go on: SIGSTOP and SIGCONT.
func (p *Place) Freeze() error { return p.signal(syscall.SIGSTOP, false) }

// Thaw undoes Freeze.
func (p *Place) Thaw() error { return p.signal(syscall.SIGCONT, false) }

// Ask asks the process to end: SIGTERM.
func (p *Place) Ask() error { return p.signal(syscall.SIGTERM, true) }

func (p *Place) signal(s syscall.Signal, end bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process == nil {
		return fmt.Errorf("chaos: signal %v for %s: no process runs", s, p.Name)
	}
	p.asked = p.asked || end
	return p.process.Signal(s)
}

// Kill ends the process, if one runs, at once, and waits until it is gone: SIGKILL.
func (p *Place) Kill() error {
	err := p.signal(syscall.SIGKILL, true)
	if !p.Running() {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = p.Wait(time.Minute)
	return err
}

// Wait waits until no process runs and returns the last one's exit code; −1 after a signal.
func (p *Place) Wait(most time.Duration) (code int, err error) {
	p.mu.Lock()
	ended, running := p.ended, p.process != nil
	p.mu.Unlock()
	if running {
		select {
		case <-ended:
		case <-time.After(most):
			return 0, fmt.Errorf("chaos: %s still runs after %v", p.Name, most)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended == nil {
		return 0, errors.New("chaos: " + p.Name + " never ran")
	}
	return p.code, nil
}
