package blobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// prefix is where the peers find a store's blobs.
const prefix = "/blobs/"

// answers are the errors that travel between peers, by status.
var answers = []struct {
	status int
	err    error
}{
	{http.StatusNotFound, ErrNotFound},
	{http.StatusRequestEntityTooLarge, ErrTooLarge},
	{http.StatusUnprocessableEntity, ErrMismatch},
	{http.StatusInsufficientStorage, ErrFull},
}

// Handler answers the peers' requests: GET and HEAD of /blobs/<hex>, with ranges, and PUT, which answers 204 once the blob
// is durable here, and 102 from time to time while it verifies a copy that is here already. Whoever asks is trusted: the
// caller sees to that.
func (s *Store) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+prefix+"{digest}", s.serveGet) // and HEAD
	mux.HandleFunc("PUT "+prefix+"{digest}", s.servePut)
	return mux
}

func (s *Store) serveGet(w http.ResponseWriter, r *http.Request) {
	digest, err := ParseDigest(r.PathValue("digest"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	content, _, err := s.Open(digest)
	if err != nil {
		answer(w, err)
		return
	}
	defer content.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", `"`+digest.String()+`"`)
	http.ServeContent(w, r, "", time.Time{}, content) // breaks off where the content turns out to be damaged
}

func (s *Store) servePut(w http.ResponseWriter, r *http.Request) {
	digest, err := ParseDigest(r.PathValue("digest"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if r.ContentLength < 0 {
		http.Error(w, "size is not announced, want a Content-Length", http.StatusLengthRequired)
		return
	}
	body := &upload{Reader: r.Body, control: http.NewResponseController(w), stall: s.stall}
	said := time.Now()
	err = s.put(r.Context(), digest, r.ContentLength, body, func(context.Context, int) error {
		if time.Since(said) > s.stall/4 { // it takes long to read a large blob again: the sender must not give up
			w.WriteHeader(http.StatusProcessing)
			said = time.Now()
		}
		return nil
	})
	if !body.ended {
		w.Header().Set("Connection", "close") // else the server would wait for the rest before it answers
	}
	if err != nil {
		answer(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// upload gives up on a sender that hangs.
type upload struct {
	io.Reader
	control *http.ResponseController
	stall   time.Duration
	ended   bool
}

func (u *upload) Read(p []byte) (int, error) {
	_ = u.control.SetReadDeadline(time.Now().Add(u.stall)) // where there is no such thing, the sender decides
	n, err := u.Reader.Read(p)
	if err == io.EOF {
		u.ended = true
		_ = u.control.SetReadDeadline(time.Time{}) // the disk may take longer
	}
	return n, err
}

// answer sends an error to a peer.
func answer(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	for _, a := range answers {
		if errors.Is(err, a.err) {
			status = a.status
		}
	}
	if errors.Is(err, ErrCorrupt) {
		status = http.StatusNotFound // any more
	}
	http.Error(w, err.Error(), status)
}

// answerError is the error that a peer sent.
func answerError(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
	err := fmt.Errorf("answers %s: %s", resp.Status, strings.TrimSpace(string(text)))
	for _, a := range answers {
		if resp.StatusCode == a.status {
			return fmt.Errorf("%w: %w", a.err, err)
		}
	}
	return err
}
