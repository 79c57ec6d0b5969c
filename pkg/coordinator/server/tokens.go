package server

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/consensus"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
	"github.com/kelvin-ebm/kelvin/pkg/internal/atomicfile"
)

// Names of the first tokens: that which the first leader writes to its disk, and that which it is traded for.
const (
	firstToken = "bootstrap"
	adminToken = "admin"
)

const (
	joinLife = 24 * time.Hour // of a join token, at most
	mostLife = 10 * 365 * 24 * time.Hour
)

// newSecret is 256 random bits, in a form that fits a header.
func newSecret() string {
	var raw [32]byte
	rand.Read(raw[:])
	return "kelvin_" + base64.RawURLEncoding.EncodeToString(raw[:])
}

func (c *call) listTokens() (any, error) {
	var out []api.Token
	err := c.view(func(st *ledger.State) {
		for _, t := range st.Tokens() {
			out = append(out, tokenOf(t))
		}
	})
	return result(list(c, "Token", out), err)
}

func (c *call) createToken() (any, error) {
	var in api.CreateToken
	if err := decode(c.w, c.r, &in); err != nil {
		return nil, err
	}
	if err := named("name", in.Name); err != nil {
		return nil, err
	}
	scope, err := parse("scope", in.Scope, ledger.Read, ledger.Operate, ledger.Admin, ledger.Join)
	if err != nil {
		return nil, err
	}
	most := mostLife
	if scope == ledger.Join {
		most = joinLife
	}
	life, err := seconds("ttl_seconds", in.TTLSeconds, most)
	if err != nil {
		return nil, err
	}
	if life == 0 && scope == ledger.Join {
		life = joinLife
	}
	if in.Uses == ledger.Spent {
		return nil, api.Errorf(api.Invalid, "uses: %d, want fewer", in.Uses)
	}
	token := ledger.Token{Name: in.Name, Scope: scope, Owner: in.Owner, Experiments: in.Experiments, Uses: in.Uses}
	if life > 0 {
		token.Expires = c.now().Add(life).UTC().Truncate(time.Millisecond)
	}
	out, err := c.withSecret(token, func(t ledger.Token) ledger.Command { return ledger.TokenCreate{Token: t} })
	if errors.Is(err, ledger.ErrExists) {
		err = &api.Error{Code: api.Conflict, Message: fmt.Sprintf("there is a token %q", in.Name), Next: "revoke it first, or take another name"}
	}
	return result(out, err)
}

// withSecret makes a token with a new secret.
func (c *call) withSecret(token ledger.Token, command func(ledger.Token) ledger.Command) (any, error) {
	secret := newSecret()
	token.Hash = sha256.Sum256([]byte(secret))
	if _, err := c.apply(ledger.ID{}, command(token)); err != nil {
		return nil, err
	}
	return created{api.NewToken{Token: tokenOf(token), Secret: secret}}, nil
}

func (c *call) revokeToken() (any, error) {
	name := c.r.PathValue("token")
	var tokens []ledger.Token
	if err := c.view(func(st *ledger.State) { tokens = st.Tokens() }); err != nil {
		return nil, err
	}
	found, last, others := false, false, false
	for _, t := range tokens {
		lasting := t.Scope == ledger.Admin && t.Expires.IsZero() && t.Experiments == ""
		if t.Name == name {
			found, last = true, lasting
		} else {
			others = others || lasting
		}
	}
	if !found {
		return nil, api.Errorf(api.NotFound, "no token %q", name)
	}
	if last && !others {
		return nil, &api.Error{Code: api.Conflict, Message: fmt.Sprintf("token %q is the last of scope admin that does not expire", name), Next: "create another first"}
	}
	_, err := c.apply(ledger.ID{}, ledger.TokenRevoke{Name: name})
	return nil, err
}

// bootstrap trades the first token for one that nobody wrote to a disk. The first one stands until that is used, so that an
// answer that is lost can be asked for again.
func (c *call) bootstrap() (any, error) {
	var first ledger.Token
	var fresh bool
	if err := c.view(func(st *ledger.State) { first, fresh = st.Token(firstToken) }); err != nil {
		return nil, err
	}
	token, known := c.lookUp(c.bearer())
	shown := known && token.Name == firstToken && token.Hash == first.Hash
	if !shown && !(c.bearer() == "" && fromLoopback(c.r)) {
		if err := c.take(c.address()); err != nil {
			return nil, err
		}
		return nil, &api.Error{Code: api.Unauthorized, Message: "bootstrap needs the token that the first leader wrote to its disk, or a connection from a coordinator's own machine"}
	}
	if !fresh {
		return nil, &api.Error{Code: api.Conflict, Message: "the first token was traded before", Next: "a token of scope admin makes others"}
	}
	return c.withSecret(ledger.Token{Name: adminToken, Scope: ledger.Admin}, func(t ledger.Token) ledger.Command { return ledger.TokenPut{Token: t} })
}

// traded revokes the first token once the one is used that it was traded for, on the leader.
func (c *call) traded() {
	if c.token.Name != adminToken || c.token.Scope != ledger.Admin || !c.node.Leads() {
		return
	}
	there := false
	_, _, err := c.node.View(c.r.Context(), consensus.Stale, func(st *ledger.State) { _, there = st.Token(firstToken) })
	if err == nil && there {
		_, err = c.apply(ledger.ID{}, ledger.TokenRevoke{Name: firstToken})
	}
	if err != nil {
		c.log.Warn("the first token still stands", "error", err) // until the next request
	}
}

// ensureToken gives a cluster without tokens its first one, on the leader. Its secret is in the token file before the cluster
// knows it.
func (s *Server) ensureToken(ctx context.Context) error {
	some := false
	_, _, err := s.node.View(ctx, consensus.Linearizable, func(st *ledger.State) { some = len(st.Tokens()) > 0 })
	if err != nil || some {
		return err
	}
	secret, err := api.ReadToken(s.tokenFile)
	if errors.Is(err, fs.ErrNotExist) {
		secret = newSecret()
		err = atomicfile.Write(s.tokenFile, 0o600, func(w io.Writer) error {
			_, err := io.WriteString(w, secret+"\n")
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("server: first token: %w", err)
	}
	if err := os.Chmod(s.tokenFile, 0o600); err != nil {
		return fmt.Errorf("server: first token: %w", err)
	}
	out, err := s.node.Apply(ctx, ledger.ID{}, ledger.TokenPut{Token: ledger.Token{Name: firstToken, Scope: ledger.Admin, Hash: sha256.Sum256([]byte(secret))}})
	if err = errors.Join(err, out.Err); err != nil {
		return fmt.Errorf("server: first token: %w", err)
	}
	s.log.Info("first token of scope admin written", "file", s.tokenFile)
	return nil
}
