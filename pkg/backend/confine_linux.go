package backend

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// xlaThread is how XLA's CPU client names its worker threads.
const xlaThread = "tf_XLAEigen"

// Confine keeps XLA's worker threads on one core, or lets them use every core that the process may use. A call of many
// small operations is faster on one: the workers hand every operation to each other otherwise, and two cores spend the
// time waking up. The bits of a result do not depend on it. It does nothing for other backends than XLA on the CPU;
// confined tells whether it did.
func (b *Backend) Confine(one bool) (confined bool, err error) {
	if b.kind != CPU {
		return false, nil
	}
	var all unix.CPUSet
	// The main thread's mask is the process's: the workers' own may be what an earlier call made it.
	if err := unix.SchedGetaffinity(os.Getpid(), &all); err != nil {
		return false, fmt.Errorf("backend: cores of the process: %w", err)
	}
	if all.Count() < 2 {
		return false, nil
	}
	mask := all
	if one {
		mask = unix.CPUSet{}
		mask.Set(nth(&all, os.Getpid()%all.Count())) // processes side by side spread over the cores
	}
	tasks, err := filepath.Glob("/proc/self/task/*/comm")
	if err != nil {
		return false, err
	}
	for _, path := range tasks {
		name, err := os.ReadFile(path)
		if err != nil || !strings.HasPrefix(string(name), xlaThread) {
			continue // not one of XLA's, or gone meanwhile
		}
		id, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return confined, err
		}
		if err := unix.SchedSetaffinity(id, &mask); err != nil {
			return confined, fmt.Errorf("backend: cores of thread %d: %w", id, err)
		}
		confined = true
	}
	return confined, nil
}

// nth is the number of the i-th core of a set.
func nth(set *unix.CPUSet, i int) int {
	for cpu := 0; ; cpu++ {
		if set.IsSet(cpu) {
			if i == 0 {
				return cpu
			}
			i--
		}
	}
}
