//go:build linux

package kubelet

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// asContainer is what this program is called when it is started once more, to become a container.
const asContainer = "kelvin-container"

// The files that such a child is handed, besides its standard ones.
const (
	specFile    = 3 + iota // JSON of a containerSpec
	reportFile             // an error of the set-up is written to it; the start of the program closes it
	firstNSFile            // the namespaces to join, in the order of podNamespaces
)

// setupFailed is the exit code of a child that did not become the program, as container runtimes give it.
const setupFailed = 128

// namespace is one that a child joins: its name in /proc, and the flag for setns.
type namespace struct {
	name string
	flag int
}

// podNamespaces are those that containers of a pod have in common.
var podNamespaces = []namespace{{"net", unix.CLONE_NEWNET}, {"uts", unix.CLONE_NEWUTS}, {"ipc", unix.CLONE_NEWIPC}}

// Init must be called at the start of main or TestMain. It returns at once, except in the children that Kubelet starts: those
// become the program of their container, and Init does not return.
func Init() {
	if os.Args[0] == asContainer {
		giveUp(becomeContainer())
	}
}

// giveUp reports why the program was not started.
func giveUp(err error) {
	fmt.Fprint(os.NewFile(reportFile, "report"), err)
	os.Exit(setupFailed)
}

// containerSpec is all that a child must know.
type containerSpec struct {
	Root         string // an empty folder of the host, where the root is put together
	ReadOnlyRoot bool
	Mounts       []mount // a path comes after those that lie above it
	Args         []string
	Env          []string
	Dir          string // "": the root
	User, Group  int
	Groups       []int
	NoNewPrivs   bool
	DropAll      bool // of the capabilities
}

// mount shows a file or folder of the host in the container.
type mount struct {
	Source, Target string
	ReadOnly       bool
}

func readSpec() (*containerSpec, error) {
	runtime.LockOSThread() // namespaces and users are those of a thread, which exec makes the process
	for fd := specFile; fd < firstNSFile+len(podNamespaces); fd++ {
		unix.CloseOnExec(fd)
	}
	var spec containerSpec
	if err := json.NewDecoder(os.NewFile(specFile, "spec")).Decode(&spec); err != nil {
		return nil, fmt.Errorf("read what to run: %w", err)
	}
	return &spec, nil
}

func becomeContainer() error {
	spec, err := readSpec()
	if err != nil {
		return err
	}
	for i, ns := range podNamespaces {
		if err := unix.Setns(firstNSFile+i, ns.flag); err != nil {
			return fmt.Errorf("join the %s namespace: %w", ns.name, err)
		}
	}
	unix.Umask(0o022)
	if err := spec.makeRoot(); err != nil {
		return err
	}
	if err := spec.dropRights(); err != nil {
		return err
	}
	path, err := spec.program()
	if err != nil {
		return err
	}
	return fmt.Errorf("exec %s: %w", path, syscall.Exec(path, spec.Args, spec.Env))
}

// makeRoot puts a root together, and makes it that of this process.
func (s *containerSpec) makeRoot() error {
	// Nothing that is mounted from here on is seen outside.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := mountAt("tmpfs", s.Root, "tmpfs", 0, "mode=0755"); err != nil {
		return err
	}
	for _, part := range []func() error{s.hostTrees, s.kernelTrees, s.bindMounts, s.enter} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

func mountAt(source, target, kind string, flags uintptr, options string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, target, kind, flags, options); err != nil {
		return fmt.Errorf("mount %s at %s: %w", kind, target, err)
	}
	return nil
}

// hostTrees shows the host's programs and libraries, but for those in /usr/local, which belongs to the image.
func (s *containerSpec) hostTrees() error {
	trees := []string{"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d"}
	inUsr, err := os.ReadDir("/usr")
	if err != nil {
		return err
	}
	for _, entry := range inUsr {
		if entry.Name() != "local" {
			trees = append(trees, filepath.Join("/usr", entry.Name()))
		}
	}
	for _, tree := range trees {
		switch info, err := os.Lstat(tree); {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			return err
		case info.Mode().Type() == os.ModeSymlink:
			to, err := os.Readlink(tree)
			if err != nil {
				return err
			}
			if err := os.MkdirAll(filepath.Join(s.Root, filepath.Dir(tree)), 0o755); err != nil {
				return err
			}
			if err := os.Symlink(to, filepath.Join(s.Root, tree)); err != nil {
				return err
			}
		default:
			if err := s.bind(mount{Source: tree, Target: tree, ReadOnly: true}); err != nil {
				return err
			}
		}
	}
	return os.MkdirAll(filepath.Join(s.Root, "/usr/local/bin"), 0o755)
}

// kernelTrees mounts what programs expect of the kernel.
func (s *containerSpec) kernelTrees() error {
	const plain = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	in := func(path string) string { return filepath.Join(s.Root, path) }
	if err := mountAt("proc", in("/proc"), "proc", plain, ""); err != nil {
		return err
	}
	if err := mountAt("sysfs", in("/sys"), "sysfs", plain|unix.MS_RDONLY, ""); err != nil {
		return err
	}
	if err := mountAt("tmpfs", in("/dev"), "tmpfs", unix.MS_NOSUID, "mode=0755,size=64k"); err != nil {
		return err
	}
	if err := mountAt("tmpfs", in("/dev/shm"), "tmpfs", plain, "mode=1777,size=64m"); err != nil {
		return err
	}
	for _, device := range []string{"null", "zero", "full", "random", "urandom"} {
		path := filepath.Join("/dev", device)
		if err := s.bind(mount{Source: path, Target: path}); err != nil {
			return err
		}
	}
	for name, to := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		if err := os.Symlink(to, in("/dev/"+name)); err != nil {
			return err
		}
	}
	return nil
}

func (s *containerSpec) bindMounts() error {
	for _, m := range s.Mounts {
		if err := s.bind(m); err != nil {
			return err
		}
	}
	return nil
}

func (s *containerSpec) bind(m mount) error {
	info, err := os.Stat(m.Source)
	if err != nil {
		return err
	}
	target := filepath.Join(s.Root, m.Target)
	folder := target
	if !info.IsDir() {
		folder = filepath.Dir(target)
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("mount at %s: %w", m.Target, err)
	}
	if !info.IsDir() {
		f, err := os.OpenFile(target, os.O_CREATE|os.O_RDONLY, 0o644)
		if err != nil {
			return fmt.Errorf("mount at %s: %w", m.Target, err)
		}
		f.Close()
	}
	if err := unix.Mount(m.Source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s at %s: %w", m.Source, m.Target, err)
	}
	if !m.ReadOnly {
		return nil
	}
	if err := unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mount %s at %s, read-only: %w", m.Source, m.Target, err)
	}
	return nil
}

// enter makes the new root the only one.
func (s *containerSpec) enter() error {
	if s.Dir != "" {
		if err := os.MkdirAll(filepath.Join(s.Root, s.Dir), 0o755); err != nil {
			return err
		}
	}
	if s.ReadOnlyRoot {
		if err := unix.Mount("", s.Root, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("make the root read-only: %w", err)
		}
	}
	if err := unix.Chdir(s.Root); err != nil {
		return err
	}
	// The old root comes to lie on the new one, from where it is taken off: there is no folder for it in a root of others.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the old root: %w", err)
	}
	return nil
}

func (s *containerSpec) dropRights() error {
	if s.DropAll {
		for capability := uintptr(0); ; capability++ {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0); err == unix.EINVAL {
				break // beyond the last
			} else if err != nil {
				return fmt.Errorf("drop capability %d: %w", capability, err)
			}
		}
	}
	if err := syscall.Setgroups(s.Groups); err != nil {
		return fmt.Errorf("set groups %v: %w", s.Groups, err)
	}
	if err := syscall.Setgid(s.Group); err != nil {
		return fmt.Errorf("set group %d: %w", s.Group, err)
	}
	if err := syscall.Setuid(s.User); err != nil {
		return fmt.Errorf("set user %d: %w", s.User, err)
	}
	if s.NoNewPrivs {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("forbid new privileges: %w", err)
		}
	}
	// The kernel forgets this when the user changes.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("end with the parent: %w", err)
	}
	dir := s.Dir
	if dir == "" {
		dir = "/"
	}
	if err := unix.Chdir(dir); err != nil {
		return fmt.Errorf("working directory %s: %w", dir, err)
	}
	return nil
}

// program is the path of the first argument, which is looked for where the container's own PATH says.
func (s *containerSpec) program() (string, error) {
	name := s.Args[0]
	if strings.Contains(name, "/") {
		return name, nil
	}
	var path string
	for _, assignment := range s.Env {
		if value, ok := strings.CutPrefix(assignment, "PATH="); ok {
			path = value
		}
	}
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, name)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fmt.Errorf("exec: %q is not in PATH %s", name, path)
}
