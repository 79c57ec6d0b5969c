//go:build linux

package kubelet

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"strconv"
	"sync"
	"time"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// proxy listens on the addresses of services, and leads each connection to one of the pods that are ready.
type proxy struct {
	names     names
	apiServer string // host:port, for the service kubernetes, whose own endpoint may be one that nobody listens on
	log       *slog.Logger
	life      context.Context // of connections
	end       context.CancelFunc
	tasks     sync.WaitGroup

	mu        sync.Mutex
	listeners map[string]net.Listener // by host:port
}

func newProxy(n names, api string, log *slog.Logger) *proxy {
	p := &proxy{names: n, log: log, listeners: map[string]net.Listener{}}
	if u, err := url.Parse(api); err == nil {
		p.apiServer = u.Host
	}
	p.life, p.end = context.WithCancel(context.Background())
	return p
}

// Close ends all connections.
func (p *proxy) Close() error {
	p.end()
	p.mu.Lock()
	var errs []error
	for _, l := range p.listeners {
		errs = append(errs, l.Close())
	}
	clear(p.listeners)
	p.mu.Unlock()
	p.tasks.Wait()
	return errors.Join(errs...)
}

// sync listens where the services of now say, and nowhere else.
func (p *proxy) sync() {
	services, err := p.names.services.List(labels.Everything())
	if err != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.life.Err() != nil {
		return
	}
	wanted := map[string]bool{}
	for _, service := range services {
		if service.Spec.ClusterIP == core.ClusterIPNone || service.Spec.ClusterIP == "" {
			continue
		}
		for _, port := range service.Spec.Ports {
			if port.Protocol != core.ProtocolTCP && port.Protocol != "" {
				continue
			}
			address := net.JoinHostPort(service.Spec.ClusterIP, strconv.Itoa(int(port.Port)))
			wanted[address] = true
			if p.listeners[address] != nil {
				continue
			}
			listener, err := net.Listen("tcp4", address)
			if err != nil {
				p.log.WarnContext(p.life, "service not reachable", "service", service.Namespace+"/"+service.Name, "err", err)
				continue
			}
			p.listeners[address] = listener
			p.tasks.Go(func() { p.serve(listener, service.Namespace, service.Name, port.Name) })
		}
	}
	for address, listener := range p.listeners {
		if !wanted[address] {
			listener.Close()
			delete(p.listeners, address)
		}
	}
}

func (p *proxy) serve(listener net.Listener, namespace, service, port string) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		p.tasks.Go(func() {
			ctx, cancel := context.WithTimeout(p.life, 5*time.Second)
			defer cancel()
			var dialer net.Dialer
			var to net.Conn
			err := errors.New("no endpoint is ready")
			if target := p.target(namespace, service, port); target != "" {
				to, err = dialer.DialContext(ctx, "tcp4", target)
			}
			if err != nil {
				p.log.DebugContext(ctx, "connection to a service refused", "service", namespace+"/"+service, "err", err)
				refuse(conn)
				return
			}
			splice(p.life, conn, to)
		})
	}
}

// refuse resets a connection.
func refuse(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	conn.Close()
}

// target is the host:port of one endpoint of the service that is ready, "" for none.
func (p *proxy) target(namespace, service, port string) string {
	if namespace == core.NamespaceDefault && service == "kubernetes" {
		return p.apiServer
	}
	slices, err := p.names.slicesOf(namespace, service)
	if err != nil {
		return ""
	}
	var targets []string
	for _, slice := range slices {
		for _, sp := range slice.Ports {
			if sp.Port == nil || sp.Name != nil && *sp.Name != port {
				continue
			}
			for _, e := range slice.Endpoints {
				if isReady(e) && len(e.Addresses) > 0 {
					targets = append(targets, net.JoinHostPort(e.Addresses[0], strconv.Itoa(int(*sp.Port))))
				}
			}
		}
	}
	if len(targets) == 0 {
		return ""
	}
	return targets[rand.IntN(len(targets))]
}

// splice copies both ways until both sides are done or ctx is, and closes both.
func splice(ctx context.Context, a, b net.Conn) {
	stop := context.AfterFunc(ctx, func() { a.Close(); b.Close() })
	defer stop()
	defer a.Close()
	defer b.Close()
	var ways sync.WaitGroup
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		ways.Go(func() {
			_, err := io.Copy(way[0], way[1])
			if half, ok := way[0].(interface{ CloseWrite() error }); ok && err == nil {
				half.CloseWrite() // the other way may go on
				return
			}
			way[0].Close()
			way[1].Close()
		})
	}
	ways.Wait()
}
