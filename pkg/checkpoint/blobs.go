package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Blob is one file of a cut in memory. Manifest is the name of the one that describes the others.
type Blob struct {
	Name   string
	SHA256 [sha256.Size]byte // of Data
	Data   []byte
}

// Manifest is the name of the blob, and of the file in a [Store], that lists the others of a cut.
const Manifest = manifestName

// Blobs writes a cut as the files that [Store.Save] would write, in the order of their names and the manifest last, and
// returns its digest with them: for stores that keep files by their content.
func (c Cut) Blobs() (blobs []Blob, digest string, err error) {
	m, err := c.manifest(func(file string, fill func(io.Writer) error) error {
		var b bytes.Buffer
		if err := fill(&b); err != nil {
			return err
		}
		blobs = append(blobs, Blob{file, sha256.Sum256(b.Bytes()), b.Bytes()})
		return nil
	})
	if err != nil {
		return nil, "", fmt.Errorf("checkpoint: step %d: %w", c.Step, err)
	}
	text, err := m.text()
	if err != nil {
		return nil, "", fmt.Errorf("checkpoint: step %d: %w", c.Step, err)
	}
	return append(blobs, Blob{Manifest, sha256.Sum256(text), text}), m.Digest, nil
}

// FromBlobs puts a cut together from its manifest and the files that open returns by the SHA-256 of their contents, and
// verifies all of it.
func FromBlobs(manifest []byte, open func(name string, sha256 [sha256.Size]byte) ([]byte, error)) (*Cut, error) {
	m, err := parseManifest(manifest)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %s: %w", Manifest, err)
	}
	cut := &Cut{Step: m.Step, Files: map[string][]Tensor{}, Meta: m.Meta, Digest: m.Digest}
	for _, file := range m.Files {
		want, err := file.sum()
		var data []byte
		if err == nil {
			data, err = open(file.Name, want)
		}
		if err != nil {
			return nil, fmt.Errorf("checkpoint: step %d: %s: %w", m.Step, file.Name, err)
		}
		if got := sha256.Sum256(data); got != want || int64(len(data)) != file.Bytes {
			return nil, fmt.Errorf("checkpoint: step %d: %s: damaged: %d bytes of SHA-256 %.12x, the manifest says %d of %.12x", m.Step, file.Name, len(data), got, file.Bytes, want)
		}
		tensors, _, err := DecodeSafetensors(bytes.NewReader(data), file.Bytes)
		if err != nil {
			return nil, fmt.Errorf("checkpoint: step %d: %s: %w", m.Step, file.Name, err)
		}
		cut.Files[strings.TrimSuffix(file.Name, extension)] = tensors
	}
	return cut, nil
}

// text is what manifest.json holds.
func (m manifest) text() ([]byte, error) {
	text, err := json.MarshalIndent(m, "", "  ")
	return append(text, '\n'), err
}
