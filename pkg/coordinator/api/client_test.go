package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs a coordinator that answers by a function.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

func dial(t *testing.T, cfg Config) *Client {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func refuse(w http.ResponseWriter, code Code, header ...string) {
	e := Errorf(code, "because of %s", code)
	for i := 0; i < len(header); i += 2 {
		w.Header().Set(header[i], header[i+1])
	}
	w.WriteHeader(e.HTTP())
	_ = json.NewEncoder(w).Encode(Failure{e})
}

func answer(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }

// nobody is an endpoint that nobody listens on.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

func codeIn(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func TestNewRefuses(t *testing.T) {
	for _, tc := range []struct {
		cfg  Config
		want string
	}{
		{Config{}, "no endpoint"},
		{Config{Endpoints: []string{"localhost:8443"}}, "want a URL such as"},
		{Config{Endpoints: []string{"ftp://localhost"}}, "want a URL such as"},
		{Config{Endpoints: []string{"https://me:secret@host"}}, "a token comes from a file"},
		{Config{Endpoints: []string{"https://host?token=secret"}}, "a token comes from a file"},
		{Config{Endpoints: []string{"http://10.0.0.1:8443"}}, "want https"},
		{Config{Endpoints: []string{"http://localhost:8443"}}, ""},
		{Config{Endpoints: []string{"http://[::1]:8443"}}, ""},
		{Config{Endpoints: []string{"http://10.0.0.1:8443"}, Insecure: true}, ""},
	} {
		_, err := New(tc.cfg)
		if (err == nil) != (tc.want == "") || err != nil && (!strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%v: %v, want %q and no secret", tc.cfg.Endpoints, err, tc.want)
		}
	}
}

func TestReadToken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	for content, want := range map[string]string{"abc\n": "abc", " abc ": "abc", "": "", "two words": "", "two\nlines": ""} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := ReadToken(path)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v, want %q", content, got, err, want)
		}
	}
	if _, err := ReadToken(path + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// TestEndpointsInTurn: one is gone, one knows no leader, the third answers, and is asked first from then on.
func TestEndpointsInTurn(t *testing.T) {
	var second, third atomic.Int32
	b := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		second.Add(1)
		refuse(w, NoLeader)
	})
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		third.Add(1)
		if r.Header.Get("Authorization") != "Bearer sesame" {
			refuse(w, Unauthorized)
			return
		}
		answer(w, Experiment{Meta: Kind("Experiment"), Name: r.URL.Path})
	})
	client := dial(t, Config{Endpoints: []string{nobody(t), b, c}, Token: "sesame"})
	for range 3 {
		e, err := client.Submit(t.Context(), Submit{})
		if err != nil || e.Name != "/v1/experiments" {
			t.Fatalf("%+v, %v", e, err)
		}
	}
	if second.Load() != 1 || third.Load() != 3 {
		t.Errorf("asked %d and %d times, want 1 and 3", second.Load(), third.Load())
	}
}

// TestErrors: what a coordinator says is what the caller gets, and the codes are those of the program's exit.
func TestErrors(t *testing.T) {
	for code, exit := range map[Code]int{NotFound: 3, Conflict: 4, Unauthorized: 5, Forbidden: 5, NoLeader: 6, Unavailable: 6, Timeout: 7, Invalid: 1, OverQuota: 1, Internal: 1} {
		url := serve(t, func(w http.ResponseWriter, _ *http.Request) { refuse(w, code) })
		client := dial(t, Config{Endpoints: []string{url}, Patience: time.Millisecond})
		_, err := client.CreateToken(t.Context(), CreateToken{})
		var e *Error
		if !errors.As(err, &e) || e.Code != code || e.Code.Exit() != exit || e.Message != "because of "+string(code) || e.Status == 0 {
			t.Errorf("%s: %+v of status %v", code, err, e)
		}
	}
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", http.StatusBadGateway) })
	if _, err := dial(t, Config{Endpoints: []string{url}, Patience: time.Millisecond}).Tokens(t.Context()); codeIn(err) != Unavailable || !strings.Contains(err.Error(), "502") {
		t.Errorf("a proxy's error: %v", err)
	}
	for _, status := range []int{302, 400, 401, 403, 404, 413, 422} { // a replica ends for good where a coordinator says so
		url = serve(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, `{"error": "no"}`, status) })
		if _, err := dial(t, Config{Endpoints: []string{url}}).Tokens(t.Context()); codeIn(err) != Unavailable || !strings.Contains(err.Error(), "not an answer of a coordinator") {
			t.Errorf("a proxy's %d: %v, want it unavailable", status, err)
		}
	}
	url = serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{") })
	if _, err := dial(t, Config{Endpoints: []string{url}}).Tokens(t.Context()); codeIn(err) != Timeout {
		t.Errorf("half an answer: %v, want a timeout: it may have been done", err)
	}
}

// TestNothingIsDoneTwice: when the connection breaks in the middle, only what may be repeated is.
func TestNothingIsDoneTwice(t *testing.T) {
	var asked atomic.Int32
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) == 1 {
			panic(http.ErrAbortHandler)
		}
		answer(w, NewToken{Secret: "s"})
	})
	client := dial(t, Config{Endpoints: []string{url}})
	if _, err := client.CreateToken(t.Context(), CreateToken{}); codeIn(err) != Unavailable || asked.Load() != 1 {
		t.Errorf("a token: %v after %d requests, want an error after one", err, asked.Load())
	}
	asked.Store(0)
	if _, err := client.Submit(t.Context(), Submit{}); err != nil || asked.Load() != 2 {
		t.Errorf("an experiment: %v after %d requests, want it done by the second", err, asked.Load())
	}
	asked.Store(0)
	if _, err := client.Patch(t.Context(), "x", Patch{}, 7); err == nil || asked.Load() != 1 {
		t.Errorf("a compare-and-set: %v after %d requests, want an error after one", err, asked.Load())
	}
}

// TestSubmitRepeatsItsUID so that the coordinators know the repetition.
func TestSubmitRepeatsItsUID(t *testing.T) {
	var uids []string
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var s Submit
		_ = json.NewDecoder(r.Body).Decode(&s)
		if uids = append(uids, s.UID); len(uids) < 3 {
			refuse(w, NoLeader)
			return
		}
		answer(w, Experiment{UID: s.UID})
	})
	e, err := dial(t, Config{Endpoints: []string{url}}).Submit(t.Context(), Submit{})
	if err != nil || len(e.UID) != 32 || len(slices.Compact(uids)) != 1 {
		t.Errorf("%+v, %v, uids %v, want the same three times", e, err, uids)
	}
}

func TestPatienceEnds(t *testing.T) {
	client := dial(t, Config{Endpoints: []string{nobody(t)}, Patience: 100 * time.Millisecond})
	if _, err := client.Tokens(t.Context()); codeIn(err) != Unavailable || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("nobody there: %v, want it unavailable and why", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := dial(t, Config{Endpoints: []string{nobody(t)}, Patience: -1}).Tokens(ctx); codeIn(err) != Timeout || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody there for as long as it takes: %v, want a timeout and why", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if _, err := client.Tokens(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that is over: %v", err)
	}
}

// TestSilence: a coordinator that hangs is given up for another.
func TestSilence(t *testing.T) {
	hangs := serve(t, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	works := serve(t, func(w http.ResponseWriter, _ *http.Request) { answer(w, Build{Node: "b"}) })
	client := dial(t, Config{Endpoints: []string{hangs, works}, Silence: 50 * time.Millisecond})
	if b, err := client.Build(t.Context()); err != nil || b.Node != "b" {
		t.Errorf("%+v, %v", b, err)
	}
	alone := dial(t, Config{Endpoints: []string{hangs}, Silence: 20 * time.Millisecond, Patience: 50 * time.Millisecond})
	if _, err := alone.Build(t.Context()); codeIn(err) != Unavailable || !strings.Contains(err.Error(), "silent for 20ms") {
		t.Errorf("%v, want it to say that nobody spoke", err)
	}
}

func TestUntrustedCertificate(t *testing.T) {
	var asked atomic.Int32
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	srv.Config.ErrorLog = nil
	srv.StartTLS()
	defer srv.Close()
	client := dial(t, Config{Endpoints: []string{srv.URL}, Token: "secret"})
	if _, err := client.Tokens(t.Context()); codeIn(err) != Unavailable || !strings.Contains(err.Error(), "certificate") || asked.Load() != 0 {
		t.Errorf("%v, want it refused at once", err)
	}
	trusting := dial(t, Config{Endpoints: []string{srv.URL}, TLS: srv.Client().Transport.(*http.Transport).TLSClientConfig})
	if err := trusting.RevokeToken(t.Context(), "x"); err != nil {
		t.Errorf("with its certificate: %v", err)
	}
}

// TestRedirectsAreNotFollowed: the token is for nobody else.
func TestRedirectsAreNotFollowed(t *testing.T) {
	var told atomic.Bool
	elsewhere := serve(t, func(_ http.ResponseWriter, r *http.Request) { told.Store(r.Header.Get("Authorization") != "") })
	url := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere, http.StatusFound) })
	if _, err := dial(t, Config{Endpoints: []string{url}, Token: "secret"}).Tokens(t.Context()); err == nil || told.Load() {
		t.Errorf("%v, and told elsewhere: %v", err, told.Load())
	}
}

// TestNamesAreEscaped wherever they are part of a path.
func TestNamesAreEscaped(t *testing.T) {
	var path string
	url := serve(t, func(w http.ResponseWriter, r *http.Request) { path = r.URL.EscapedPath() })
	client := dial(t, Config{Endpoints: []string{url + "/below/"}})
	_ = client.Drain(t.Context(), "a/b?c", "..")
	if want := "/below/v1/experiments/a%2Fb%3Fc/replicas/../drain"; path != want {
		t.Errorf("%s, want %s", path, want)
	}
}

// TestBlobGoesOn where the connection broke off, and is checked.
func TestBlobGoesOn(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 10_000)
	digest := fmt.Sprintf("%x", sha256.Sum256(data))
	var ranges []string
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		ranges = append(ranges, r.Header.Get("Range"))
		rest := data
		if at := 0; r.Header.Get("Range") != "" {
			_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &at)
			rest = data[at:]
			w.Header().Set("Content-Length", fmt.Sprint(len(rest)))
			w.WriteHeader(http.StatusPartialContent)
		}
		if len(rest) > 30_000 {
			_, _ = w.Write(rest[:30_000])
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write(rest)
	})
	client := dial(t, Config{Endpoints: []string{url}})
	var got bytes.Buffer
	if n, err := client.Blob(t.Context(), digest, &got); err != nil || n != int64(len(data)) || !bytes.Equal(got.Bytes(), data) {
		t.Errorf("%d bytes, %v, by %v", n, err, ranges)
	}
	if want := []string{"", "bytes=30000-", "bytes=60000-", "bytes=90000-"}; !slices.Equal(ranges, want) {
		t.Errorf("asked for %q, want %q", ranges, want)
	}
	other := fmt.Sprintf("%x", sha256.Sum256(nil))
	if _, err := client.Blob(t.Context(), other, io.Discard); err == nil || !strings.Contains(err.Error(), "digest") {
		t.Errorf("other bytes: %v, want them refused", err)
	}
	broken := errors.New("disk full")
	if _, err := client.Blob(t.Context(), digest, failing{broken}); !errors.Is(err, broken) {
		t.Errorf("a writer that fails: %v, want its error", err)
	}
	if _, err := client.Blob(t.Context(), "xyz", io.Discard); codeIn(err) != Invalid {
		t.Errorf("no digest: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// TestPutBlobSparesWhatIsThere: the bytes go only to a coordinator that wants them, all of them at every attempt.
func TestPutBlobSparesWhatIsThere(t *testing.T) {
	const data = "all the bytes"
	var wanted, got atomic.Int32
	has := true
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if has {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		if body, _ := io.ReadAll(r.Body); string(body) == data {
			got.Add(1)
		}
		if wanted.Add(1) == 1 {
			refuse(w, NoLeader)
		}
	})
	opened := 0
	open := func() (io.ReadCloser, error) {
		opened++
		return io.NopCloser(strings.NewReader(data)), nil
	}
	client := dial(t, Config{Endpoints: []string{url}})
	if err := client.PutBlob(t.Context(), "d", int64(len(data)), open); err != nil || got.Load() != 0 {
		t.Errorf("one that is there: %v, sent %d times", err, got.Load())
	}
	has = false
	if err := client.PutBlob(t.Context(), "d", int64(len(data)), open); err != nil || got.Load() != 2 || opened != 3 {
		t.Errorf("a new one: %v, arrived %d times, opened %d times, want 2 and 3", err, got.Load(), opened)
	}
}

// TestFollowing: a stream that breaks off goes on behind the last line, and ends where the coordinator says so.
func TestFollowing(t *testing.T) {
	var asked []string
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RawQuery)
		w.Header().Set("Trailer", EndTrailer)
		switch len(asked) {
		case 1:
			fmt.Fprint(w, "{\"step\": 1}\n\n{\"step\": 2}\n")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case 2:
			fmt.Fprint(w, "{\"step\": 2}\n{\"step\": 3}\n") // it ends, without saying that it is over
		default:
			fmt.Fprint(w, "{\"step\": 4}\n")
			w.Header().Set(EndTrailer, "end")
		}
	})
	var steps []uint64
	for m, err := range dial(t, Config{Endpoints: []string{url}}).Metrics(t.Context(), "x", -1, true) {
		if err != nil {
			t.Fatal(err)
		}
		steps = append(steps, m.Step)
	}
	if want := []uint64{1, 2, 3, 4}; !slices.Equal(steps, want) {
		t.Errorf("steps %v, want %v", steps, want)
	}
	if want := []string{"follow=1&from=-1", "follow=1&from=2", "follow=1&from=3"}; !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
}

// TestAskUsesWhatItGets: the token is shown once, then what it was exchanged for, until that is too old.
func TestAskUsesWhatItGets(t *testing.T) {
	var shown []string
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		shown = append(shown, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		if len(shown) == 3 {
			refuse(w, Unauthorized)
			return
		}
		w.Header().Set(CredentialHeader, fmt.Sprint("c", len(shown)))
		w.WriteHeader(http.StatusNoContent)
	})
	client := dial(t, Config{Endpoints: []string{url}, Token: "token"})
	for range 3 {
		if _, ok, err := client.Ask(t.Context(), Ask{}); ok || err != nil {
			t.Errorf("%v, %v, want nothing yet", ok, err)
		}
	}
	if want := []string{"token", "c1", "c2", "token"}; !slices.Equal(shown, want) {
		t.Errorf("showed %q, want %q", shown, want)
	}
}

func TestBackupMustBeWhole(t *testing.T) {
	whole := true
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", EndTrailer)
		fmt.Fprint(w, "tar")
		if whole {
			w.Header().Set(EndTrailer, "whole")
		}
	})
	client := dial(t, Config{Endpoints: []string{url}})
	if n, err := client.Backup(t.Context(), io.Discard); n != 3 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	whole = false
	if _, err := client.Backup(t.Context(), io.Discard); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("half of one: %v", err)
	}
}

func ExampleError() {
	err := error(Errorf(NotFound, "no experiment %q", "moons"))
	var refused *Error
	if errors.As(err, &refused) {
		fmt.Println(refused, "- exit", refused.Code.Exit())
	}
	// Output: no experiment "moons" - exit 3
}

// Blobs of an upload that takes longer than they are kept are all there at its end.
func TestLongUploadsAreRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		digests := []string{"a", "b", "c", "d", "e"}
		last, times := map[string]time.Time{}, map[string]int{}
		err := renewed(digests, func(digest string) error {
			if times[digest]++; times[digest] == 1 { // the next time it need not be sent
				time.Sleep(3 * time.Minute)
			}
			if age := time.Since(last[digest]); times[digest] > 1 && age > kept {
				t.Errorf("blob %s is put again after %v, when it may be gone", digest, age)
			}
			last[digest] = time.Now()
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, digest := range digests {
			if age := time.Since(last[digest]); age > kept/2 {
				t.Errorf("blob %s is %v old, want at most %v", digest, age, kept/2)
			}
		}
		failure := errors.New("no")
		if err := renewed(digests, func(string) error { return failure }); !errors.Is(err, failure) {
			t.Errorf("error %v, want that of the upload", err)
		}
	})
}
