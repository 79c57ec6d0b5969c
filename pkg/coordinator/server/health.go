package server

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/consensus"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// patience is how long a probe waits for the state: whoever applies entries holds it for moments.
const patience = 5 * time.Second

func (c *call) livez() (any, error) {
	ctx, cancel := context.WithTimeout(c.r.Context(), patience)
	defer cancel()
	seen := make(chan struct{})
	go func() {
		_, _, _ = c.node.View(ctx, consensus.Stale, func(*ledger.State) {})
		close(seen)
	}()
	select {
	case <-seen:
		return c.say("ok")
	case <-ctx.Done():
		return nil, api.Errorf(api.Internal, "the state has been held for more than %v", patience)
	}
}

func (c *call) readyz() (any, error) {
	if c.ended.Err() != nil {
		return nil, api.Errorf(api.Unavailable, "it is being stopped")
	}
	if err := c.node.Ready(); err != nil {
		return nil, api.Errorf(api.Unavailable, "%v", err)
	}
	return c.say("ok")
}

func (c *call) startupz() (any, error) {
	if !c.began.Load() {
		return nil, api.Errorf(api.Unavailable, "no leader was found yet")
	}
	return c.say("ok")
}

func (c *call) say(text string) (any, error) {
	c.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintln(c.w, text)
	return handled{}, nil
}

func (c *call) build() (any, error) {
	out := api.Build{Meta: api.Kind("Build"), Version: c.version, Go: runtime.Version(), Node: c.name}
	out.Leader, _ = c.node.Leader()
	err := c.view(func(st *ledger.State) {
		if id, _, ok := st.Cluster(); ok {
			out.Cluster = id.String()
		}
		out.Feature = st.Feature()
	})
	return result(out, err)
}

func (c *call) prometheus() (any, error) {
	c.metricsHandler().ServeHTTP(c.w, c.r)
	return handled{}, nil
}

func (s *Server) metricsHandler() http.Handler {
	return promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{})
}
