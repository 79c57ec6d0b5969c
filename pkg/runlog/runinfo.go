package runlog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/internal/atomicfile"
)

// RunInfoFile is the name of the file in a run's folder that says what the run was and how it ended.
const RunInfoFile = "run.json"

// RunInfo is what run.json holds.
type RunInfo struct {
	Name    string   `json:"name"`
	Version string   `json:"version"`           // of the program
	Command []string `json:"command,omitempty"` // that made the run
	Digest  string   `json:"digest"`            // SHA-256 over the last cut's contents; empty before the first cut
	Seed    uint64   `json:"seed"`
	// Backend is the backend chosen, such as "xla:cpu"; Fingerprint says what else the bits depend on: plugin,
	// instruction set, thread count or GPU model.
	Backend     string    `json:"backend"`
	Fingerprint string    `json:"fingerprint"`
	Replicas    int       `json:"replicas"`
	Steps       int       `json:"steps"`        // made, out of those wanted
	StepsWanted int       `json:"steps_wanted"` // by the experiment
	StepsRedone int       `json:"steps_redone"` // after resumes and failures
	Generations int       `json:"generations"`
	Seconds     float64   `json:"seconds"` // wall time, over all starts
	Started     time.Time `json:"started,omitzero"`
	Finished    time.Time `json:"finished,omitzero"` // zero while it runs, and when it was interrupted

	// Extra holds fields that this version does not know, by key; they survive reading and writing.
	Extra map[string]json.RawMessage `json:"-"`
}

// known are the JSON keys of RunInfo itself.
func (r RunInfo) known() (map[string]json.RawMessage, error) {
	type plain RunInfo // without the methods
	data, err := encode(plain(r))
	if err != nil {
		return nil, err
	}
	var fields map[string]json.RawMessage
	return fields, json.Unmarshal(data, &fields)
}

// encode is json.Marshal without turning <, > and & into escapes: a command line should stay readable.
func encode(v any) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), err
}

// MarshalJSON writes the fields in their order, then Extra sorted by key.
func (r RunInfo) MarshalJSON() ([]byte, error) {
	type plain RunInfo
	data, err := encode(plain(r))
	if err != nil || len(r.Extra) == 0 {
		return data, err
	}
	fields, err := r.known()
	if err != nil {
		return nil, err
	}
	for key := range r.Extra {
		if _, taken := fields[key]; taken {
			return nil, fmt.Errorf("extra field %q is one of the fields of a run", key)
		}
	}
	extra, err := encode(r.Extra)
	if err != nil {
		return nil, err
	}
	data = append(data[:len(data)-1], ',')
	return append(data, extra[1:]...), nil
}

// UnmarshalJSON reads the fields and keeps unknown ones in Extra.
func (r *RunInfo) UnmarshalJSON(data []byte) error {
	type plain RunInfo
	var p plain
	if err := json.Unmarshal(data, &p); err != nil {
		return err
	}
	all := map[string]json.RawMessage{}
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	// Times that are left out when zero and an omitted command count as known as well.
	sample := RunInfo{Command: []string{""}, Started: time.Unix(0, 0).UTC(), Finished: time.Unix(0, 0).UTC()}
	fields, err := sample.known()
	if err != nil {
		return err
	}
	for key := range fields {
		delete(all, key)
	}
	*r = RunInfo(p)
	if len(all) > 0 {
		r.Extra = all
	}
	return nil
}

// SetExtra sets an extra field.
func (r *RunInfo) SetExtra(key string, value any) error {
	data, err := encode(value)
	if err != nil {
		return fmt.Errorf("runlog: %s: %s: %w", RunInfoFile, key, err)
	}
	if r.Extra == nil {
		r.Extra = map[string]json.RawMessage{}
	}
	r.Extra[key] = data
	return nil
}

// WriteRunInfo writes run.json into a run's folder, in one step: a reader finds the old file or the new one.
func WriteRunInfo(dir string, r RunInfo) error {
	data, err := encode(r)
	if err != nil {
		return fmt.Errorf("runlog: %s: %w", RunInfoFile, err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, data, "", "  "); err != nil {
		return fmt.Errorf("runlog: %s: %w", RunInfoFile, err)
	}
	out.WriteByte('\n')
	if err := atomicfile.WriteFile(filepath.Join(dir, RunInfoFile), out.Bytes(), 0o644); err != nil {
		return fmt.Errorf("runlog: %w", err)
	}
	return nil
}

// ReadRunInfo reads run.json from a run's folder. A missing file is an error that wraps fs.ErrNotExist.
func ReadRunInfo(dir string) (RunInfo, error) {
	path := filepath.Join(dir, RunInfoFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return RunInfo{}, fmt.Errorf("runlog: %w", err)
	}
	var r RunInfo
	if err := json.Unmarshal(data, &r); err != nil {
		return RunInfo{}, fmt.Errorf("runlog: %s: %w", path, err)
	}
	return r, nil
}
