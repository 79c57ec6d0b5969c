package chaos

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// dialer finds out which of the processes that it knows opened a connection on this machine: the kernel says which sockets
// there are, and which process has which open.
type dialer struct {
	mu    sync.Mutex
	names map[int]string // by process id
}

// know gives a process a name; "" forgets it.
func (d *dialer) know(pid int, name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.names == nil {
		d.names = map[int]string{}
	}
	if d.names[pid] = name; name == "" {
		delete(d.names, pid)
	}
}

// of is the name of the process at the other end of a connection that was accepted here; "" if it is none that is known.
func (d *dialer) of(c net.Conn) string {
	inode, err := inodeOf(c.RemoteAddr(), c.LocalAddr())
	if err != nil {
		return ""
	}
	socket := "socket:[" + inode + "]"
	d.mu.Lock()
	defer d.mu.Unlock()
	for pid, name := range d.names {
		open, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil {
			continue
		}
		for _, fd := range open {
			if what, err := os.Readlink(fd); err == nil && what == socket {
				return name
			}
		}
	}
	return ""
}

// inodeOf is the number of the socket with these two ends, as the kernel's table has it.
func inodeOf(local, remote net.Addr) (string, error) {
	from, err := inTable(local)
	if err != nil {
		return "", err
	}
	to, err := inTable(remote)
	if err != nil {
		return "", err
	}
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return "", err
	}
	// sl local_address rem_address st queues timer retransmits uid timeout inode …
	for line := range bytes.Lines(table) {
		if f := strings.Fields(string(line)); len(f) > 9 && f[1] == from && f[2] == to {
			return f[9], nil
		}
	}
	return "", fmt.Errorf("chaos: no socket from %s to %s", local, remote)
}

// inTable is an IPv4 address as the kernel's table has it.
func inTable(a net.Addr) (string, error) {
	at, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return "", err
	}
	if !at.Addr().Is4() {
		return "", fmt.Errorf("chaos: address %s, want IPv4", a)
	}
	ip := at.Addr().As4()
	return fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(ip[:]), at.Port()), nil
}
