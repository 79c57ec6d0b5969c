package backend

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/internal/atomicfile"
)

// fakeWheel is a small wheel with a library in it, and its pin.
func fakeWheel(t *testing.T) (Wheel, []byte) {
	t.Helper()
	library := append(elfHeader(t), bytes.Repeat([]byte("plugin "), 20_000)...)
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	for name, data := range map[string][]byte{"pkg/__init__.py": nil, "pkg/lib.so": library} {
		f, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	sum := func(data []byte) string { s := sha256.Sum256(data); return hex.EncodeToString(s[:]) }
	return Wheel{
		Flavor: "cpu", Name: "fake-pjrt", Version: "1.2.3", File: "fake_pjrt-1.2.3.whl", SHA256: sum(buf.Bytes()), Size: int64(buf.Len()),
		Member: "pkg/lib.so", Library: "pjrt_c_api_cpu_plugin.so", LibrarySHA256: sum(library), LibrarySize: int64(len(library)),
		OS: runtime.GOOS, Arch: runtime.GOARCH,
	}, buf.Bytes()
}

func serve(data []byte) Fetch {
	return func(context.Context, Wheel) (io.ReadCloser, int64, error) {
		return io.NopCloser(bytes.NewReader(data)), int64(len(data)), nil
	}
}

// left are the files in a folder and those below.
func left(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return files
}

func TestInstallDownloadsChecksAndUnpacks(t *testing.T) {
	w, wheel := fakeWheel(t)
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	var progress bytes.Buffer
	o := InstallOptions{Dir: dir, Progress: &progress, Fetch: serve(wheel), wheel: &w}
	done, err := Install(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	if sum, _, err := done.Plugin.Verify(); err != nil || sum != w.LibrarySHA256 || done.Already {
		t.Errorf("sha256 %s, %v, already %v", sum, err, done.Already)
	}
	if files := left(t, dir); len(files) != 1 || files[0] != done.Plugin.Path {
		t.Errorf("left behind: %v", files)
	}
	for _, part := range []string{"fake-pjrt 1.2.3", w.SHA256[:12], "MB", "done in"} {
		if !strings.Contains(progress.String(), part) {
			t.Errorf("progress lacks %q: %s", part, progress.String())
		}
	}
	o.Fetch = func(context.Context, Wheel) (io.ReadCloser, int64, error) {
		t.Error("downloaded again")
		return nil, 0, errors.New("no")
	}
	if done, err = Install(context.Background(), o); err != nil || !done.Already {
		t.Errorf("second time: %+v, %v", done, err)
	}
	// A damaged plugin is replaced.
	writeFile(t, dir, w.Library, bytes.Repeat([]byte("x"), int(w.LibrarySize)))
	o.Fetch = serve(wheel)
	if done, err = Install(context.Background(), o); err != nil || done.Already {
		t.Errorf("over a damaged one: %+v, %v", done, err)
	}
}

func TestInstallLeavesNothingHalfWritten(t *testing.T) {
	w, wheel := fakeWheel(t)
	wrong := bytes.Clone(wheel)
	wrong[len(wrong)/2] ^= 1
	noMember := w
	noMember.Member = "pkg/other.so"
	otherLibrary := w
	otherLibrary.LibrarySHA256 = strings.Repeat("0", 64)
	notZip := w
	notZip.SHA256 = fmt.Sprintf("%x", sha256.Sum256([]byte("no archive")))
	elsewhere := w
	elsewhere.OS = "plan9"
	failing := func(err error) Fetch {
		return func(context.Context, Wheel) (io.ReadCloser, int64, error) {
			return io.NopCloser(io.MultiReader(bytes.NewReader(wheel[:1000]), errorReader{err})), -1, nil
		}
	}
	for _, tc := range []struct {
		name  string
		wheel Wheel
		fetch Fetch
		want  []string
	}{
		{"wrong hash", w, serve(wrong), []string{"as downloaded", "want " + w.SHA256, "pip download --no-deps fake-pjrt==1.2.3"}},
		{"truncated", w, serve(wheel[:500]), []string{"sha256", fmt.Sprintf("500 of %d bytes: cut off?", w.Size)}},
		{"connection lost", w, failing(errors.New("connection reset")), []string{"after 1000 of", "connection reset", "--from fake_pjrt-1.2.3.whl"}},
		{"not offered", w, func(context.Context, Wheel) (io.ReadCloser, int64, error) {
			return nil, 0, errors.New("403 Forbidden")
		}, []string{"403 Forbidden", "pip download"}},
		{"not an archive", notZip, serve([]byte("no archive")), []string{"zip"}},
		{"no plugin in it", noMember, serve(wheel), []string{"pkg/other.so"}},
		{"wrong plugin in it", otherLibrary, serve(wheel), []string{"sha256 " + w.LibrarySHA256, "want 0000"}},
		{"another system", elsewhere, serve(wheel), []string{"made for plan9/"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			old := writeFile(t, dir, w.Library, []byte("the one from before"))
			_, err := Install(context.Background(), InstallOptions{Dir: dir, Fetch: tc.fetch, wheel: &tc.wheel})
			if err == nil {
				t.Fatal("no error")
			}
			for _, part := range tc.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q lacks %q", err, part)
				}
			}
			if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), atomicfile.TempPrefix) {
				t.Errorf("not one line for a reader: %q", err)
			}
			if files := left(t, dir); len(files) != 1 || files[0] != old {
				t.Errorf("left behind: %v", files)
			}
			if data, _ := os.ReadFile(old); string(data) != "the one from before" {
				t.Error("the plugin from before was touched")
			}
		})
	}
}

type errorReader struct{ err error }

func (e errorReader) Read([]byte) (int, error) { return 0, e.err }

func TestInstallStopsWhenInterrupted(t *testing.T) {
	w, wheel := fakeWheel(t)
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	stop := readerFunc(func(p []byte) (int, error) { cancel(); return 0, nil })
	_, err := Install(ctx, InstallOptions{Dir: dir, wheel: &w, Fetch: func(context.Context, Wheel) (io.ReadCloser, int64, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(wheel[:100]), stop)), -1, nil
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if files := left(t, dir); len(files) != 0 {
		t.Errorf("left behind: %v", files)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestInstallFromAFileOnDisk(t *testing.T) {
	w, wheel := fakeWheel(t)
	files, dir := t.TempDir(), t.TempDir()
	good, bad := writeFile(t, files, w.File, wheel), writeFile(t, files, "bad.whl", wheel[:len(wheel)-1])
	install := func(from string) (Installed, error) {
		return Install(context.Background(), InstallOptions{From: from, Dir: dir, wheel: &w, Fetch: func(context.Context, Wheel) (io.ReadCloser, int64, error) {
			t.Error("downloaded")
			return nil, 0, errors.New("no")
		}})
	}
	if _, err := install(bad); err == nil || !strings.Contains(err.Error(), bad+": sha256 ") || !strings.Contains(err.Error(), "want "+w.SHA256) {
		t.Errorf("wrong hash: got %v, want file, got and want", err)
	}
	if _, err := install(filepath.Join(files, "none.whl")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: got %v", err)
	}
	if done, err := install(good); err != nil || done.Already {
		t.Errorf("good: %+v, %v", done, err)
	}
	if left := left(t, files); len(left) != 2 {
		t.Errorf("the wheel on disk is gone: %v", left)
	}
	if _, err := install(bad); err == nil {
		t.Error("a wrong file passed because the plugin is there already")
	}
}

func TestTwoInstallsAtOnce(t *testing.T) {
	w, wheel := fakeWheel(t)
	dir := t.TempDir()
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			if _, err := Install(context.Background(), InstallOptions{Dir: dir, Fetch: serve(wheel), wheel: &w}); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if files := left(t, dir); len(files) != 1 {
		t.Errorf("left behind: %v", files)
	}
}

// A folder under a file cannot be made, whoever asks: tests may run as root, whom permissions do not stop.
func TestInstallNamesTheFolderItCannotWrite(t *testing.T) {
	w, wheel := fakeWheel(t)
	file := writeFile(t, t.TempDir(), "file", nil)
	_, err := Install(context.Background(), InstallOptions{Dir: filepath.Join(file, "lib"), Fetch: serve(wheel), wheel: &w})
	if !errors.Is(err, syscall.ENOTDIR) || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "--dir") {
		t.Errorf("got %v, want the folder and --dir", err)
	}
}

func TestAFullDiskIsNotTakenForTheNetwork(t *testing.T) {
	full := &diskWriter{writerFunc(func(p []byte) (int, error) { return 0, syscall.ENOSPC })}
	_, err := full.Write([]byte("x"))
	if disk := (*diskError)(nil); !errors.As(err, &disk) || disk.error != syscall.ENOSPC {
		t.Errorf("got %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestUnknownFlavor(t *testing.T) {
	_, err := Install(context.Background(), InstallOptions{Flavor: "tpu"})
	if err == nil || !strings.Contains(err.Error(), `plugin "tpu", want one of cpu, cuda13`) {
		t.Errorf("got %v", err)
	}
}

func TestLockFileIsComplete(t *testing.T) {
	for _, w := range Wheels() {
		if w.Flavor == "" || w.Name == "" || w.Version == "" || len(w.SHA256) != 64 || len(w.LibrarySHA256) != 64 || w.Size < 1e6 || w.LibrarySize < w.Size {
			t.Errorf("%+v", w)
		}
		if !strings.Contains(w.File, w.Version) || !strings.HasSuffix(w.Member, ".so") || !strings.HasSuffix(w.Library, "_plugin.so") {
			t.Errorf("%+v", w)
		}
	}
}
