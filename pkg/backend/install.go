package backend

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/gomlx/go-xla/pkg/installer"

	"github.com/kelvin-ebm/kelvin/pkg/internal/atomicfile"
)

// Fetch opens a wheel for download and says how many bytes will come, or −1. It must honour ctx.
type Fetch func(ctx context.Context, w Wheel) (body io.ReadCloser, size int64, err error)

// InstallOptions says what [Install] installs, from where and to where.
type InstallOptions struct {
	Flavor   string    // cpu or cuda13
	From     string    // a wheel on disk; empty: download
	Dir      string    // the folder to install to; empty: InstallDir
	Progress io.Writer // bar or lines; nil: nowhere
	Fetch    Fetch     // nil: the Python package index

	wheel *Wheel // tests bring their own lock
}

// Installed is a plugin that [Install] has put in place, or found there.
type Installed struct {
	Wheel   Wheel
	Plugin  Plugin
	Already bool // it was there, with the right hash
	Elapsed time.Duration
}

// Install puts a pinned plugin in place: fetched, checked by its hash, unpacked and checked again. The plugin appears in
// one step, so that nothing half-written is left behind by an error, a full disk or an interruption, and two processes may
// install at once.
func Install(ctx context.Context, o InstallOptions) (done Installed, err error) {
	start := time.Now()
	defer func() { done.Elapsed = time.Since(start) }()
	w := o.wheel
	if w == nil {
		found, err := wheelFor(o.Flavor)
		if err != nil {
			return done, fmt.Errorf("install: %w", err)
		}
		w = &found
	}
	done.Wheel = *w
	if w.OS != runtime.GOOS || w.Arch != runtime.GOARCH {
		return done, fmt.Errorf("install %s: made for %s/%s, this is %s/%s; use backend kind go", w, w.OS, w.Arch, runtime.GOOS, runtime.GOARCH)
	}
	dir := o.Dir
	if dir == "" {
		if dir, err = InstallDir(); err != nil {
			return done, fmt.Errorf("install %s: %w", w, err)
		}
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return done, fmt.Errorf("install %s: %w", w, err)
	}
	target := filepath.Join(dir, filepath.FromSlash(w.Library))
	done.Plugin = Plugin{Kind: pluginKind(target), Path: target, Size: w.LibrarySize}

	if o.From != "" { // checked even where nothing has to be done: a wrong file is worth a word
		if err := checkWheel(ctx, o.From, *w); err != nil {
			return done, fmt.Errorf("install %s: %w", w, err)
		}
	}
	if info, err := os.Stat(target); err == nil && info.Size() == w.LibrarySize {
		if sum, _, err := done.Plugin.Verify(); err == nil && sum == w.LibrarySHA256 {
			done.Already = true
			return done, nil
		}
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return done, fmt.Errorf("install %s: %w (another folder: --dir)", w, err)
	}
	removeStale(filepath.Dir(target))
	wheelPath, shown := o.From, o.From
	if wheelPath == "" {
		shown = w.File
		if wheelPath, err = download(ctx, o, *w, filepath.Dir(target)); err != nil {
			return done, fmt.Errorf("install %s: %w", w, err)
		}
		defer func() { err = errors.Join(err, os.Remove(wheelPath)) }()
	}
	if err := unpack(ctx, o.Progress, wheelPath, shown, *w, target); err != nil {
		return done, fmt.Errorf("install %s: %w", w, err)
	}
	return done, nil
}

// removeStale drops what a process that was killed in the middle of an install has left.
func removeStale(dir string) {
	files, _ := filepath.Glob(filepath.Join(dir, atomicfile.TempPrefix+"*"))
	for _, f := range files {
		if info, err := os.Stat(f); err == nil && time.Since(info.ModTime()) > 24*time.Hour {
			os.Remove(f) // if it cannot be removed it does no harm
		}
	}
}

// download fetches the wheel to a temporary file beside the target and checks its hash.
func download(ctx context.Context, o InstallOptions, w Wheel, dir string) (path string, err error) {
	fetch := o.Fetch
	if fetch == nil {
		fetch = FetchWheel
	}
	f, err := os.CreateTemp(dir, atomicfile.TempPrefix+"*.whl")
	if err != nil {
		return "", fmt.Errorf("%w (another folder: --dir)", err)
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	body, size, err := fetch(ctx, w)
	if err != nil {
		return "", &fetchError{w, err}
	}
	defer body.Close()
	if size < 0 {
		size = w.Size
	}
	bar := newBar(o.Progress, fmt.Sprintf("%s (sha256 %.12s…)", w, w.SHA256), size)
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(&diskWriter{w: f}, h), bar.reader(contextReader{ctx, body}))
	bar.finish(err)
	if disk := (*diskError)(nil); errors.As(err, &disk) {
		return "", fmt.Errorf("write to %s: %w", dir, disk.error)
	}
	if err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", &fetchError{w, fmt.Errorf("after %d of %d bytes: %w", n, size, err)}
	}
	return f.Name(), compareHash(w.File+" as downloaded", w, n, h.Sum(nil))
}

// fetchError is a download that failed; another machine's pip can bring the file.
type fetchError struct {
	wheel Wheel
	err   error
}

func (e *fetchError) Unwrap() error { return e.err }

func (e *fetchError) Error() string {
	return fmt.Sprintf("download: %v; without a network here, or behind a mirror: `%s`, then `coordinator backend install %s --from %s`",
		e.err, e.wheel.Download(), e.wheel.Flavor, e.wheel.File)
}

// checkWheel compares the hash of a wheel on disk.
func checkWheel(ctx context.Context, path string, w Wheel) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, contextReader{ctx, f})
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return compareHash(path, w, n, h.Sum(nil))
}

func compareHash(file string, w Wheel, n int64, sum []byte) error {
	got := hex.EncodeToString(sum)
	if got == w.SHA256 {
		return nil
	}
	hint := ""
	if n < w.Size {
		hint = fmt.Sprintf(" (%d of %d bytes: cut off?)", n, w.Size)
	}
	return fmt.Errorf("%s: sha256 %s, want %s%s; get it again: `%s`", file, got, w.SHA256, hint, w.Download())
}

// unpack writes the plugin of a wheel to target. shown is the wheel's name in errors.
func unpack(ctx context.Context, progress io.Writer, wheel, shown string, w Wheel, target string) error {
	z, err := zip.OpenReader(wheel)
	if err != nil {
		return fmt.Errorf("open %s: %w", shown, err)
	}
	defer z.Close()
	member, err := z.Open(w.Member)
	if err != nil {
		return fmt.Errorf("%s: no %s in it: %w", shown, w.Member, err)
	}
	defer member.Close()
	return atomicfile.Write(target, 0o755, func(out io.Writer) error {
		bar := newBar(progress, "unpack to "+target, w.LibrarySize)
		h := sha256.New()
		_, err := io.Copy(io.MultiWriter(out, h), bar.reader(contextReader{ctx, member}))
		bar.finish(err)
		if err != nil {
			return err
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != w.LibrarySHA256 {
			return fmt.Errorf("%s in %s: sha256 %s, want %s", w.Member, shown, got, w.LibrarySHA256)
		}
		return nil
	})
}

// lookupTimeout bounds the question to the package index, so that a dead network does not hold up a run that can go on
// without the plugin.
const lookupTimeout = 30 * time.Second

// FetchWheel fetches a wheel from the Python package index. The file is looked up by go-xla's installer and must be the
// pinned one.
func FetchWheel(ctx context.Context, w Wheel) (io.ReadCloser, int64, error) {
	type answer struct {
		info *installer.PipPackageInfo
		err  error
	}
	answers := make(chan answer, 1)
	go func() { // the installer takes no context
		info, err := installer.GetPipInfo(w.Name)
		answers <- answer{info, err}
	}()
	var a answer
	select {
	case a = <-answers:
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	case <-time.After(lookupTimeout):
		return nil, 0, fmt.Errorf("no answer about %s in %s", w.Name, lookupTimeout)
	}
	if a.err != nil {
		return nil, 0, firstLine(a.err)
	}
	release, err := installer.PipSelectRelease(a.info.Releases[w.Version], installer.PipPackageLinuxAMD64(), false)
	if err != nil {
		return nil, 0, fmt.Errorf("%s is not offered: %w", w, firstLine(err))
	}
	if sum := release.Digests["sha256"]; release.Filename != w.File || sum != "" && sum != w.SHA256 {
		return nil, 0, fmt.Errorf("%s is offered as %s (sha256 %s), want %s (sha256 %s)", w, release.Filename, sum, w.File, w.SHA256)
	}
	if address, err := url.Parse(release.URL); err != nil || !address.IsAbs() {
		return nil, 0, fmt.Errorf("the package index gives no full address for %s, as some mirrors do", w.File)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, release.URL, nil)
	if err != nil {
		return nil, 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, 0, err
	}
	if response.StatusCode != http.StatusOK {
		response.Body.Close()
		return nil, 0, fmt.Errorf("%s: %s", release.URL, response.Status)
	}
	return response.Body, response.ContentLength, nil
}

// contextReader stops reading when ctx ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// diskWriter marks errors of the disk, so that they are not taken for the network's.
type diskWriter struct{ w io.Writer }

type diskError struct{ error }

func (d *diskWriter) Write(p []byte) (int, error) {
	n, err := d.w.Write(p)
	if err != nil {
		return n, &diskError{err}
	}
	return n, nil
}
