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
	for _, tc := range []struct{ listen, want string }{
		{"127.0.0.1", "want host:port"},
		{"127.0.0.1:x", "port \"x\""},
		{"0.0.0.0:0", "without TLS"},
		{":0", "without TLS"},
		{strings.TrimPrefix(taken.URL(), "nats://"), "address already in use"},
	} {
		if _, err := StartServer(t.Context(), ServerOptions{Listen: tc.listen}); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("listen on %s: %v, want %s", tc.listen, err, tc.want)
		}
	}
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
	for _, o := range []Options{{}, {URL: "nats://127.0.0.1:1", Server: new(Server)}} {
		if _, err := Dial(t.Context(), o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
	if _, err := Dial(t.Context(), Options{URL: "nats://127.0.0.1:1"}); err == nil || !strings.Contains(err.Error(), "nats://127.0.0.1:1") {
		t.Errorf("nobody there: %v, want the address", err)
	}
	guarded := startServer(t, ServerOptions{Listen: "127.0.0.1:0", Token: "secret"})
	for _, o := range []Options{{URL: guarded.URL()}, {URL: guarded.URL(), Token: "guess"}, {URL: strings.Replace(guarded.URL(), "//", "//guess@", 1)}} {
		if _, err := Dial(t.Context(), o); !errors.Is(err, nats.ErrAuthorization) || strings.Contains(err.Error(), "guess") {
			t.Errorf("without the token: %v, want %v and no secret", err, nats.ErrAuthorization)
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
	if _, err := a.Request(within(t), "x", energyMessage(0)); err != nil {
		t.Error(err)
	}
	a.Close()
}
