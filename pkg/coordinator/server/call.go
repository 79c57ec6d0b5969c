package server

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/consensus"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// call is a request on its way.
type call struct {
	*Server
	route *route
	w     http.ResponseWriter
	r     *http.Request
	token ledger.Token // of who asks; zero on open routes
	// process is the replica's whose credential was shown; nil: a token was.
	process *process

	index uint64 // of the state that was read
	age   time.Duration
}

// do checks who asks, passes the request on where another has to answer, and answers.
func (c *call) do() (any, error) {
	consistency, err := c.consistency()
	if err != nil {
		return nil, err
	}
	away := c.route.where == onLeader || c.route.where == byWish && consistency != consensus.Stale
	if leader, _ := c.node.Leader(); leader != "" {
		c.began.Store(true)
	}
	away = away && !c.node.Leads()
	if c.route.scope != open {
		err := c.authenticate(!away)
		if err == nil {
			err = c.authorize()
		}
		// A follower may not have heard of the token yet: the leader knows.
		if err != nil && !(away && errors.Is(err, errUnknownToken)) {
			return nil, err
		}
	}
	if away {
		return c.passOn()
	}
	c.traded()
	return c.route.do(c)
}

// passOn lets the leader answer. A request that was passed on before goes nowhere.
func (c *call) passOn() (any, error) {
	if fromLoopback(c.r) {
		c.r.Header.Set(atLoopback, "1")
	}
	if !c.route.stream {
		c.r.Body = http.MaxBytesReader(c.w, c.r.Body, maxBody)
	}
	err := c.node.Forward(c.w, c.r)
	var large *http.MaxBytesError
	var dial *net.OpError
	switch {
	case err == nil:
		return handled{}, nil
	case errors.Is(err, consensus.ErrNotLeader):
		return nil, err
	case errors.As(err, &large):
		return nil, bodyError(large)
	case c.r.Method == http.MethodGet, errors.As(err, &dial) && dial.Op == "dial":
		return nil, api.Errorf(api.Unavailable, "%v", err)
	}
	return nil, fmt.Errorf("%w: %w", consensus.ErrUncertain, err)
}

// fromLoopback says whether the client is on the machine of the coordinator that it asked, and no proxy stands between.
func fromLoopback(r *http.Request) bool {
	if r.Header.Get(consensus.ForwardedBy) != "" {
		return r.Header.Get(atLoopback) != ""
	}
	for _, proxied := range []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via"} {
		if r.Header.Get(proxied) != "" {
			return false
		}
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	ip := net.ParseIP(host)
	return err == nil && ip != nil && ip.IsLoopback()
}

func (c *call) consistency() (consensus.Consistency, error) {
	switch word := c.r.URL.Query().Get("consistency"); word {
	case "", api.Leader:
		return consensus.Leader, nil
	case api.Linearizable:
		return consensus.Linearizable, nil
	case api.Stale:
		return consensus.Stale, nil
	default:
		return 0, api.Errorf(api.Invalid, "consistency: %q, want %s, %s or %s", word, api.Stale, api.Leader, api.Linearizable)
	}
}

// view reads the state as consistently as the client wants.
func (c *call) view(see func(*ledger.State)) error {
	how := consensus.Stale
	if c.route.where != here {
		var err error
		if how, err = c.consistency(); err != nil {
			return err
		}
		if how == consensus.Stale && c.route.where == onLeader {
			how = consensus.Leader
		}
	}
	var err error
	c.index, c.age, err = c.node.View(c.r.Context(), how, see)
	return err
}

// experiment is the one that the path names.
func (c *call) experimentOfPath() (ledger.Experiment, error) {
	name := c.r.PathValue("name")
	var e ledger.Experiment
	var found bool
	if err := c.view(func(st *ledger.State) { e, found = st.Experiment(name) }); err != nil {
		return e, err
	}
	if !found {
		return e, &api.Error{Code: api.NotFound, Message: fmt.Sprintf("no experiment %q", name), Next: "coordinator get experiments lists them"}
	}
	return e, nil
}

// list wraps items for an answer.
func list[T any](c *call, kind string, items []T) api.List[T] {
	if items == nil {
		items = []T{}
	}
	return api.List[T]{Meta: api.Kind(kind + "List"), Index: c.index, AgeSeconds: c.age.Seconds(), Items: items}
}

// number is a number of the query; otherwise where it is not there.
func (c *call) number(name string, otherwise int64) (int64, error) {
	text := c.r.URL.Query().Get(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, api.Errorf(api.Invalid, "%s: %q, want a whole number", name, text)
	}
	return n, nil
}

// bearer is the secret that the client shows.
func (c *call) bearer() string {
	scheme, secret, _ := strings.Cut(c.r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(secret)
}
