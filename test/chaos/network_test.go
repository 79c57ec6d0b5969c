package chaos

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// wired is a connection from a to b by way of a network.
type wired struct {
	*Network
	a, b *net.TCPConn
	dial func() *net.TCPConn // another one
}

func newWired(t *testing.T) wired {
	t.Helper()
	n := NewNetwork(func(net.Conn) string { return "a" })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address, err := n.Listen("b", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	w := wired{Network: n, dial: func() *net.TCPConn {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		return c.(*net.TCPConn)
	}}
	w.a = w.dial()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	w.b = accepted.(*net.TCPConn)
	w.b.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() {
		w.a.Close()
		w.b.Close()
		l.Close()
		n.Close()
		goleak.VerifyNone(t)
	})
	return w
}

func say(t *testing.T, c net.Conn, what string) {
	t.Helper()
	if _, err := io.WriteString(c, what); err != nil {
		t.Fatal(err)
	}
}

func hear(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("heard %q and %v, want %q", got, err, want)
	}
}

// silent wants that nothing is heard for a moment.
func silent(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	defer c.SetReadDeadline(time.Now().Add(20 * time.Second))
	var b [1]byte
	if n, err := c.Read(b[:]); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("heard %q and %v, want silence", b[:n], err)
	}
}

func TestAWireCarriesBothWaysAndItsEnds(t *testing.T) {
	w := newWired(t)
	say(t, w.a, "hello")
	hear(t, w.b, "hello")
	w.a.CloseWrite()
	if rest, err := io.ReadAll(w.b); len(rest) > 0 || err != nil {
		t.Fatalf("read %q and %v behind the end", rest, err)
	}
	say(t, w.b, "goodbye")
	w.b.Close()
	if rest, err := io.ReadAll(w.a); string(rest) != "goodbye" || err != nil {
		t.Fatalf("read %q and %v, want the answer to half a goodbye", rest, err)
	}
}

func TestWhatIsDroppedArrivesOnceHealed(t *testing.T) {
	w := newWired(t)
	w.Set("a", "b", Link{Drop: true})
	say(t, w.b, "one way")
	hear(t, w.a, "one way")
	say(t, w.a, "lost")
	silent(t, w.b)
	w.Isolate("b")
	say(t, w.b, "lost too")
	w.b.Close() // nor does anybody hear of the end
	silent(t, w.a)
	w.Heal()
	if got, err := io.ReadAll(w.a); string(got) != "lost too" {
		t.Fatalf("heard %q and %v", got, err)
	}
}

func TestNobodyIsReachedBehindADrop(t *testing.T) {
	w := newWired(t)
	w.Part("a", "b")
	c := w.dial()
	defer c.Close()
	say(t, c, "x")
	silent(t, c)
}

func TestDelayAndRateHoldBack(t *testing.T) {
	w := newWired(t)
	w.Set(Any, "b", Link{Delay: 30 * time.Millisecond})
	w.Set("a", "b", Link{Delay: 20 * time.Millisecond, Rate: 100_000})
	start := time.Now()
	say(t, w.a, "late")
	hear(t, w.b, "late")
	if took := time.Since(start); took < 30*time.Millisecond {
		t.Errorf("arrived after %v, want the longer delay of 30ms", took)
	}
	start = time.Now()
	go w.a.Write(make([]byte, 20_000))
	if _, err := io.ReadFull(w.b, make([]byte, 20_000)); err != nil {
		t.Fatal(err)
	}
	say(t, w.a, "x")
	hear(t, w.b, "x")
	if took := time.Since(start); took < 200*time.Millisecond {
		t.Errorf("20 kB at 100 kB/s arrived after %v", took)
	}
}

func TestAResetTellsBoth(t *testing.T) {
	w := newWired(t)
	say(t, w.a, "x")
	hear(t, w.b, "x") // the connection stands
	w.Reset("b")
	for _, c := range []net.Conn{w.a, w.b} {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("error %v, want a reset", err)
		}
	}
}

func TestTheOneAbandonedIsNotTold(t *testing.T) {
	w := newWired(t)
	say(t, w.a, "x")
	hear(t, w.b, "x")
	w.Abandon("a")
	if _, err := w.b.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("error %v, want a reset", err)
	}
	for range 3 {
		say(t, w.a, "into the void")
		silent(t, w.a)
	}
}

func TestConnectionsToAProcessThatIsAwayAreReset(t *testing.T) {
	n := NewNetwork(func(net.Conn) string { return "a" })
	defer n.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	address, err := n.Listen("b", gone.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", address)
	if err == nil { // else the reset was faster
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("error %v, want a reset", err)
	}
}

// However badly a connection is treated, TCP's promise holds: the same bytes, in their order.
func TestBytesSurviveEverythingButAReset(t *testing.T) {
	w := newWired(t)
	random := rand.NewChaCha8([32]byte{1})
	sent := make([]byte, 4<<20)
	random.Read(sent)
	go func() {
		io.Copy(w.a, bytes.NewReader(sent))
		w.a.CloseWrite()
	}()
	done := make(chan [32]byte)
	go func() {
		got, _ := io.ReadAll(w.b)
		done <- sha256.Sum256(got)
	}()
	for flip := 0; ; flip++ {
		select {
		case got := <-done:
			if got != sha256.Sum256(sent) {
				t.Error("other bytes arrived")
			}
			return
		case <-time.After(time.Millisecond):
		}
		w.Set("a", "b", Link{Drop: flip%3 == 0, Delay: time.Duration(flip%5) * 100 * time.Microsecond, Jitter: time.Millisecond})
	}
}

func TestTheDialerIsKnownByItsProcess(t *testing.T) {
	var d dialer
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	if got := d.of(accepted); got != "" {
		t.Errorf("%q, and nobody is known", got)
	}
	d.know(os.Getpid(), "me")
	if got := d.of(accepted); got != "me" {
		t.Errorf("%q, want me", got)
	}
	d.know(os.Getpid(), "")
	if got := d.of(accepted); got != "" {
		t.Errorf("%q, and it was forgotten", got)
	}
}
