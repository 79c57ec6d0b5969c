package server

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

func TestScopes(t *testing.T) {
	for _, tc := range []struct {
		has, need ledger.Scope
		want      bool
	}{
		{ledger.Read, ledger.Read, true},
		{ledger.Read, ledger.Operate, false},
		{ledger.Operate, ledger.Read, true},
		{ledger.Operate, ledger.Admin, false},
		{ledger.Admin, ledger.Operate, true},
		{ledger.Admin, ledger.Join, true},
		{ledger.Operate, ledger.Join, false},
		{ledger.Join, ledger.Join, true},
		{ledger.Join, ledger.Read, false},
		{ledger.Join, ledger.Admin, false},
	} {
		c := &call{Server: &Server{}, route: &route{scope: tc.need, path: "/v1/x"}, token: ledger.Token{Scope: tc.has}}
		if got := c.authorize() == nil; got != tc.want {
			t.Errorf("a token of scope %v where %v is needed: allowed %v, want %v", tc.has, tc.need, got, tc.want)
		}
	}
}

func TestExperimentsOfAToken(t *testing.T) {
	for _, tc := range []struct {
		pattern, name string
		want          bool
	}{
		{"", "moons", true}, {"moons", "moons", true}, {"moons", "moons2", false}, {"moons*", "moons2", true}, {"moons*", "moons", true},
		{"moons*", "moon", false}, {"*", "x", true},
	} {
		c := &call{token: ledger.Token{Experiments: tc.pattern}}
		if got := c.may(tc.name); got != tc.want {
			t.Errorf("%q for %q: %v, want %v", tc.pattern, tc.name, got, tc.want)
		}
	}
}

func TestTokenExpires(t *testing.T) {
	c := start(t, nil)
	client := c.admin(t)
	secret := token(t, client, api.CreateToken{Name: "short", Scope: "read", TTLSeconds: 3600})
	if _, err := c.client(t, secret).Experiments(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.now = func() time.Time { return time.Now().Add(time.Hour) }
	if _, err := c.client(t, secret).Experiments(t.Context()); asError(err).Code != api.Unauthorized {
		t.Errorf("after it expired: %v, want it not known", err)
	}
	if _, err := client.Experiments(t.Context()); err != nil {
		t.Errorf("one that never expires: %v", err)
	}
}

// TestBootstrap: the first token is in a file for its owner alone, and is traded until what it was
// traded for is used.
func TestBootstrap(t *testing.T) {
	c := start(t, nil)
	first := c.firstToken(t)
	if info, err := os.Stat(c.tokenFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the token's file: %v, %v, want mode 0600", info.Mode(), err)
	}
	if status, answer, _ := c.call(t, "POST", "/v1/tokens/bootstrap", "", nil, "X-Forwarded-For", "10.0.0.1"); status != 401 {
		t.Errorf("from behind a proxy: %d %s, want 401", status, answer)
	}
	if status, answer, _ := c.call(t, "POST", "/v1/tokens/bootstrap", "guess", nil); status != 401 {
		t.Errorf("with another token: %d %s, want 401", status, answer)
	}
	out, err := c.client(t, first).Bootstrap(t.Context())
	if err != nil || out.Scope != api.ScopeAdmin || out.Secret == first {
		t.Fatalf("%+v, %v, want a new token of scope admin", out, err)
	}
	lost := out
	if out, err = c.client(t, first).Bootstrap(t.Context()); err != nil || out.Secret == lost.Secret {
		t.Fatalf("again, as after a lost answer: %+v, %v, want another secret", out, err)
	}
	if _, err := c.client(t, lost.Secret).Tokens(t.Context()); asError(err).Code != api.Unauthorized {
		t.Errorf("the secret that was lost: %v, want it void", err)
	}
	tokens, err := c.client(t, out.Secret).Tokens(t.Context())
	if err != nil || len(tokens.Items) != 1 {
		t.Errorf("tokens %+v, %v, want one", tokens.Items, err)
	}
	if _, err := c.client(t, first).Tokens(t.Context()); asError(err).Code != api.Unauthorized {
		t.Errorf("the first token still opens after that which it was traded for: %v", err)
	}
	if _, err := c.client(t, "").Bootstrap(t.Context()); asError(err).Code != api.Conflict {
		t.Errorf("once it was used: %v, want a conflict", err)
	}
}

func TestBootstrapFromTheSameMachine(t *testing.T) {
	c := start(t, nil)
	c.firstToken(t)
	if _, err := c.client(t, "").Bootstrap(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestJoinTokenIsUsedUp: two processes use up a token for two, and go on with what they got in exchange.
func TestJoinTokenIsUsedUp(t *testing.T) {
	c := start(t, nil)
	client := c.admin(t)
	secret := token(t, client, api.CreateToken{Name: "two", Scope: "join", Uses: 2})
	for id := range 2 {
		replica := c.client(t, secret)
		for range 3 {
			if _, ok, err := replica.Ask(t.Context(), api.Ask{ID: fmt.Sprint(id), Incarnation: 9}); err != nil || !ok {
				t.Fatalf("replica %d: %v", id, err)
			}
		}
		if _, err := replica.Experiments(t.Context()); asError(err).Code != api.Unauthorized && asError(err).Code != api.Forbidden {
			t.Errorf("a replica sees experiments: %v", err)
		}
	}
	if _, _, err := c.client(t, secret).Ask(t.Context(), api.Ask{ID: "3"}); asError(err).Code != api.Unauthorized {
		t.Errorf("a third replica: %v, want the token used up", err)
	}
	tokens, err := client.Tokens(t.Context())
	if err != nil || len(tokens.Items) != 2 || !tokens.Items[1].Spent || tokens.Items[1].Uses != 0 {
		t.Errorf("tokens %+v, %v, want the second spent", tokens.Items, err)
	}
}

// TestCredentialOfAToken: what a join token is for, and that it was revoked, holds for the credentials of its replicas too.
func TestCredentialOfAToken(t *testing.T) {
	c := start(t, nil)
	client := c.admin(t)
	secret := token(t, client, api.CreateToken{Name: "some", Scope: "join", Experiments: "moons*", Uses: 1})
	ask := func(shown string, in api.Ask) (status int, credential string) {
		status, _, header := c.call(t, "POST", "/v1/pool/ask", shown, in)
		return status, header.Get(api.CredentialHeader)
	}
	in := api.Ask{ID: "r1", Incarnation: 5, Experiment: "moons-a"}
	status, shown := ask(secret, in)
	if status != 200 || shown == "" {
		t.Fatalf("status %d, credential %q", status, shown)
	}
	for name, change := range map[string]func(*api.Ask){
		"for another experiment":       func(a *api.Ask) { a.Experiment = "sun" },
		"for any experiment":           func(a *api.Ask) { a.Experiment = "" },
		"by another replica":           func(a *api.Ask) { a.ID = "r2" },
		"by another process of its id": func(a *api.Ask) { a.Incarnation++ },
	} {
		other := in
		change(&other)
		if status, fresh := ask(shown, other); status != 403 || fresh != "" {
			t.Errorf("%s: %d, credential %q, want 403", name, status, fresh)
		}
	}
	if status, fresh := ask(secret, in); status != 200 || fresh == "" {
		t.Errorf("the same process with the token that it used up, as after a lost answer: %d, credential %q", status, fresh)
	}
	status, shown = ask(shown, in)
	if status != 200 || shown == "" {
		t.Fatalf("with the credential: %d, renewed %q", status, shown)
	}
	if err := client.RevokeToken(t.Context(), "some"); err != nil {
		t.Fatal(err)
	}
	token(t, client, api.CreateToken{Name: "some", Scope: "join"}) // which is another
	if status, fresh := ask(shown, in); status != 200 || fresh != "" {
		t.Errorf("after the token was revoked: %d, credential %q, want no new one", status, fresh)
	}
}

func TestCredential(t *testing.T) {
	now := time.Now()
	cluster := [32]byte{1}
	want := process{"a.b", 1 << 63, "0123", "moons.*"}
	good := newCredential(cluster, want, now)
	if got, ok := credential(cluster, good, now); !ok || got != want {
		t.Errorf("a fresh credential is %+v, %v, want %+v", got, ok, want)
	}
	if _, ok := credential(cluster, good, now.Add(credentialLife)); ok {
		t.Error("an old one is taken")
	}
	if _, ok := credential([32]byte{2}, good, now); ok {
		t.Error("one of another cluster is taken")
	}
	for i := range good {
		bad := []byte(good)
		bad[i] ^= 1
		if _, ok := credential(cluster, string(bad), now); ok {
			t.Errorf("one with another byte %d is taken", i)
		}
	}
	if _, ok := credential([32]byte{}, newCredential([32]byte{}, process{}, now), now); ok {
		t.Error("one of a cluster without a secret is taken")
	}
}

func TestRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRates(time.Now)
		for range rateBurst {
			if _, ok := r.take("a"); !ok {
				t.Fatal("refused within the burst")
			}
		}
		wait, ok := r.take("a")
		if ok || wait <= 0 || wait > time.Second/ratePerSec {
			t.Errorf("after the burst: wait %v, %v, want up to %v", wait, ok, time.Second/ratePerSec)
		}
		if _, ok := r.take("b"); !ok {
			t.Error("one pays for the other")
		}
		time.Sleep(time.Second)
		n := 0
		for ok := true; ok; n++ {
			_, ok = r.take("a")
		}
		if n-1 != ratePerSec {
			t.Errorf("%d requests after a second, want %d", n-1, ratePerSec)
		}
		for i := range 2 * manyBuckets {
			r.take(fmt.Sprint(i))
			time.Sleep(time.Second / ratePerSec)
		}
		if len(r.buckets) > manyBuckets {
			t.Errorf("%d buckets are kept, want at most %d", len(r.buckets), manyBuckets)
		}
	})
}

// TestTooManyRequests: who asks too often is told to wait, with and without a token.
func TestTooManyRequests(t *testing.T) {
	c := start(t, nil)
	secret := c.firstToken(t)
	frozen := time.Now()
	c.rates.now = func() time.Time { return frozen }
	for range rateBurst {
		c.rates.take("token " + firstToken)
		c.rates.take("address 127.0.0.1")
	}
	for _, secret := range []string{secret, "guess"} {
		status, answer, header := c.call(t, "GET", "/v1/experiments", secret, nil)
		if status != http.StatusTooManyRequests || codeOf(t, answer) != api.Unavailable || header.Get("Retry-After") == "" {
			t.Errorf("status %d, Retry-After %q, %s, want 429", status, header.Get("Retry-After"), answer)
		}
	}
	if status, _, _ := c.call(t, "GET", "/livez", "", nil); status != 200 {
		t.Errorf("a probe gets %d, want 200", status)
	}
}

// TestNoSecretIsLogged goes through everything that has a secret.
func TestNoSecretIsLogged(t *testing.T) {
	c := start(t, nil)
	first := c.firstToken(t)
	client := c.client(t, first)
	secrets := []string{first, "secret-of-the-experiment", "guess-of-a-token"}
	made := token(t, client, api.CreateToken{Name: "x", Scope: "join", Uses: 1})
	secrets = append(secrets, made)
	if _, _, err := c.client(t, made).Ask(t.Context(), api.Ask{ID: "r"}); err != nil {
		t.Fatal(err)
	}
	_, _, header := c.call(t, "POST", "/v1/pool/ask", first, api.Ask{ID: "s"})
	secrets = append(secrets, header.Get(api.CredentialHeader))
	c.call(t, "GET", "/v1/experiments?token="+first, "guess-of-a-token", nil)
	c.call(t, "POST", "/v1/tokens", first, `{"name": "`+first+`"`)
	c.work.panic(true)
	_, _ = client.Submit(t.Context(), api.Submit{Name: "moons", YAML: "shards: 1"})
	out, err := client.Bootstrap(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	secrets = append(secrets, out.Secret)
	_, _ = c.client(t, out.Secret).Experiments(t.Context())

	text := c.log.String()
	for _, s := range secrets {
		if s == "" || strings.Contains(text, s) {
			t.Errorf("%q is in the log, or was not made", s)
		}
	}
	for _, want := range []string{"token=admin", "status=401", "panic in a request", `route="GET /v1/experiments"`} {
		if !strings.Contains(text, want) {
			t.Errorf("the log has no %s", want)
		}
	}
}

// TestPanic: one request's panic is its own.
func TestPanic(t *testing.T) {
	c := start(t, nil)
	client := c.admin(t)
	submit(t, client, "moons")
	c.work.panic(true)
	if _, err := client.Experiments(t.Context()); asError(err).Code != api.Internal {
		t.Errorf("%v, want an internal error", err)
	}
	c.work.panic(false)
	if _, err := client.Experiments(t.Context()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	_, answer, _ := c.call(t, "GET", "/metrics", "", nil)
	if !strings.Contains(string(answer), "kelvin_http_panics_total 1") {
		t.Error("the panic was not counted")
	}
}
