package replica

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/transport"
)

// A replica whose device does not come back says good-bye, so that its shards go elsewhere at once, and ends: only a new process
// helps.
func TestStuckReplicaLeaves(t *testing.T) {
	server, err := transport.StartServer(t.Context(), transport.ServerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	place := Meet("a token")
	conn, err := transport.Dial(t.Context(), transport.Options{Server: server, Experiment: place.Experiment})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	left := make(chan transport.Leave, 1)
	handler := transport.Mux{transport.TypeLeave: func(_ context.Context, m transport.Message) (transport.Message, error) {
		leave, err := transport.DecodeLeave(m.Payload)
		left <- leave
		return m.Reply(transport.TypeLeave, nil), err
	}}.Handle
	if _, err := conn.Serve(place.Subjects.Registrations(), transport.ServeOptions{Handler: handler}); err != nil {
		t.Fatal(err)
	}
	status := new(Status)
	status.begins(Run)
	status.made(7, time.Second)
	status.change(func() { status.moved = time.Now().Add(-time.Minute) })
	l := lease{conn: conn, place: place, token: 3, patience: Lease, worker: &worker{gate: new(transport.Gate), status: status, log: slog.New(slog.DiscardHandler)}}
	err = l.renew(t.Context(), context.Background())
	if !errors.Is(err, errStuck) || ExitCode(err) != 75 || !strings.Contains(err.Error(), "run behind step 7") {
		t.Errorf("error %v, want one that says where it is stuck, with exit code 75", err)
	}
	if leave := <-left; leave.Token != 3 || leave.Draining {
		t.Errorf("%+v, want lease 3 given back without waiting for another place", leave)
	}
}
