package consensus

import (
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
)

// ForwardedBy is the header that names the coordinator which a request came to first.
const ForwardedBy = "Kelvin-Forwarded-By"

// Handle serves a pattern of [http.ServeMux] on the peer port, to other coordinators. Paths under /peer/ and /blobs/ are
// taken. A node that is alone has no such port: nothing is served.
func (n *Node) Handle(pattern string, h http.Handler) {
	if n.peer != nil {
		n.peer.mux.Handle(pattern, h)
	}
}

// Forward answers a request as the leader's peer port does. If there is no leader, this node leads, the request has been
// forwarded before, or the leader does not answer, then nothing is written and the error, mostly a [*NotLeaderError], says so.
func (n *Node) Forward(w http.ResponseWriter, r *http.Request) error {
	name, address := n.Leader()
	switch by := r.Header.Get(ForwardedBy); {
	case name == "":
		return &NotLeaderError{}
	case by != "":
		return fmt.Errorf("forwarded by %s: %w", by, n.notLeader())
	case name == n.cfg.Name:
		return fmt.Errorf("forward to itself: %w", &NotLeaderError{}) // leadership begins or ends just now
	}
	var failed error
	proxy := httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: address})
			p.SetXForwarded()
			p.Out.Host = p.In.Host
			p.Out.Header.Set(ForwardedBy, n.cfg.Name)
		},
		Transport:     n.peer.client.Transport,
		FlushInterval: -1, // what is watched comes at once
		ErrorHandler:  func(_ http.ResponseWriter, _ *http.Request, err error) { failed = err },
	}
	proxy.ServeHTTP(w, r)
	if failed != nil {
		return fmt.Errorf("forward to %s: %w", name, failed)
	}
	return nil
}
