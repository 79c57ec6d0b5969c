package server

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/consensus"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

// errUnknownToken is what a client gets whose token is not known, here.
var errUnknownToken = &api.Error{Code: api.Unauthorized, Message: "the token is not known, or expired", Next: "ask for a new one"}

// authenticate finds out whose request it is, and takes it out of his allowance. wait says that nobody else will be asked.
func (c *call) authenticate(wait bool) error {
	secret := c.bearer()
	token, known := c.lookUp(secret)
	if !known && secret != "" && wait && !c.node.Leads() {
		token, known = c.awaitToken(secret)
	}
	if !known {
		if err := c.take(c.address()); err != nil {
			return err
		}
		if secret == "" {
			return &api.Error{Code: api.Unauthorized, Message: "no token", Next: "send one as Authorization: Bearer"}
		}
		return errUnknownToken
	}
	c.token = token
	if who, ok := c.r.Context().Value(whoKey{}).(*string); ok {
		*who = token.Name
	}
	return c.take("token " + token.Name)
}

// address is whose allowance pays for requests without a token.
func (c *call) address() string {
	host, _, _ := net.SplitHostPort(c.r.RemoteAddr)
	return "address " + host
}

// hearsay is how long a coordinator that does not lead waits for a token that it does not know: it may be a new one.
const hearsay = 300 * time.Millisecond

// awaitToken looks a token up until the wait is over.
func (c *call) awaitToken(secret string) (ledger.Token, bool) {
	late := time.After(hearsay)
	for {
		changed := c.node.Changed()
		if token, known := c.lookUp(secret); known {
			return token, true
		}
		select {
		case <-changed:
		case <-late:
			return ledger.Token{}, false
		case <-c.r.Context().Done():
			return ledger.Token{}, false
		}
	}
}

// take is one request of somebody's allowance. What another coordinator passes on was counted there.
func (c *call) take(who string) error {
	if c.r.Header.Get(consensus.ForwardedBy) != "" {
		return nil
	}
	wait, ok := c.rates.take(who)
	if ok {
		return nil
	}
	c.w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	return &api.Error{Code: api.Unavailable, Status: http.StatusTooManyRequests,
		Message: fmt.Sprintf("more than %d requests a second from %s", ratePerSec, who), Next: "try again later"}
}

// lookUp finds the token of a secret. It takes equally long whatever the secret has in common with a right one.
func (c *call) lookUp(secret string) (found ledger.Token, ok bool) {
	if secret == "" {
		return found, false
	}
	var tokens []ledger.Token
	var cluster [32]byte
	_, _, _ = c.node.View(c.r.Context(), consensus.Stale, func(st *ledger.State) {
		tokens = st.Tokens()
		_, cluster, _ = st.Cluster()
	})
	if p, ok := credential(cluster, secret, c.now()); ok {
		c.process = &p
		return ledger.Token{Name: p.name(), Scope: ledger.Join, Experiments: p.experiments}, true
	}
	hash := sha256.Sum256([]byte(secret))
	for _, t := range tokens {
		if subtle.ConstantTimeCompare(t.Hash[:], hash[:]) == 1 && (t.Expires.IsZero() || c.now().Before(t.Expires)) {
			found, ok = t, true
		}
	}
	return found, ok
}

// authorize checks that the token allows what the route does.
func (c *call) authorize() error {
	need, has := c.route.scope, c.token.Scope
	allowed := has >= need && has != ledger.Join
	if need == ledger.Join {
		allowed = has == ledger.Join || has == ledger.Admin
	}
	if !allowed {
		return &api.Error{Code: api.Forbidden, Message: fmt.Sprintf("token %s has the scope %s, want %s", c.token.Name, has, need)}
	}
	if strings.Contains(c.route.path, "{name}") {
		return c.mayTouch(c.r.PathValue("name"))
	}
	if need == ledger.Admin && c.token.Experiments != "" {
		return &api.Error{Code: api.Forbidden, Message: fmt.Sprintf("token %s is for the experiments %s alone", c.token.Name, c.token.Experiments)}
	}
	return nil
}

// may says whether the token is for an experiment of that name.
func (c *call) may(name string) bool {
	prefix, open := strings.CutSuffix(c.token.Experiments, "*")
	return c.token.Experiments == "" || name == prefix || open && strings.HasPrefix(name, prefix)
}

func (c *call) mayTouch(name string) error {
	if c.may(name) {
		return nil
	}
	return &api.Error{Code: api.Forbidden, Message: fmt.Sprintf("token %s is for the experiments %s, not %q", c.token.Name, c.token.Experiments, name)}
}

// A credential is what a replica gets in exchange for a join token. It is good for the same process alone and says itself which
// that is, what token it came from, and what experiments that is for, so that nothing needs to be remembered of it:
//
//	kr.<id>.<incarnation>.<expires, Unix seconds>.<token>.<experiments>.<HMAC-SHA256>
const (
	credentialMark = "kr."
	credentialLife = 24 * time.Hour // renewed at every answer, until people revoke the token
	credentialName = "api.Credential"
)

// process is a replica's, as its credential has it.
type process struct {
	id          string
	incarnation uint64
	token       string // see markOf
	experiments string // as in ledger.Token
}

// markOf tells a token from all others, those that had its name before too, and gives nothing of its secret away.
func markOf(t ledger.Token) string { return hex.EncodeToString(t.Hash[:8]) }

// name is what the process is called in logs.
func (p process) name() string {
	return fmt.Sprintf("%s%s.%d", credentialMark, hex.EncodeToString([]byte(p.id)), p.incarnation)
}

func newCredential(cluster [32]byte, p process, now time.Time) string {
	text := fmt.Sprintf("%s.%d.%s.%s", p.name(), now.Add(credentialLife).Unix(), p.token, hex.EncodeToString([]byte(p.experiments)))
	return text + "." + sign(cluster, text)
}

func sign(cluster [32]byte, text string) string {
	mac := hmac.New(sha256.New, cluster[:])
	mac.Write([]byte("kelvin replica\x00" + text))
	return hex.EncodeToString(mac.Sum(nil))
}

// credential is the process that a credential is of.
func credential(cluster [32]byte, secret string, now time.Time) (p process, ok bool) {
	cut := strings.LastIndexByte(secret, '.')
	if !strings.HasPrefix(secret, credentialMark) || cut < 0 || cluster == [32]byte{} {
		return p, false
	}
	text := secret[:cut]
	fields := strings.Split(text, ".")
	if !hmac.Equal([]byte(sign(cluster, text)), []byte(secret[cut+1:])) || len(fields) != 6 {
		return p, false
	}
	id, err1 := hex.DecodeString(fields[1])
	incarnation, err2 := strconv.ParseUint(fields[2], 10, 64)
	expires, err3 := strconv.ParseInt(fields[3], 10, 64)
	experiments, err4 := hex.DecodeString(fields[5])
	if err := errors.Join(err1, err2, err3, err4); err != nil || now.Unix() >= expires {
		return p, false
	}
	return process{string(id), incarnation, fields[4], string(experiments)}, true
}

// joins counts the uses of join tokens, on the leader. It is safe for concurrent use.
type joins struct {
	mu    sync.Mutex
	known map[string]time.Time // when the uses of tokens by processes were counted
}

// note remembers a use, as long as the token can live.
func (j *joins) note(use string, now time.Time) {
	maps.DeleteFunc(j.known, func(_ string, at time.Time) bool { return now.Sub(at) > joinLife })
	if j.known == nil {
		j.known = map[string]time.Time{}
	}
	j.known[use] = now
}
