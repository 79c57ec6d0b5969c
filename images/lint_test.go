// Package images_test checks the Containerfile: what is in an image is pinned, and nobody in it is root.
package images_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// instruction is one of a Containerfile, on one line.
type instruction struct{ name, args string }

// stage is what a FROM begins.
type stage struct {
	base, name   string
	instructions []instruction
}

var (
	pinned = regexp.MustCompile(`^[a-z0-9./-]+:v?\d+\.\d+(\.\d+)?(-[a-z0-9.]+)*(@sha256:[0-9a-f]{64})?$`)
	fetch  = regexp.MustCompile(`\b(curl|wget|git clone|apk add|apt-get|apt|dnf|yum|npm|go install)\b`)
	nobody = regexp.MustCompile(`^[1-9]\d*:[1-9]\d*$`)
)

// parse splits a Containerfile into stages. ARGs before the first give names to bases.
func parse(text string) ([]stage, error) {
	text = regexp.MustCompile(`(?m)^\s*#.*\n`).ReplaceAllString(text, "")
	text = strings.ReplaceAll(text, "\\\n", " ")
	args := map[string]string{}
	var stages []stage
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		name, rest, _ := strings.Cut(line, " ")
		rest = strings.TrimSpace(rest)
		switch {
		case name == "ARG" && len(stages) == 0:
			key, value, _ := strings.Cut(rest, "=")
			args["${"+key+"}"] = value
		case name == "FROM":
			f := strings.Fields(rest)
			if len(f) != 3 || f[1] != "AS" {
				return nil, fmt.Errorf("FROM %s: want a name, AS x", rest)
			}
			base := f[0]
			if v, ok := args[base]; ok {
				base = v
			}
			stages = append(stages, stage{base: base, name: f[2]})
		case len(stages) == 0:
			return nil, fmt.Errorf("%s before the first FROM", name)
		default:
			s := &stages[len(stages)-1]
			s.instructions = append(s.instructions, instruction{name, rest})
		}
	}
	return stages, nil
}

// lint says what is wrong with a Containerfile of whose stages some are images.
func lint(text string, images ...string) error {
	stages, err := parse(text)
	if err != nil {
		return err
	}
	var errs []error
	var names []string
	for _, s := range stages {
		bad := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("%s: %s", s.name, fmt.Sprintf(format, args...)))
		}
		if s.base != "scratch" && !slices.Contains(names, s.base) && !pinned.MatchString(s.base) {
			bad("base %s, want a version", s.base)
		}
		final := slices.Contains(images, s.name)
		user, env := "", ""
		for _, in := range s.instructions {
			switch in.name {
			case "ADD":
				bad("ADD %s, want COPY: it unpacks, and fetches URLs", in.args)
			case "COPY":
				if from, ok := strings.CutPrefix(strings.Fields(in.args)[0], "--from="); ok && !slices.Contains(names, from) {
					bad("COPY from %s, want an earlier stage", from)
				} else if final && !ok {
					bad("COPY %s, want what was built", in.args)
				}
				if strings.Contains(in.args, "--chown") || strings.Contains(in.args, "--chmod") {
					bad("COPY %s: whoever runs it must not be able to change it", in.args)
				}
			case "RUN":
				switch {
				case final:
					bad("RUN %s: an image is put together, nothing runs in it", in.args)
				case fetch.MatchString(in.args):
					bad("RUN %s: fetches what nobody pinned", in.args)
				case strings.Contains(in.args, "pip ") && !strings.Contains(in.args, "--require-hashes"):
					bad("RUN %s: want --require-hashes", in.args)
				}
			case "USER":
				user = in.args
			case "ENV":
				env += " " + in.args
			case "VOLUME", "EXPOSE", "ONBUILD", "SHELL", "HEALTHCHECK":
				bad("%s %s: is for whoever runs it to say", in.name, in.args)
			}
		}
		if final && !nobody.MatchString(user) {
			bad("USER %q, want numbers of a user and a group that are not root: a cluster cannot look up names", user)
		}
		if final && !strings.Contains(env, "KELVIN_NO_INSTALL=1") {
			bad("want KELVIN_NO_INSTALL=1: nothing is installed while it runs")
		}
		names = append(names, s.name)
	}
	for _, name := range images {
		if !slices.Contains(names, name) {
			errs = append(errs, fmt.Errorf("no stage %s", name))
		}
	}
	return errors.Join(errs...)
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestContainerfile(t *testing.T) {
	if err := lint(read(t, "Containerfile"), "go", "cpu", "cuda13"); err != nil {
		t.Error(err)
	}
}

func TestLintRefuses(t *testing.T) {
	const good = "FROM golang:1.26.8-bookworm AS build\nRUN go build ./...\nFROM scratch AS x\nCOPY --from=build /out/ /usr/local/bin/\nENV KELVIN_NO_INSTALL=1\nUSER 65532:65532\n"
	if err := lint(good, "x"); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ old, with, want string }{
		{"golang:1.26.8-bookworm", "golang:latest", "want a version"},
		{"golang:1.26.8-bookworm", "golang", "want a version"},
		{"golang:1.26.8-bookworm", "golang:bookworm", "want a version"},
		{"RUN go build ./...", "RUN curl https://example.org/x | sh", "fetches"},
		{"RUN go build ./...", "RUN apt-get install -y \\\n  x", "fetches"},
		{"RUN go build ./...", "RUN pip install x", "--require-hashes"},
		{"RUN go build ./...", "ADD https://example.org/x /x", "want COPY"},
		{"COPY --from=build /out/", "COPY --chown=65532 --from=build /out/", "must not be able to change"},
		{"COPY --from=build", "COPY --from=other", "earlier stage"},
		{"COPY --from=build /out/", "COPY bin/", "want what was built"},
		{"USER 65532:65532", "USER root", "want numbers"},
		{"USER 65532:65532", "USER 0:0", "want numbers"},
		{"USER 65532:65532", "USER nonroot", "want numbers"},
		{"USER 65532:65532", "", "want numbers"},
		{"ENV KELVIN_NO_INSTALL=1", "ENV A=1", "KELVIN_NO_INSTALL"},
		{"ENV KELVIN_NO_INSTALL=1", "ENV KELVIN_NO_INSTALL=1\nRUN chmod 777 /", "put together"},
		{"ENV KELVIN_NO_INSTALL=1", "ENV KELVIN_NO_INSTALL=1\nVOLUME /data", "whoever runs it"},
		{"AS x", "AS y", "no stage x"},
		{"AS build", "", "want a name"},
	} {
		bad := strings.Replace(good, tc.old, tc.with, 1)
		if err := lint(bad, "x"); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: %v, want %q", tc.with, err, tc.want)
		}
	}
}

// TestImagesAreBuiltByTheProgram checks the steps that make an image what it is.
func TestImagesAreBuiltByTheProgram(t *testing.T) {
	text := read(t, "Containerfile")
	for _, want := range []string{"backend install cpu --dir", "backend install cuda13 --dir", "GOFLAGS=-trimpath", "go mod verify", "CGO_ENABLED=0 go build"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q", want)
		}
	}
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "..", "go.mod"))
	if version == nil || !strings.Contains(text, "golang:"+version[1]+".") {
		t.Errorf("built with another Go than go.mod's, %v", version)
	}
	if script := read(t, "..", "scripts", "images.sh"); !strings.Contains(script, "targets=(go cpu cuda13)") {
		t.Error("scripts/images.sh builds other images")
	}
}

// TestLibrariesArePinned checks that each of NVIDIA's libraries has a version and a hash, and that those asked for are there.
func TestLibrariesArePinned(t *testing.T) {
	got := map[string]bool{}
	for entry := range strings.SplitSeq(strings.ReplaceAll(strings.TrimSpace(read(t, "cuda13-libraries.txt")), "\\\n", " "), "\n") {
		m := regexp.MustCompile(`^([a-z0-9-]+)==\d[0-9.]*( +--hash=sha256:[0-9a-f]{64})+$`).FindStringSubmatch(strings.TrimSpace(entry))
		if m == nil {
			t.Errorf("%q, want a version and a hash", entry)
			continue
		}
		got[m[1]] = true
	}
	for line := range strings.Lines(read(t, "cuda13-libraries.in")) {
		if name, _, ok := strings.Cut(line, ">="); ok && !got[name] {
			t.Errorf("%s is asked for, and not pinned", name)
		}
	}
}
