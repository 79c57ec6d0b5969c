//go:build linux

package kubelet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// network is a bridge on the host, and the pods on it. Pods reach each other, the host, and the addresses of services, which are
// the host's; nothing leads out.
type network struct {
	bridge  *netlink.Bridge
	pods    netip.Prefix
	gateway netip.Addr // of the bridge: the first of the pods' addresses

	mu   sync.Mutex
	last netip.Addr // that was given away
	used map[netip.Addr]bool
}

// links counts the interfaces that this process has made, for their names: the kernel removes those of pods that are gone later than
// it says, and a next network must not meet them.
var links atomic.Int64

// Names of interfaces have the number of the process in them: that of one that is gone may be removed.
const linkPrefix = "kvk"

var ours = regexp.MustCompile(`^` + linkPrefix + `(\d+)(v\d+)?$`)

// openNetwork makes the bridge. The addresses of services become local ones of this machine.
func openNetwork(pods, services netip.Prefix) (*network, error) {
	if err := removeLeftovers(); err != nil {
		return nil, err
	}
	gateway := pods.Masked().Addr().Next()
	if !gateway.Is4() || pods.Bits() > 24 {
		return nil, fmt.Errorf("pod addresses %s, want IPv4, /24 or more", pods)
	}
	taken, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	for _, a := range taken {
		if p, err := netip.ParsePrefix(a.String()); err == nil && pods.Overlaps(p) {
			return nil, fmt.Errorf("pod addresses %s: %s is another interface's, perhaps of another test that runs; want a network that is free", pods, p)
		}
	}
	n := &network{
		bridge: &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: linkPrefix + strconv.Itoa(os.Getpid())}},
		pods:   pods.Masked(), gateway: gateway, last: gateway, used: map[netip.Addr]bool{},
	}
	if err := netlink.LinkAdd(n.bridge); err != nil {
		return nil, fmt.Errorf("make bridge %s: %w", n.bridge.Name, err)
	}
	local := &netlink.Route{LinkIndex: n.bridge.Index, Dst: ipNet(services.Masked()), Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST}
	err = errors.Join(
		netlink.AddrAdd(n.bridge, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(gateway, pods.Bits()))}),
		netlink.LinkSetUp(n.bridge),
		netlink.RouteAdd(local),
	)
	if err != nil {
		n.Close()
		return nil, fmt.Errorf("set bridge %s up for pods %s and services %s: %w", n.bridge.Name, pods, services, err)
	}
	return n, nil
}

// Close removes the bridge. The interfaces of pods go with their namespaces.
func (n *network) Close() error { return netlink.LinkDel(n.bridge) }

func removeLeftovers() error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list network interfaces: %w", err)
	}
	for _, link := range links {
		found := ours.FindStringSubmatch(link.Attrs().Name)
		if found == nil {
			continue
		}
		pid, err := strconv.Atoi(found[1])
		if err != nil || !errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			continue
		}
		var gone netlink.LinkNotFoundError
		if err := netlink.LinkDel(link); err != nil && !errors.As(err, &gone) && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("remove %s, which a test left behind: %w", link.Attrs().Name, err)
		}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// sandbox is what the containers of a pod share: its network with an address, its host name.
type sandbox struct {
	ip         netip.Addr
	namespaces []*os.File // podNamespaces; they last as long as these are open, or a process is in them
	network    *network
}

func (n *network) sandbox(hostname string) (*sandbox, error) {
	namespaces, err := newNamespaces(hostname)
	if err != nil {
		return nil, err
	}
	s := &sandbox{namespaces: namespaces, network: n}
	if s.ip, err = n.take(); err == nil {
		err = s.connect()
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Close gives the address back.
func (s *sandbox) Close() error {
	closeAll(s.namespaces)
	s.network.mu.Lock()
	defer s.network.mu.Unlock()
	delete(s.network.used, s.ip)
	return nil
}

// take finds an address. One that was given back is used as late as may be: others may still hold it for the old pod's.
func (n *network) take() (netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for ip := n.last.Next(); ; ip = ip.Next() {
		if !n.pods.Contains(ip.Next()) { // that one would be the broadcast address
			ip = n.gateway.Next()
		}
		if !n.used[ip] {
			n.used[ip], n.last = true, ip
			return ip, nil
		}
		if ip == n.last {
			return netip.Addr{}, fmt.Errorf("pod addresses %s are all in use", n.pods)
		}
	}
}

// newNamespaces makes the podNamespaces.
func newNamespaces(hostname string) (files []*os.File, err error) {
	made := make(chan struct{})
	go func() {
		defer close(made)
		runtime.LockOSThread() // and never unlocked: the thread is good for nothing else afterwards
		flags := 0
		for _, ns := range podNamespaces {
			flags |= ns.flag
		}
		if err = unix.Unshare(flags); err != nil {
			err = fmt.Errorf("make namespaces: %w", err)
			return
		}
		if err = unix.Sethostname([]byte(hostname)); err != nil {
			err = fmt.Errorf("host name %q: %w", hostname, err)
			return
		}
		for _, ns := range podNamespaces {
			var f *os.File
			if f, err = os.Open("/proc/thread-self/ns/" + ns.name); err != nil {
				return
			}
			files = append(files, f)
		}
	}()
	<-made
	if err != nil {
		closeAll(files)
		return nil, err
	}
	return files, nil
}

// connect gives the pod an interface on the bridge, with its address.
func (s *sandbox) connect() error {
	n, in := s.network, s.namespaces[0]
	attrs := netlink.LinkAttrs{Name: fmt.Sprintf("%sv%d", n.bridge.Name, links.Add(1)), MasterIndex: n.bridge.Index, Flags: net.FlagUp}
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(in.Fd())}); err != nil {
		return fmt.Errorf("make interface %s: %w", attrs.Name, err)
	}
	pod, err := netlink.NewHandleAt(netns.NsHandle(in.Fd()))
	if err != nil {
		return fmt.Errorf("reach into the pod's network: %w", err)
	}
	defer pod.Close()
	for _, name := range []string{"lo", "eth0"} {
		link, err := pod.LinkByName(name)
		if err != nil {
			return fmt.Errorf("interface %s: %w", name, err)
		}
		if name == "eth0" {
			if err := pod.AddrAdd(link, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(s.ip, n.pods.Bits()))}); err != nil {
				return fmt.Errorf("address %s: %w", s.ip, err)
			}
		}
		if err := pod.LinkSetUp(link); err != nil {
			return fmt.Errorf("interface %s: %w", name, err)
		}
	}
	if err := pod.RouteAdd(&netlink.Route{Gw: n.gateway.AsSlice()}); err != nil {
		return fmt.Errorf("route by %s: %w", n.gateway, err)
	}
	return nil
}

// dial connects to an address as the pod sees it, which may be of its loopback interface. It must be an IP address.
func (s *sandbox) dial(ctx context.Context, address string) (conn net.Conn, err error) {
	dialled := make(chan struct{})
	go func() {
		defer close(dialled)
		runtime.LockOSThread() // and never unlocked, as above
		if err = unix.Setns(int(s.namespaces[0].Fd()), unix.CLONE_NEWNET); err == nil {
			var dialer net.Dialer
			conn, err = dialer.DialContext(ctx, "tcp4", address)
		}
	}()
	<-dialled
	return conn, err
}
