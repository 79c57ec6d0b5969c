package transport

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Cluster says how a server and others reach each other, by connections that are called routes. What is asked by way of one
// server is answered by way of any; that nobody answers is told as fast as by a single one. When a server dies, its clients
// move to the others by themselves.
type Cluster struct {
	// Name is the same for all servers of the cluster; others are turned away.
	Name string
	// Listen is host:port for routes of the other servers, port 0 for a free one.
	Listen string
	// Advertise is the host, or host:port, by which the other servers find this one: a name that its certificate holds. "": the
	// address that they see it at, which a certificate may not hold.
	Advertise string
	// Routes are host:port of the servers of the cluster. Those that are away are looked for every second; the server's own
	// address may be among them.
	Routes []string
	// TLS serves both ends of a route: it must have what a server shows, what a client shows, and trust the others' authority
	// for both. It must ask for the other's certificate, unless there is a Secret. nil only on a loopback address, or where
	// ServerOptions.Insecure is set.
	TLS *tls.Config
	// Secret, if not empty, is what the servers show each other. Whoever has it sees the messages of every experiment.
	Secret string
}

// How the servers of a cluster watch each other.
const (
	routePing  = 2 * time.Second // a server that hangs is given up after three of them
	routePings = 2
	routeUser  = "kelvin" // routes have a name beside the secret
)

// server fills in the options in NATS's terms.
func (c Cluster) server(opts *server.Options, insecure bool) error {
	if _, err := ParseToken(c.Name); err != nil {
		return err
	}
	if c.TLS != nil && c.Secret == "" && c.TLS.ClientAuth < tls.RequireAndVerifyClientCert {
		return errors.New("TLS that takes a server without a certificate, and no secret: want one of them")
	}
	host, port, err := address(c.Listen, c.TLS != nil || insecure)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	opts.Cluster = server.ClusterOpts{
		Name: c.Name, Host: host, Port: port, Advertise: c.Advertise,
		TLSConfig: c.TLS, TLSTimeout: 5,
		NoAdvertise:  true, // clients know the servers by the names that they were given, which certificates hold
		PoolSize:     1,    // of connections between two servers: no experiment fills one
		PingInterval: routePing, MaxPingsOut: routePings,
	}
	var user *url.Userinfo
	if c.Secret != "" {
		opts.Cluster.Username, opts.Cluster.Password = routeUser, c.Secret
		user = url.UserPassword(routeUser, c.Secret)
	}
	for _, to := range c.Routes {
		if _, _, err := net.SplitHostPort(to); err != nil {
			return fmt.Errorf("route: %q, want host:port", to)
		}
		opts.Routes = append(opts.Routes, &url.URL{Scheme: "nats", Host: to, User: user})
	}
	return nil
}
