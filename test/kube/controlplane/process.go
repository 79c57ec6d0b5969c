//go:build linux

package controlplane

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// process is a running program. It does not outlive this one, however this one ends.
type process struct {
	name, log string
	cmd       *exec.Cmd
	ended     chan struct{} // closed at its end; err is why, then
	err       error
}

func startProcess(path, log string, args []string) (*process, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	p := &process{name: filepath.Base(path), log: log, cmd: exec.Command(path, args...), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// The kernel sends the signal when the thread that started the program ends, which must not be before the program does.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer out.Close()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.ended)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// stop asks a program to end, makes it after ten seconds, and says so if it had ended before.
func (p *process) stop() error {
	select {
	case <-p.ended:
		return fmt.Errorf("%s had ended: %v, %s has its log", p.name, p.err, p.log)
	default:
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	patience := time.AfterFunc(10*time.Second, func() { p.cmd.Process.Kill() })
	defer patience.Stop()
	<-p.ended
	return nil
}
