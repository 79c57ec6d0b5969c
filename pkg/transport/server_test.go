package transport

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// selfSigned makes a certificate for the loopback address, and what trusts it.
func selfSigned(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS13}, &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}
}

func TestServerRefuses(t *testing.T) {
	taken := startServer(t, ServerOptions{Listen: "127.0.0.1:0"})
	for _, tc := range []struct {
		options ServerOptions
		want    string
	}{
		{ServerOptions{Listen: "127.0.0.1"}, "want host:port"},
		{ServerOptions{Listen: "127.0.0.1:x"}, "port \"x\""},
		{ServerOptions{Listen: "0.0.0.0:0"}, "without TLS"},
		{ServerOptions{Listen: ":0"}, "without TLS"},
		{ServerOptions{Listen: strings.TrimPrefix(taken.URL(), "nats://")}, "address already in use"},
		{ServerOptions{Token: "t", Authenticate: users}, "want one of them"},
		{ServerOptions{Listen: "127.0.0.1:0", Cluster: &Cluster{Name: "c", Listen: "127.0.0.1:0"}}, "no name"},
		{ServerOptions{Name: "a", Cluster: &Cluster{Name: "c", Listen: "127.0.0.1:0"}}, "does not listen"},
		{ServerOptions{Name: "a", Listen: "127.0.0.1:0", Cluster: &Cluster{Name: "c d", Listen: "127.0.0.1:0"}}, "name \"c d\""},
		{ServerOptions{Name: "a", Listen: "127.0.0.1:0", Cluster: &Cluster{Name: "c", Listen: "0.0.0.0:0"}}, "without TLS"},
		{ServerOptions{Name: "a", Listen: "127.0.0.1:0", Cluster: &Cluster{Name: "c", Listen: "0.0.0.0:0", TLS: new(tls.Config)}}, "no secret"},
		{ServerOptions{Name: "a", Listen: "127.0.0.1:0", Cluster: &Cluster{Name: "c", Listen: "127.0.0.1:0", Routes: []string{"b"}}}, "route: \"b\""},
	} {
		if s, err := StartServer(t.Context(), tc.options); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v, want %s", tc.options, err, tc.want)
			if err == nil {
				s.Close()
			}
		}
	}
	startServer(t, ServerOptions{Listen: "0.0.0.0:0", Insecure: true})
	if url := startServer(t, ServerOptions{}).URL(); url != "" {
		t.Errorf("a server that does not listen is at %q", url)
	}
}

func TestServerLogs(t *testing.T) {
	var log bytes.Buffer
	s, err := StartServer(t.Context(), ServerOptions{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if text := log.String(); !strings.Contains(text, "nats server: Starting nats-server") || strings.Contains(text, "level=ERROR") {
		t.Errorf("log: %s", text)
	}
}

func TestDialRefuses(t *testing.T) {
	const url = "nats://127.0.0.1:1"
	for _, o := range []Options{
		{},
		{URL: url, Server: new(Server)},
		{URL: "nats://guess@127.0.0.1:1"},
		{URL: "u:guess@127.0.0.1:1"},
		{URL: url, Token: "guess", User: "u", Secret: "guess"},
		{URL: url, User: "u"},
		{URL: url, User: "u", Secret: "guess", SecretFile: "f"},
		{URL: url, User: "u", SecretFile: filepath.Join(t.TempDir(), "absent")},
		{URL: url, Secret: "guess"},
		{Server: new(Server), User: "u", Secret: "guess"},
	} {
		if _, err := Dial(t.Context(), o); err == nil || errors.Is(err, nats.ErrNoServers) || strings.Contains(err.Error(), "guess") {
			t.Errorf("%+v: %v, want a refusal without the secret", o, err)
		}
	}
	if _, err := Dial(t.Context(), Options{URL: url}); err == nil || !strings.Contains(err.Error(), url) {
		t.Errorf("nobody there: %v, want the address", err)
	}
	guarded := startServer(t, ServerOptions{Listen: "127.0.0.1:0", Token: "secret"})
	for _, o := range []Options{{URL: guarded.URL()}, {URL: guarded.URL(), Token: "guess"}} {
		if _, err := Dial(t.Context(), o); !errors.Is(err, ErrUnauthorized) || strings.Contains(err.Error(), "guess") {
			t.Errorf("without the token: %v, want %v and no secret", err, ErrUnauthorized)
		}
	}
	s := startServer(t, ServerOptions{})
	s.Close()
	if _, err := Dial(t.Context(), Options{Server: s}); err == nil {
		t.Error("a closed server was dialled")
	}
}

// TestDialEndsWithItsContext: the server takes the connection and says nothing.
func TestDialEndsWithItsContext(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	go func() {
		conn, err := silent.Accept()
		if err != nil {
			return
		}
		cancel(enough)
		_, _ = conn.Read(make([]byte, 1)) // until the other side hangs up
		conn.Close()
	}()
	if _, err := Dial(ctx, Options{URL: "nats://" + silent.Addr().String()}); !errors.Is(err, enough) {
		t.Errorf("%v, want the context's cause", err)
	}
}

// TestCredentials: a server that knows an operator's account takes its users and nobody else.
func TestCredentials(t *testing.T) {
	pair := func(make func() (nkeys.KeyPair, error)) (nkeys.KeyPair, string) {
		kp, err := make()
		if err != nil {
			t.Fatal(err)
		}
		public, err := kp.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		return kp, public
	}
	operator, operatorKey := pair(nkeys.CreateOperator)
	account, accountKey := pair(nkeys.CreateAccount)
	user, userKey := pair(nkeys.CreateUser)
	signed := func(c interface {
		Encode(nkeys.KeyPair) (string, error)
	}, by nkeys.KeyPair) string {
		text, err := c.Encode(by)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	resolver := &server.MemAccResolver{}
	if err := resolver.Store(accountKey, signed(jwt.NewAccountClaims(accountKey), operator)); err != nil {
		t.Fatal(err)
	}
	ns, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, TrustedKeys: []string{operatorKey}, AccountResolver: resolver})
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	defer ns.WaitForShutdown()
	defer ns.Shutdown()

	if _, err := Dial(t.Context(), Options{URL: ns.ClientURL()}); err == nil {
		t.Error("a stranger was taken")
	}
	seed, err := user.Seed()
	if err != nil {
		t.Fatal(err)
	}
	creds, err := jwt.FormatUserConfig(signed(jwt.NewUserClaims(userKey), account), seed)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "r0.creds")
	if err := os.WriteFile(file, creds, 0o600); err != nil {
		t.Fatal(err)
	}
	a := dial(t, Options{URL: ns.ClientURL(), Credentials: file})
	serve(t, a, "x", ServeOptions{Handler: echo})
	if _, err := a.Request(within(t), "x", boundMessage(0)); err != nil {
		t.Error(err)
	}
	a.Close()
}
