package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/blobs"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/consensus"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

func (s *Server) write(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil { // a number that JSON does not have
		s.log.Error("answer", "error", err)
		status, data = http.StatusInternalServerError, []byte(`{"error":{"code":"internal","message":"the answer has no JSON form"}}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n')) // who hung up does not want it
}

func (s *Server) fail(w http.ResponseWriter, e *api.Error) {
	switch e.Code {
	case api.Internal:
		s.log.Error("request failed", "error", e.Message)
	case api.Unauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer realm="kelvin"`)
	case api.NoLeader, api.Unavailable:
		if w.Header().Get("Retry-After") == "" {
			w.Header().Set("Retry-After", "1")
		}
	}
	s.write(w, e.HTTP(), api.Failure{Error: e})
}

// fault is the error that people get for one of this program.
func fault(err error) *api.Error {
	is := func(targets ...error) bool {
		for _, target := range targets {
			if errors.Is(err, target) {
				return true
			}
		}
		return false
	}
	of := func(code api.Code, status int, next string) *api.Error {
		return &api.Error{Code: code, Message: err.Error(), Next: next, Status: status}
	}
	var e *api.Error
	switch {
	case errors.As(err, &e):
		return e
	case is(consensus.ErrNotLeader, consensus.ErrTransfer):
		return of(api.NoLeader, 0, "try again")
	case is(consensus.ErrUncertain):
		return of(api.Timeout, 0, "look whether it was done before you try again")
	case is(consensus.ErrFull, blobs.ErrFull):
		return of(api.OverQuota, http.StatusInsufficientStorage, "make room on the coordinators' disks")
	case is(blobs.ErrNotFound):
		return of(api.NotFound, 0, "")
	case is(blobs.ErrMismatch, consensus.ErrCorrupt):
		return of(api.Invalid, 0, "")
	case is(blobs.ErrTooLarge):
		return of(api.Invalid, http.StatusRequestEntityTooLarge, "")
	case is(blobs.ErrCorrupt, blobs.ErrNoQuorum, blobs.ErrClosed, consensus.ErrClosed):
		return of(api.Unavailable, 0, "try again")
	case is(ledger.ErrInvalid):
		return of(api.Invalid, 0, "")
	case is(ledger.ErrNotFound):
		return of(api.NotFound, 0, "")
	case is(ledger.ErrExists, ledger.ErrConflict, ledger.ErrStale, ledger.ErrInconsistent, ledger.ErrUnsupported):
		return of(api.Conflict, 0, "")
	case is(ledger.ErrQuota):
		return of(api.OverQuota, 0, "")
	case is(context.DeadlineExceeded, context.Canceled):
		return of(api.Timeout, 0, "")
	}
	return of(api.Internal, 0, "")
}

// apply commits a command and returns what the ledger says to it.
func (c *call) apply(exp ledger.ID, cmd ledger.Command) (ledger.Outcome, error) {
	out, err := c.node.Apply(c.r.Context(), exp, cmd)
	if err != nil {
		return out, err
	}
	return out, out.Err
}

// etag is the version of an experiment as HTTP writes it.
func etag(version uint64) string { return strconv.Quote(strconv.FormatUint(version, 10)) }

// ifMatch is the version that the client saw; 0 where it does not say.
func (c *call) ifMatch() (uint64, error) {
	text := c.r.Header.Get("If-Match")
	if text == "" || text == "*" {
		return 0, nil
	}
	plain, err := strconv.Unquote(text)
	version, err2 := strconv.ParseUint(plain, 10, 64)
	if err != nil || err2 != nil || version == 0 {
		e := api.Errorf(api.Invalid, "If-Match: %q, want the ETag of an experiment such as \"12\"", text)
		e.Status = http.StatusBadRequest
		return 0, e
	}
	return version, nil
}

// outdated makes a conflict that comes from an old version a failed precondition, and tells the present one.
func (c *call) outdated(err error, id ledger.ID, version uint64) error {
	if !errors.Is(err, ledger.ErrConflict) || version == 0 {
		return err
	}
	var now ledger.Experiment
	if _, _, e := c.node.View(c.r.Context(), consensus.Leader, func(st *ledger.State) { now, _ = st.ByID(id) }); e != nil || now.Version == version {
		return err
	}
	e := fault(err)
	e.Status = http.StatusPreconditionFailed
	e.Next = "look at it again and decide anew"
	return e
}
