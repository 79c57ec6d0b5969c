package checkpoint_test

import (
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kelvin-ebm/kelvin/pkg/checkpoint"
)

func sample() checkpoint.Cut {
	return checkpoint.Cut{Step: 300, Meta: []byte(`{"seed": 7}`), Files: map[string][]checkpoint.Tensor{
		"params": {{Name: "w", Shape: []int{2}, Data: []float32{1, -2}}},
		"chains": {{Name: "labels", Shape: []int{2}, Data: []int32{1, 0}}, {Name: "live", Shape: []int{3}, Data: []float32{4, 5, 6}}},
	}}
}

// Blobs are the very files of a store, so that either can be made from the other.
func TestBlobsAreTheFilesOfAStore(t *testing.T) {
	dir := t.TempDir()
	want, err := (checkpoint.Store{Dir: dir}).Save(sample())
	if err != nil {
		t.Fatal(err)
	}
	blobs, digest, err := sample().Blobs()
	if err != nil {
		t.Fatal(err)
	}
	if digest != want {
		t.Errorf("digest %s, the store's is %s", digest, want)
	}
	byHash := map[[sha256.Size]byte][]byte{}
	for _, b := range blobs {
		file, err := os.ReadFile(filepath.Join(dir, "00000300", b.Name))
		if err != nil {
			t.Fatal(err)
		}
		if string(file) != string(b.Data) || sha256.Sum256(file) != b.SHA256 {
			t.Errorf("%s differs from the file of the store", b.Name)
		}
		byHash[b.SHA256] = b.Data
	}
	last := blobs[len(blobs)-1]
	if last.Name != checkpoint.Manifest {
		t.Fatalf("the last blob is %s, want the manifest", last.Name)
	}
	open := func(_ string, sum [sha256.Size]byte) ([]byte, error) { return byHash[sum], nil }
	cut, err := checkpoint.FromBlobs(last.Data, open)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sample().Files, cut.Files); diff != "" || cut.Digest != digest || cut.Step != 300 {
		t.Errorf("step %d, digest %s, files (-want +got):\n%s", cut.Step, cut.Digest, diff)
	}
}

func TestFromBlobsRefuses(t *testing.T) {
	blobs, _, err := sample().Blobs()
	if err != nil {
		t.Fatal(err)
	}
	manifest := blobs[len(blobs)-1].Data
	whole := func(name string, _ [sha256.Size]byte) ([]byte, error) {
		for _, b := range blobs {
			if b.Name == name {
				return b.Data, nil
			}
		}
		return nil, errors.New("no such blob")
	}
	for _, tc := range []struct {
		name     string
		manifest []byte
		open     func(string, [sha256.Size]byte) ([]byte, error)
		want     string
	}{
		{"a blob that is missing", manifest, func(string, [sha256.Size]byte) ([]byte, error) { return nil, errors.New("gone") }, "chains.safetensors: gone"},
		{"a blob with one bit flipped", manifest, func(name string, sum [sha256.Size]byte) ([]byte, error) {
			data, err := whole(name, sum)
			data = []byte(string(data))
			data[len(data)-1] ^= 1
			return data, err
		}, "damaged"},
		{"a manifest that was changed", []byte(strings.Replace(string(manifest), `"step": 300`, `"step": 301`, 1)), whole, "digest of the content"},
		{"a manifest that is cut off", manifest[:40], whole, "truncated or damaged"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := checkpoint.FromBlobs(tc.manifest, tc.open); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one that says %q", err, tc.want)
			}
		})
	}
}

// A store adopts files that lie elsewhere, by links, and has then what Save would have made.
func TestAdopt(t *testing.T) {
	blobs, want, err := sample().Blobs()
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, store := t.TempDir(), checkpoint.Store{Dir: filepath.Join(t.TempDir(), "cuts"), Keep: 2}
	at := map[[sha256.Size]byte]string{}
	for _, b := range blobs {
		path := filepath.Join(elsewhere, b.Name)
		if err := os.WriteFile(path, b.Data, 0o644); err != nil {
			t.Fatal(err)
		}
		at[b.SHA256] = path
	}
	link := func(_ string, sum [sha256.Size]byte, path string) error { return os.Link(at[sum], path) }
	manifest := blobs[len(blobs)-1].Data
	for range 2 { // the second time changes nothing
		if digest, err := store.Adopt(manifest, link); err != nil || digest != want {
			t.Fatalf("digest %s, %v, want %s", digest, err, want)
		}
	}
	if cut, err := store.Latest(); err != nil || cut.Digest != want {
		t.Errorf("latest: %v, %v", cut, err)
	}
	failing := func(string, [sha256.Size]byte, string) error { return errors.New("no room") }
	other := sample()
	other.Step = 301
	more, _, err := other.Blobs()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Adopt(more[len(more)-1].Data, failing); err == nil || !strings.Contains(err.Error(), "step 301: chains.safetensors: no room") {
		t.Errorf("error %v, want one that names the file", err)
	}
	if steps, err := store.Steps(); err != nil || len(steps) != 1 {
		t.Errorf("steps %v, %v after a failure, want the one of before", steps, err)
	}
}
