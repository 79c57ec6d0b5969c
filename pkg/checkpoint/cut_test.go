package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/kelvin-ebm/kelvin/pkg/internal/atomicfile"
)

func cutAt(step int) Cut {
	return Cut{
		Step: step,
		Files: map[string][]Tensor{
			"params": {{"theta", []int{3}, []float32{1, 2, float32(step)}}},
			"chains": {{"states", []int{2, 2}, []float32{1, 2, 3, 4}}, {"labels", []int{2}, []int32{1, 0}}},
		},
		Meta: json.RawMessage(`{"scan": 7, "name": "a<b"}`),
	}
}

func save(t *testing.T, s Store, cut Cut) string {
	t.Helper()
	digest, err := s.Save(cut)
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestCutRoundTrip(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "run", "cuts")}
	if _, err := s.Latest(); !errors.Is(err, ErrNoCut) {
		t.Fatalf("an empty store: %v, want ErrNoCut", err)
	}
	if err := s.Prepare(); err != nil {
		t.Fatal(err)
	}
	digest := save(t, s, cutAt(300))
	if got, want := list(t, s.Dir), []string{"00000300"}; !slices.Equal(got, want) {
		t.Fatalf("folder holds %q, want %q", got, want)
	}
	if got, want := list(t, filepath.Join(s.Dir, "00000300")), []string{"chains.safetensors", "manifest.json", "params.safetensors"}; !slices.Equal(got, want) {
		t.Errorf("cut holds %q, want %q", got, want)
	}
	got, err := s.Latest()
	if err != nil {
		t.Fatal(err)
	}
	want := cutAt(300)
	if got.Step != 300 || got.Digest != digest || len(digest) != 64 || len(got.Files) != 2 {
		t.Errorf("step %d, digest %q, %d files, want 300, %q, 2", got.Step, got.Digest, len(got.Files), digest)
	}
	for name := range want.Files {
		if !reflect.DeepEqual(byName(got.Files[name]), byName(want.Files[name])) {
			t.Errorf("%s: %v, want %v", name, got.Files[name], want.Files[name])
		}
	}
	var meta struct {
		Scan int
		Name string
	}
	if err := json.Unmarshal(got.Meta, &meta); err != nil || meta.Scan != 7 || meta.Name != "a<b" {
		t.Errorf("meta %s (%v)", got.Meta, err)
	}
}

// The digest is part of run.json and compared between machines and versions: it must not move.
func TestDigestIsOverTheContent(t *testing.T) {
	digest := save(t, Store{Dir: t.TempDir()}, cutAt(300))
	if want := "f0f5e70184fcf39df8740a7c799e2f0113a966e018e955d8e6e957b7601cc7e4"; digest != want {
		t.Errorf("digest %s, want %s", digest, want)
	}
	same := cutAt(300)
	same.Meta = json.RawMessage("{\n \"scan\":7,\"name\":\"a\\u003cb\"}")
	slices.Reverse(same.Files["chains"])
	if got := save(t, Store{Dir: t.TempDir()}, same); got != digest {
		t.Error("the spelling of the meta data or the order of the tensors moves the digest")
	}
	for name, change := range map[string]func(*Cut){
		"step":  func(c *Cut) { c.Step++ },
		"meta":  func(c *Cut) { c.Meta = nil },
		"value": func(c *Cut) { c.Files["chains"][1].Data = []int32{0, 1} },
		"shape": func(c *Cut) { c.Files["chains"][0].Shape = []int{4} },
		"name":  func(c *Cut) { c.Files["other"] = c.Files["chains"]; delete(c.Files, "chains") },
	} {
		other := cutAt(300)
		change(&other)
		if got := save(t, Store{Dir: t.TempDir()}, other); got == digest {
			t.Errorf("another %s has the same digest", name)
		}
	}
}

func TestSaveKeepsTheNewest(t *testing.T) {
	s := Store{Dir: t.TempDir(), Keep: 2}
	for _, step := range []int{0, 10, 20, 123456789} {
		save(t, s, cutAt(step))
	}
	steps, err := s.Steps()
	if err != nil || !slices.Equal(steps, []int{20, 123456789}) {
		t.Errorf("steps %v (%v), want 20 and 123456789", steps, err)
	}
	if got := list(t, s.Dir); len(got) != 2 {
		t.Errorf("folder holds %q", got)
	}
	all := Store{Dir: t.TempDir()}
	for step := range 5 {
		save(t, all, cutAt(step))
	}
	if steps, _ := all.Steps(); len(steps) != 5 {
		t.Errorf("steps %v, want all five without Keep", steps)
	}
}

func TestStepsIgnoresOtherNames(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	for _, name := range []string{"notes", "-0000001", "300", "0000000300", ".tmp-00000400", "+0000300", "00000007"} {
		if err := os.Mkdir(filepath.Join(s.Dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if steps, err := s.Steps(); err != nil || !slices.Equal(steps, []int{7}) {
		t.Errorf("steps %v (%v), want 7", steps, err)
	}
}

func TestSaveTwice(t *testing.T) {
	s := Store{Dir: t.TempDir(), Keep: 1}
	digest := save(t, s, cutAt(5))
	if again := save(t, s, cutAt(5)); again != digest {
		t.Error("the same content got another digest")
	}
	other := cutAt(5)
	other.Meta = json.RawMessage(`{}`)
	if _, err := s.Save(other); err == nil || !strings.Contains(err.Error(), "whole cut with other content") {
		t.Errorf("other content for a step: %v", err)
	}
	if cut, err := s.Load(5); err != nil || cut.Digest != digest {
		t.Errorf("the first cut is gone: %v", err)
	}
	// A damaged cut gives way.
	truncate(t, filepath.Join(s.Dir, "00000005", "params.safetensors"))
	want := save(t, s, other)
	if cut, err := s.Load(5); err != nil || cut.Digest != want {
		t.Errorf("the damaged cut was not replaced: %v", err)
	}
	if got := list(t, s.Dir); len(got) != 1 {
		t.Errorf("folder holds %q, want one cut", got)
	}
}

func truncate(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err == nil {
		err = os.Truncate(path, info.Size()-1)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestDamageIsNamedAndAnOlderCutFound(t *testing.T) {
	edit := func(name string, change func([]byte) []byte) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			path := filepath.Join(dir, name)
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, change(bytes.Clone(raw)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	replace := func(old, new string) func([]byte) []byte {
		return func(raw []byte) []byte {
			if !bytes.Contains(raw, []byte(old)) {
				panic(fmt.Sprintf("no %q to replace", old))
			}
			return bytes.ReplaceAll(raw, []byte(old), []byte(new))
		}
	}
	for _, tc := range []struct {
		name  string
		spoil func(t *testing.T, dir string)
		want  []string
	}{
		{"truncated tensors", edit("params.safetensors", func(raw []byte) []byte { return raw[:len(raw)-3] }), []string{"params.safetensors", "truncated"}},
		{"longer tensors", edit("params.safetensors", func(raw []byte) []byte { return append(raw, 0) }), []string{"params.safetensors", "damaged"}},
		{"one bit of data", edit("chains.safetensors", func(raw []byte) []byte { raw[len(raw)-1] ^= 1; return raw }), []string{"chains.safetensors", "damaged: SHA-256"}},
		{"one bit of a header", edit("chains.safetensors", func(raw []byte) []byte { raw[9] ^= 1; return raw }), []string{"chains.safetensors", "damaged: SHA-256"}},
		{"missing tensors", func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, "params.safetensors")) }, []string{"params.safetensors", "no such file"}},
		{"a folder for a file", func(t *testing.T, dir string) {
			os.Remove(filepath.Join(dir, "params.safetensors"))
			os.Mkdir(filepath.Join(dir, "params.safetensors"), 0o755)
		}, []string{"params.safetensors", "not a file"}},
		{"missing manifest", func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, "manifest.json")) }, []string{"manifest.json", "no such file"}},
		{"empty manifest", edit("manifest.json", func([]byte) []byte { return nil }), []string{"manifest.json", "truncated or damaged"}},
		{"truncated manifest", edit("manifest.json", func(raw []byte) []byte { return raw[:len(raw)/2] }), []string{"manifest.json", "truncated or damaged"}},
		{"newer format", edit("manifest.json", replace(`"format": 1`, `"format": 2`)), []string{"manifest.json", "format 2, want 1"}},
		{"edited meta", edit("manifest.json", replace(`"scan": 7`, `"scan": 8`)), []string{"manifest.json", "damaged: digest"}},
		{"edited hash", edit("manifest.json", replace(`"bytes": `, `"bytes": 1`)), []string{"manifest.json", "damaged: digest"}},
		{"another step", edit("manifest.json", replace(`"step": 20`, `"step": 21`)), []string{"manifest.json", "damaged: digest"}},
		{"unknown key", edit("manifest.json", replace(`"step": 20`, `"step": 20, "x": 1`)), []string{"manifest.json", "unknown field"}},
		{"a path out of the folder", edit("manifest.json", replace("params.safetensors", "../00000010/params.safetensors")), []string{"manifest.json", "plain name"}},
		{"a file twice", edit("manifest.json", replace("params.safetensors", "chains.safetensors")), []string{"manifest.json", "each once"}},
		{"a cut under another name", func(t *testing.T, dir string) {
			raw, err := os.ReadFile(filepath.Join(dir, "..", "00000010", "manifest.json"))
			if err != nil {
				t.Fatal(err)
			}
			os.WriteFile(filepath.Join(dir, "manifest.json"), raw, 0o644)
		}, []string{"manifest.json", "step 10, want 20"}},
		{"a file in place of a cut", func(t *testing.T, dir string) {
			os.RemoveAll(dir)
			os.WriteFile(dir, nil, 0o644)
		}, []string{"00000020", "not a directory"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := Store{Dir: t.TempDir()}
			older := save(t, s, cutAt(10))
			save(t, s, cutAt(20))
			tc.spoil(t, filepath.Join(s.Dir, "00000020"))
			_, err := s.Latest()
			for _, want := range append(tc.want, "load step 20") {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v, want %q in it", err, want)
				}
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("error of several lines: %v", err)
			}
			cut, skipped, err := s.LatestGood()
			if err != nil || cut.Digest != older || len(skipped) != 1 {
				t.Errorf("got %v, skipped %v (%v), want the cut of step 10", cut, skipped, err)
			}
		})
	}
}

func TestNoWholeCutIsLeft(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	for _, step := range []int{1, 2} {
		save(t, s, cutAt(step))
		truncate(t, filepath.Join(s.Dir, fmt.Sprintf("%08d", step), "chains.safetensors"))
	}
	cut, skipped, err := s.LatestGood()
	if cut != nil || len(skipped) != 2 || !errors.Is(err, ErrNoCut) || !strings.Contains(err.Error(), "load step 1") {
		t.Errorf("cut %v, skipped %v, error %v, want two skipped cuts and ErrNoCut", cut, skipped, err)
	}
}

// limited is a disk with room for so many bytes.
func limited(room *int) func(string, fs.FileMode, func(io.Writer) error) error {
	return func(path string, perm fs.FileMode, fill func(io.Writer) error) error {
		return atomicfile.Write(path, perm, func(w io.Writer) error { return fill(&limitedWriter{w, room, path}) })
	}
}

type limitedWriter struct {
	w    io.Writer
	room *int
	path string
}

func (l *limitedWriter) Write(p []byte) (int, error) {
	n := min(len(p), *l.room)
	*l.room -= n
	written, err := l.w.Write(p[:n])
	if err == nil && n < len(p) {
		err = &fs.PathError{Op: "write", Path: filepath.Join(filepath.Dir(l.path), atomicfile.TempPrefix+"1"), Err: syscall.ENOSPC}
	}
	return written, err
}

// Wherever a save runs out of space, the cut before it stays the newest, and nothing is left of the new one.
func TestAFullDiskLeavesTheStoreAsItWas(t *testing.T) {
	s := Store{Dir: t.TempDir(), Keep: 1}
	before := save(t, s, cutAt(1))
	failed := 0
	for room := 0; ; room += 7 {
		left := room
		s.write = limited(&left)
		_, err := s.Save(cutAt(2))
		if err == nil {
			break
		}
		failed++
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "save step 2") || strings.Contains(err.Error(), "\n") {
			t.Fatalf("room for %d bytes: %v, want one line about the disk", room, err)
		}
		if got := list(t, s.Dir); !slices.Equal(got, []string{"00000001"}) {
			t.Fatalf("room for %d bytes: folder holds %q, want the older cut alone", room, got)
		}
		if cut, err := s.Latest(); err != nil || cut.Digest != before {
			t.Fatalf("room for %d bytes: %v, want the older cut", room, err)
		}
	}
	if failed < 50 {
		t.Errorf("%d failures tried, want the whole length of a cut", failed)
	}
	if cut, err := s.Latest(); err != nil || cut.Step != 2 {
		t.Errorf("after enough room: %v", err)
	}
}

func TestAFolderThatCannotBeWrittenIsFoundBeforehand(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	none := 0
	for name, s := range map[string]Store{
		"a file on the way": {Dir: filepath.Join(file, "cuts")},
		"a file":            {Dir: file},
		"a full disk":       {Dir: filepath.Join(dir, "full"), write: limited(&none)},
		"no permission": {Dir: filepath.Join(dir, "closed"), write: func(path string, _ fs.FileMode, _ func(io.Writer) error) error {
			return &fs.PathError{Op: "open", Path: path, Err: syscall.EACCES}
		}},
	} {
		if err := s.Prepare(); err == nil || !strings.Contains(err.Error(), "checkpoint: folder for cuts: ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want one line that names the folder", name, err)
		}
		if _, err := s.Save(cutAt(1)); err == nil {
			t.Errorf("%s: saved", name)
		}
		if entries, err := os.ReadDir(s.Dir); err == nil && len(entries) > 0 {
			t.Errorf("%s: %d entries left behind", name, len(entries))
		}
	}
}

func TestPrepareAndSaveRemoveWhatACrashLeft(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	digest := save(t, s, cutAt(1))
	leave := func() {
		t.Helper()
		half := filepath.Join(s.Dir, atomicfile.TempPrefix+"00000002")
		if err := os.Mkdir(half, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(half, "params.safetensors"), []byte("half"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	leave()
	if cut, err := s.Latest(); err != nil || cut.Digest != digest {
		t.Errorf("half a cut is in the way: %v", err)
	}
	if err := s.Prepare(); err != nil {
		t.Fatal(err)
	}
	if got := list(t, s.Dir); !slices.Equal(got, []string{"00000001"}) {
		t.Errorf("after Prepare the folder holds %q", got)
	}
	leave()
	save(t, s, cutAt(2))
	if got := list(t, s.Dir); !slices.Equal(got, []string{"00000001", "00000002"}) {
		t.Errorf("after Save the folder holds %q", got)
	}
}

func TestSaveRefuses(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Cut)
		want   string
	}{
		{"a negative step", func(c *Cut) { c.Step = -1 }, "step of 0 or more"},
		{"meta that is not JSON", func(c *Cut) { c.Meta = json.RawMessage("{") }, "meta"},
		{"a path as a name", func(c *Cut) { c.Files["../x"] = nil }, `file name "../x"`},
		{"no name", func(c *Cut) { c.Files[""] = nil }, `file name ""`},
		{"a hidden name", func(c *Cut) { c.Files[".x"] = nil }, `file name ".x"`},
		{"a tensor that does not fit", func(c *Cut) { c.Files["params"][0].Shape = []int{4} }, `tensor "theta": 3 values in shape [4], want 4`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := Store{Dir: filepath.Join(t.TempDir(), "cuts")}
			cut := cutAt(1)
			tc.change(&cut)
			if _, err := s.Save(cut); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
			if entries, err := os.ReadDir(s.Dir); err == nil && len(entries) > 0 {
				t.Errorf("%d entries left behind", len(entries))
			}
		})
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"format":1,"step":3,"digest":"","files":[{"name":"a.safetensors","bytes":8,"sha256":""}],"meta":{"a":[1,null]}}`))
	f.Add([]byte(`{"format":1,"step":3,"meta":null}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := parseManifest(raw)
		if err != nil {
			return
		}
		if m.digest() != m.Digest || !json.Valid(m.Meta) {
			t.Fatalf("accepted a manifest that does not fit itself: %s", raw)
		}
	})
}
