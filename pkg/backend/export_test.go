package backend

import "github.com/gomlx/gomlx/backends"

// Plain is the same backend without the contraction recogniser.
func Plain(b *Backend) *Backend {
	return &Backend{Backend: plainBackend{b.Backend, b.kind}, kind: "plain " + b.kind, plain: true}
}

type plainBackend struct {
	backends.Backend
	kind string
}

func (p plainBackend) Builder(name string) backends.Builder {
	if p.kind == "go" {
		return newGoBuilder(p.Backend.Builder(name))
	}
	return p.Backend.Builder(name)
}
