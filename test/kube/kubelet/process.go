//go:build linux

package kubelet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// launcher starts processes, all from one thread: the kernel ends them together with the thread that started them, so that none
// outlives a test that dies.
type launcher struct {
	work chan func()
	done chan struct{}
}

func newLauncher() *launcher {
	l := &launcher{work: make(chan func()), done: make(chan struct{})}
	go func() {
		defer close(l.done)
		runtime.LockOSThread() // and never unlocked: the thread ends with this
		for f := range l.work {
			f()
		}
	}()
	return l
}

func (l *launcher) start(command *exec.Cmd) error {
	started := make(chan error)
	l.work <- func() { started <- command.Start() }
	return <-started
}

// Close ends whatever still runs.
func (l *launcher) Close() error {
	close(l.work)
	<-l.done
	return nil
}

// process is the first process of a container. Those that it leaves behind end with it.
type process struct {
	spec   containerSpec
	pid    int
	exited chan struct{}
	code   int // 128 and the signal, if one ended it; to be read when exited is closed
}

// container starts a program in namespaces of its own, and in those of the pod.
func (l *launcher) container(spec containerSpec, pod *sandbox, log *os.File) (*process, error) {
	command, report, err := child(spec, pod.namespaces)
	if err != nil {
		return nil, err
	}
	defer report.Close()
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL, Setsid: true}
	err = l.start(command)
	closeAll(command.ExtraFiles[:firstNSFile-specFile])
	if err != nil {
		return nil, err
	}
	// The other end is closed by the start of the program.
	fault, err := io.ReadAll(report)
	if err == nil && len(fault) > 0 {
		err = errors.New(string(fault))
	}
	if err != nil {
		command.Process.Kill()
		command.Wait()
		return nil, err
	}
	p := &process{spec: spec, pid: command.Process.Pid, exited: make(chan struct{})}
	go func() {
		defer close(p.exited)
		command.Wait() // its error is the exit code
		p.code = exitCode(command.ProcessState)
	}()
	return p, nil
}

// child prepares a start of this program as Init's child. Its first ExtraFiles, before the namespaces, are the caller's to
// close, as is the report's end for reading.
func child(spec containerSpec, namespaces []*os.File) (*exec.Cmd, *os.File, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, nil, err
	}
	fd, err := unix.MemfdCreate("spec", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, nil, fmt.Errorf("memory file: %w", err)
	}
	file := os.NewFile(uintptr(fd), "spec")
	if _, err = file.Write(text); err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	report, reported, err := os.Pipe()
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	return &exec.Cmd{Path: self, Args: []string{asContainer}, Env: []string{}, ExtraFiles: append([]*os.File{file, reported}, namespaces...)}, report, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// exitCode is the one that Kubernetes reports.
func exitCode(state *os.ProcessState) int {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return state.ExitCode()
}

func (p *process) signal(s syscall.Signal) {
	select {
	case <-p.exited: // the number may be another's by now
	default:
		syscall.Kill(p.pid, s)
	}
}
