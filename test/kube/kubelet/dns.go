//go:build linux

package kubelet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
)

const (
	clusterDomain = "cluster.local"
	longestUDP    = 512 // without extensions, which are not spoken here
	nameTTL       = 5   // seconds
)

// names knows the services and what is behind them.
type names struct {
	services corelisters.ServiceLister
	slices   discoverylisters.EndpointSliceLister
}

// slicesOf lists the endpoints of a service.
func (n names) slicesOf(namespace, service string) ([]*discovery.EndpointSlice, error) {
	return n.slices.EndpointSlices(namespace).List(labels.SelectorFromSet(labels.Set{discovery.LabelServiceName: service}))
}

// lookup returns the addresses that <service>.<namespace>.svc.cluster.local has, or <host>.<service>.… of a service without an
// address of its own. None: there is no such name.
func (n names) lookup(name string) []netip.Addr {
	rest, ok := strings.CutSuffix(strings.ToLower(strings.TrimSuffix(name, ".")), ".svc."+clusterDomain)
	if !ok {
		return nil
	}
	parts := strings.Split(rest, ".")
	if len(parts) < 2 || len(parts) > 3 {
		return nil
	}
	host := ""
	if len(parts) == 3 {
		host, parts = parts[0], parts[1:]
	}
	service, err := n.services.Services(parts[1]).Get(parts[0])
	if err != nil {
		return nil
	}
	if service.Spec.ClusterIP != core.ClusterIPNone {
		ip, err := netip.ParseAddr(service.Spec.ClusterIP)
		if err != nil || host != "" {
			return nil
		}
		return []netip.Addr{ip}
	}
	slices, err := n.slicesOf(service.Namespace, service.Name)
	if err != nil {
		return nil
	}
	var found []netip.Addr
	for _, slice := range slices {
		for _, e := range slice.Endpoints {
			// Of a service that publishes those that are not ready, all count as ready.
			if !isReady(e) || host != "" && (e.Hostname == nil || *e.Hostname != host) {
				continue
			}
			for _, text := range e.Addresses {
				if ip, err := netip.ParseAddr(text); err == nil {
					found = append(found, ip)
				}
			}
		}
	}
	return found
}

func isReady(e discovery.Endpoint) bool { return e.Conditions.Ready == nil || *e.Conditions.Ready }

// answer answers one message of the DNS protocol; nil if it is not a question.
func (n names) answer(message []byte) []byte {
	var parser dnsmessage.Parser
	header, err := parser.Start(message)
	if err != nil || header.Response {
		return nil
	}
	question, err := parser.Question()
	if err != nil {
		return nil
	}
	reply := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: header.ID, Response: true, Authoritative: true, RecursionDesired: header.RecursionDesired, RecursionAvailable: true},
		Questions: []dnsmessage.Question{question},
	}
	found := n.lookup(question.Name.String())
	if len(found) == 0 {
		reply.RCode = dnsmessage.RCodeNameError
	}
	for _, ip := range found {
		if question.Type == dnsmessage.TypeA && ip.Is4() { // a name has no others, which is not to say that there is none
			reply.Answers = append(reply.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: question.Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: nameTTL},
				Body:   &dnsmessage.AResource{A: ip.As4()},
			})
		}
	}
	packed, err := reply.Pack()
	if err != nil {
		return nil
	}
	return packed
}

// dnsServer answers over UDP and TCP.
type dnsServer struct {
	names names
	udp   net.PacketConn
	tcp   net.Listener
	log   *slog.Logger
	tasks sync.WaitGroup
}

func serveDNS(address string, n names, log *slog.Logger) (*dnsServer, error) {
	udp, err := net.ListenPacket("udp4", address)
	if err != nil {
		return nil, fmt.Errorf("cluster DNS: %w", err)
	}
	tcp, err := net.Listen("tcp4", address)
	if err != nil {
		udp.Close()
		return nil, fmt.Errorf("cluster DNS: %w", err)
	}
	s := &dnsServer{names: n, udp: udp, tcp: tcp, log: log}
	s.tasks.Go(s.serveUDP)
	s.tasks.Go(s.serveTCP)
	return s, nil
}

func (s *dnsServer) Close() error {
	err := errors.Join(s.udp.Close(), s.tcp.Close())
	s.tasks.Wait()
	return err
}

func (s *dnsServer) serveUDP() {
	buffer := make([]byte, 4096)
	for {
		n, from, err := s.udp.ReadFrom(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // of a packet before
		}
		reply := s.names.answer(buffer[:n])
		if len(reply) > longestUDP {
			reply = truncated(reply)
		}
		if reply == nil {
			continue
		}
		if _, err := s.udp.WriteTo(reply, from); err != nil {
			s.log.DebugContext(context.Background(), "DNS answer not sent", "to", from, "err", err)
		}
	}
}

// truncated says no more than that the client should ask again over TCP.
func truncated(reply []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(reply) != nil {
		return nil
	}
	m.Truncated, m.Answers = true, nil
	short, err := m.Pack()
	if err != nil {
		return nil
	}
	return short
}

func (s *dnsServer) serveTCP() {
	for {
		conn, err := s.tcp.Accept()
		if err != nil {
			return
		}
		s.tasks.Go(func() {
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(2 * time.Second))
			var length [2]byte
			if _, err := io.ReadFull(conn, length[:]); err != nil {
				return
			}
			message := make([]byte, binary.BigEndian.Uint16(length[:]))
			if _, err := io.ReadFull(conn, message); err != nil {
				return
			}
			if reply := s.names.answer(message); reply != nil {
				conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...))
			}
		})
	}
}
