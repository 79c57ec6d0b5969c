package checkpoint

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/kelvin-ebm/kelvin/pkg/internal/atomicfile"
)

// ErrNoCut is returned where a store holds no cut, or none that is whole.
var ErrNoCut = errors.New("no cut")

const (
	manifestName   = "manifest.json"
	extension      = ".safetensors"
	manifestFormat = 1
	maxManifest    = 64 << 20 // bytes
)

// Cut is a consistent snapshot of a training run.
type Cut struct {
	Step  int                 // optimizer steps behind the cut
	Files map[string][]Tensor // one safetensors file each, by its name without the ending
	// Meta is what does not fit arrays. It counts in the digest: no times, no places, nothing that two equal runs
	// would not share.
	Meta json.RawMessage
	// Digest is the SHA-256 of the cut's contents, in hex. Save computes it; Load returns it, verified.
	Digest string
}

// Store keeps the cuts of one run in a folder, cuts/00000300 for the cut of step 300. Only one process may save into a
// folder; any number may load. The zero Keep keeps every cut.
type Store struct {
	Dir  string
	Keep int // newest cuts that Save leaves

	// write is atomicfile.Write where nil; tests hand in disks that fail.
	write func(path string, perm fs.FileMode, fill func(io.Writer) error) error
}

// manifest is manifest.json.
type manifest struct {
	Format int             `json:"format"`
	Step   int             `json:"step"`
	Digest string          `json:"digest"`
	Files  []manifestFile  `json:"files"`
	Meta   json.RawMessage `json:"meta"`
}

type manifestFile struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// digest is over a text of its own instead of the manifest's bytes, so that a cut keeps its digest however manifests
// will be written.
func (m manifest) digest() string {
	h := sha256.New()
	fmt.Fprintf(h, "kelvin cut 1\nstep %d\n", m.Step)
	for _, f := range m.Files {
		fmt.Fprintf(h, "file %q %d %s\n", f.Name, f.Bytes, f.SHA256)
	}
	fmt.Fprintf(h, "meta %s\n", m.Meta)
	return sum(h)
}

func sum(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

func sumOf(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}

// sum is the SHA-256 of the file as the manifest has it.
func (f manifestFile) sum() (s [sha256.Size]byte, err error) {
	if n, err := hex.Decode(s[:], []byte(f.SHA256)); err != nil || n != len(s) {
		return s, fmt.Errorf("SHA-256 %q, want %d hex digits", f.SHA256, 2*len(s))
	}
	return s, nil
}

func (s Store) path(step int) string { return filepath.Join(s.Dir, fmt.Sprintf("%08d", step)) }

func (s Store) create(path string, fill func(io.Writer) error) error {
	if s.write != nil {
		return s.write(path, 0o644, fill)
	}
	return atomicfile.Write(path, 0o644, fill)
}

// Prepare makes the folder, removes what a crash left half-written, and proves that a file can be written: call it
// before training, so that an unwritable folder costs no work.
func (s Store) Prepare() error {
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return fmt.Errorf("checkpoint: folder for cuts: %w", err)
	}
	if err := s.clean(); err != nil {
		return fmt.Errorf("checkpoint: folder for cuts: %w", err)
	}
	probe := filepath.Join(s.Dir, atomicfile.TempPrefix+"probe")
	err := s.create(probe, func(w io.Writer) error {
		_, err := w.Write(make([]byte, 4096))
		return err
	})
	if err != nil {
		return fmt.Errorf("checkpoint: folder for cuts: %w", err)
	}
	return os.Remove(probe)
}

// clean removes what unfinished saves left.
func (s Store) clean() error {
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), atomicfile.TempPrefix) {
			if err := os.RemoveAll(filepath.Join(s.Dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// Sum is the digest that the cut has when it is saved.
func (c Cut) Sum() (string, error) {
	m, err := c.manifest(func(_ string, fill func(io.Writer) error) error { return fill(io.Discard) })
	if err != nil {
		return "", fmt.Errorf("checkpoint: digest of step %d: %w", c.Step, err)
	}
	return m.Digest, nil
}

// manifest describes the cut, whose files go to create one by one.
func (c Cut) manifest(create func(file string, fill func(io.Writer) error) error) (m manifest, err error) {
	m = manifest{Format: manifestFormat, Step: c.Step}
	if m.Meta, err = json.Marshal(c.Meta); err != nil { // one spelling, whoever wrote it
		return m, fmt.Errorf("meta: %w", err)
	}
	names := slices.Sorted(maps.Keys(c.Files))
	for _, name := range names {
		if !plainName(name + extension) {
			return m, fmt.Errorf("file name %q, want letters, digits, dots, dashes and underscores", name)
		}
	}
	for _, name := range names {
		file := manifestFile{Name: name + extension}
		h := sha256.New()
		err := create(file.Name, func(w io.Writer) error {
			counted := &counter{w: io.MultiWriter(w, h)}
			err := EncodeSafetensors(counted, c.Files[name], nil)
			file.Bytes = counted.n
			return err
		})
		if err != nil {
			return m, err
		}
		file.SHA256 = sum(h)
		m.Files = append(m.Files, file)
	}
	m.Digest = m.digest()
	return m, nil
}

// Save writes a cut and returns its digest. The cut appears under its name in one step when all of it is on the disk;
// after an error the store is as it was. Then cuts beyond Keep are removed, oldest first. Saving the same content again
// does nothing; other content for a step that has a whole cut is refused, and a damaged cut is replaced.
func (s Store) Save(cut Cut) (digest string, err error) {
	fail := func(err error) (string, error) { return "", fmt.Errorf("checkpoint: save step %d: %w", cut.Step, err) }
	if cut.Step < 0 {
		return fail(errors.New("want a step of 0 or more"))
	}
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return fail(err)
	}
	if err := s.clean(); err != nil {
		return fail(err)
	}
	m, err := s.fill(cut.Step, func(temp string) (manifest, error) {
		m, err := cut.manifest(func(file string, fill func(io.Writer) error) error { return s.create(filepath.Join(temp, file), fill) })
		if err != nil {
			return m, err
		}
		text, err := m.text()
		if err != nil {
			return m, err
		}
		return m, s.create(filepath.Join(temp, manifestName), func(w io.Writer) error {
			_, err := w.Write(text)
			return err
		})
	})
	if err != nil {
		return fail(err)
	}
	return m.Digest, nil
}

// Adopt is Save for a cut whose files are somewhere already: place puts the one with a SHA-256 at a path, by a link for
// example, and is trusted to have verified it.
func (s Store) Adopt(text []byte, place func(file string, sha256 [sha256.Size]byte, path string) error) (digest string, err error) {
	m, err := parseManifest(text)
	if err != nil {
		return "", fmt.Errorf("checkpoint: adopt: %w", err)
	}
	fail := func(err error) (string, error) { return "", fmt.Errorf("checkpoint: adopt step %d: %w", m.Step, err) }
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return fail(err)
	}
	if err := s.clean(); err != nil {
		return fail(err)
	}
	_, err = s.fill(m.Step, func(temp string) (manifest, error) {
		for _, file := range append(slices.Clip(m.Files), manifestFile{Name: manifestName, SHA256: sumOf(text)}) {
			want, err := file.sum()
			if err == nil {
				err = place(file.Name, want, filepath.Join(temp, file.Name))
			}
			if err != nil {
				return m, fmt.Errorf("%s: %w", file.Name, err)
			}
		}
		return m, atomicfile.SyncDir(temp)
	})
	if err != nil {
		return fail(err)
	}
	return m.Digest, nil
}

// fill makes the folder of a step aside, gives it its name when it is full, and removes cuts beyond Keep.
func (s Store) fill(step int, into func(temp string) (manifest, error)) (m manifest, err error) {
	temp := filepath.Join(s.Dir, fmt.Sprintf("%s%08d", atomicfile.TempPrefix, step))
	if err := os.Mkdir(temp, 0o755); err != nil {
		return m, err
	}
	defer func() {
		if rest := os.RemoveAll(temp); err == nil {
			err = rest
		}
	}()
	if m, err = into(temp); err != nil {
		return m, err
	}
	if err := s.publish(temp, m); err != nil {
		return m, err
	}
	return m, s.prune(step)
}

// publish gives the finished folder its name.
func (s Store) publish(temp string, m manifest) error {
	final := s.path(m.Step)
	if _, err := os.Lstat(final); err == nil {
		there, err := s.Load(m.Step)
		if err == nil && there.Digest == m.Digest {
			return nil
		}
		if err == nil {
			return fmt.Errorf("%s holds a whole cut with other content: digest %.12s, this one %.12s", final, there.Digest, m.Digest)
		}
		damaged := filepath.Join(s.Dir, atomicfile.TempPrefix+"damaged")
		if err := os.Rename(final, damaged); err != nil {
			return err
		}
		defer os.RemoveAll(damaged) // the next Save or Prepare removes what may be left
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(temp, final); err != nil {
		return err
	}
	return atomicfile.SyncDir(s.Dir)
}

// prune leaves the Keep newest cuts up to step last, which was just saved.
func (s Store) prune(last int) error {
	if s.Keep < 1 {
		return nil
	}
	steps, err := s.Steps()
	if err != nil {
		return err
	}
	steps = slices.DeleteFunc(steps, func(step int) bool { return step > last })
	if len(steps) <= s.Keep {
		return nil
	}
	for _, step := range steps[:len(steps)-s.Keep] {
		// Out of sight first: a cut that is half removed must not look like a damaged one.
		gone := filepath.Join(s.Dir, fmt.Sprintf("%sold-%08d", atomicfile.TempPrefix, step))
		if err := os.Rename(s.path(step), gone); err != nil {
			return err
		}
		if err := os.RemoveAll(gone); err != nil {
			return err
		}
	}
	return nil
}

// Steps lists the steps that have a cut, whole or not, in ascending order. A folder that does not exist has none.
func (s Store) Steps() ([]int, error) {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	var steps []int
	for _, e := range entries {
		step, err := strconv.Atoi(e.Name())
		if err == nil && step >= 0 && filepath.Base(s.path(step)) == e.Name() {
			steps = append(steps, step)
		}
	}
	slices.Sort(steps)
	return steps, nil
}

// Load reads the cut of a step and verifies its digest and the size and hash of every file. The error names the file
// and what is wrong with it.
func (s Store) Load(step int) (*Cut, error) {
	dir := s.path(step)
	m, err := readManifest(filepath.Join(dir, manifestName))
	if err == nil && m.Step != step {
		err = fmt.Errorf("%s: step %d, want %d", filepath.Join(dir, manifestName), m.Step, step)
	}
	if err != nil {
		return nil, fmt.Errorf("checkpoint: load step %d: %w", step, err)
	}
	cut := &Cut{Step: step, Files: map[string][]Tensor{}, Meta: m.Meta, Digest: m.Digest}
	for _, file := range m.Files {
		tensors, err := readVerified(filepath.Join(dir, file.Name), file)
		if err != nil {
			return nil, fmt.Errorf("checkpoint: load step %d: %w", step, err)
		}
		cut.Files[strings.TrimSuffix(file.Name, extension)] = tensors
	}
	return cut, nil
}

// Latest loads the newest cut; [ErrNoCut] where there is none. A damaged one is an error: [Store.LatestGood] goes on to
// an older one.
func (s Store) Latest() (*Cut, error) {
	steps, err := s.Steps()
	if err != nil {
		return nil, err
	}
	if len(steps) == 0 {
		return nil, fmt.Errorf("checkpoint: %s: %w", s.Dir, ErrNoCut)
	}
	return s.Load(steps[len(steps)-1])
}

// LatestGood loads the newest cut that is whole. skipped tells what is wrong with each newer one, newest first. Where
// no cut is whole the error says why, and is ErrNoCut too.
func (s Store) LatestGood() (cut *Cut, skipped []error, err error) {
	steps, err := s.Steps()
	if err != nil {
		return nil, nil, err
	}
	for _, step := range slices.Backward(steps) {
		cut, err := s.Load(step)
		if err == nil {
			return cut, skipped, nil
		}
		skipped = append(skipped, err)
	}
	return nil, skipped, errors.Join(append([]error{fmt.Errorf("checkpoint: %s: %w", s.Dir, ErrNoCut)}, skipped...)...)
}

func readManifest(path string) (manifest, error) {
	var m manifest
	f, err := os.Open(path)
	if err != nil {
		return m, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return m, err
	}
	m, err = parseManifest(raw)
	if err != nil {
		return m, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

func parseManifest(raw []byte) (m manifest, err error) {
	if len(raw) > maxManifest {
		return m, fmt.Errorf("more than %d bytes", maxManifest)
	}
	var version struct{ Format int }
	if err := json.Unmarshal(raw, &version); err != nil {
		return m, fmt.Errorf("truncated or damaged: %w", err)
	}
	if version.Format != manifestFormat {
		return m, fmt.Errorf("format %d, want %d", version.Format, manifestFormat)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		return m, fmt.Errorf("damaged: %w", err)
	}
	if m.Meta, err = json.Marshal(m.Meta); err != nil { // undoes the indentation
		return m, fmt.Errorf("meta: %w", err)
	}
	for _, f := range m.Files {
		if !plainName(f.Name) {
			return m, fmt.Errorf("file name %q, want a plain name that ends in %s", f.Name, extension)
		}
	}
	if !slices.IsSortedFunc(m.Files, func(a, b manifestFile) int { return cmp.Or(cmp.Compare(a.Name, b.Name), -1) }) {
		return m, errors.New("files are not in the order of their names, each once")
	}
	if digest := m.digest(); digest != m.Digest {
		return m, fmt.Errorf("damaged: digest of the content is %.12s, the manifest says %.12s", digest, m.Digest)
	}
	return m, nil
}

// plainName reports whether a file name stays inside its folder on every system.
func plainName(name string) bool {
	stem, ok := strings.CutSuffix(name, extension)
	return ok && stem != "" && stem[0] != '.' && strings.IndexFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_')
	}) < 0
}

// readVerified reads a file once, decoding and hashing it at the same time.
func readVerified(path string, want manifestFile) ([]Tensor, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a file", path)
	}
	if info.Size() != want.Bytes {
		what := "damaged"
		if info.Size() < want.Bytes {
			what = "truncated"
		}
		return nil, fmt.Errorf("%s: %d bytes, want %d: %s", path, info.Size(), want.Bytes, what)
	}
	h := sha256.New()
	hashed := io.TeeReader(f, h)
	tensors, _, decodeErr := DecodeSafetensors(hashed, want.Bytes)
	if _, err := io.Copy(io.Discard, hashed); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if got := sum(h); got != want.SHA256 {
		return nil, fmt.Errorf("%s: damaged: SHA-256 %.12s, the manifest says %.12s", path, got, want.SHA256)
	}
	if decodeErr != nil {
		return nil, fmt.Errorf("%s: %w", path, decodeErr)
	}
	return tensors, nil
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
