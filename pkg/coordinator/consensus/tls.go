package consensus

import (
	"crypto/tls"
	"net"
)

// TLS is what a node shows to others and asks of them.
type TLS struct {
	// Server is for connections that come in; it must ask for the others' certificates and verify them.
	Server *tls.Config
	// Client returns what is for one connection out. ServerName is set to the host that is dialled if it is empty.
	Client func() *tls.Config
}

func (t *TLS) client(address string) *tls.Config {
	c := t.Client()
	if c.ServerName == "" {
		c = c.Clone()
		c.ServerName, _, _ = net.SplitHostPort(address)
	}
	return c
}
