package server

import (
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/blobs"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/consensus"
	"github.com/kelvin-ebm/kelvin/pkg/coordinator/ledger"
)

func (c *call) digest() (ledger.Digest, error) {
	digest, err := blobs.ParseDigest(c.r.PathValue("digest"))
	if err != nil {
		return digest, api.Errorf(api.Invalid, "blob: %v", err)
	}
	return digest, nil
}

func (c *call) getBlob() (any, error) {
	digest, err := c.digest()
	if err != nil {
		return nil, err
	}
	if err := c.mayRead(digest); err != nil {
		return nil, err
	}
	if c.r.Method == http.MethodHead && !c.node.Blobs().Has(digest) {
		return nil, api.Errorf(api.NotFound, "no blob %s here", digest)
	}
	content, _, err := c.node.OpenBlob(c.r.Context(), digest)
	if err != nil {
		return nil, err
	}
	defer content.Close()
	c.w.Header().Set("Content-Type", "application/octet-stream")
	c.w.Header().Set("ETag", `"`+digest.String()+`"`)
	http.ServeContent(c.w, c.r, "", time.Time{}, content)
	return handled{}, nil
}

// mayRead checks that a token for some experiments reads their blobs alone.
func (c *call) mayRead(digest ledger.Digest) error {
	if c.token.Experiments == "" {
		return nil
	}
	found := false
	err := c.view(func(st *ledger.State) {
		for _, e := range st.Experiments() {
			for _, cut := range allCuts(e) {
				found = found || c.may(e.Name) && names(cut, digest)
			}
		}
	})
	if err == nil && !found {
		err = &api.Error{Code: api.Forbidden, Message: fmt.Sprintf("blob %s is of no experiment that token %s is for", digest, c.token.Name)}
	}
	return err
}

func names(cut ledger.Cut, digest ledger.Digest) bool {
	for _, p := range cut.Parts {
		if p.Digest == digest {
			return true
		}
	}
	return cut.Manifest == digest
}

func (c *call) putBlob() (any, error) {
	digest, err := c.digest()
	if err != nil {
		return nil, err
	}
	size := c.r.ContentLength
	if size < 0 {
		e := api.Errorf(api.Invalid, "blob without a Content-Length")
		e.Status = http.StatusLengthRequired
		return nil, e
	}
	if size > blobs.Limit {
		e := api.Errorf(api.Invalid, "blob of %d bytes, want at most %d", size, int64(blobs.Limit))
		e.Status = http.StatusRequestEntityTooLarge
		return nil, e
	}
	leave, err := enter(c.uploads, "uploads")
	if err != nil {
		return nil, err
	}
	defer leave()
	// A blob that is here is not read: then the client need not send it.
	if err := c.node.Blobs().Put(c.r.Context(), digest, size, c.r.Body); err != nil {
		return nil, err
	}
	return nil, c.node.SpreadBlob(c.r.Context(), digest)
}

// enter takes one of a limited number of places.
func enter(places chan struct{}, what string) (leave func(), err error) {
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	default:
		return nil, &api.Error{Code: api.Unavailable, Message: fmt.Sprintf("more than %d %s at once", cap(places), what), Next: "try again"}
	}
}

func (c *call) backup() (any, error) {
	c.w.Header().Set("Content-Type", "application/x-tar")
	c.w.Header().Set("Trailer", api.EndTrailer)
	out := &counter{Writer: c.w}
	if err := c.node.Backup(c.r.Context(), out); err != nil {
		if out.n == 0 {
			c.w.Header().Del("Trailer")
			return nil, err
		}
		c.log.Error("backup", "error", err, "bytes", out.n)
		return handled{}, nil // without the trailer: the client knows
	}
	c.w.Header().Set(api.EndTrailer, "whole")
	return handled{}, nil
}

type counter struct {
	io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.n += int64(n)
	return n, err
}

func (c *call) restore() (any, error) {
	if err := c.node.RestoreFrom(c.r.Context(), c.r.Body, c.r.URL.Query().Get("force")); err != nil {
		return nil, err
	}
	out := api.Restored{Meta: api.Kind("Restored")}
	_, _, err := c.node.View(c.r.Context(), consensus.Stale, func(st *ledger.State) {
		id, _, _ := st.Cluster()
		out.Cluster, out.Experiments = id.String(), len(st.Experiments())
	})
	return result(out, err)
}
