package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
)

// outputFlag is -o of the commands that read from coordinators and from cuts. JSON, YAML and paths show the same object,
// which is stable; tables are for people.
type outputFlag struct {
	format string
	path   jsonPath
}

func (o *outputFlag) add(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&o.format, "output", "o", "table", "table, wide, json, yaml or jsonpath=`PATH`, such as jsonpath={.items[*].name}")
}

// check is to be called first in RunE.
func (o *outputFlag) check() (err error) {
	switch o.format {
	case "table", "wide", "json", "yaml":
		return nil
	}
	path, ok := strings.CutPrefix(o.format, "jsonpath=")
	if !ok {
		return usageErrorf("-o: %q, want table, wide, json, yaml or jsonpath=PATH", o.format)
	}
	o.path, err = parseJSONPath(path)
	return err
}

// sheet is an object as a table.
type sheet struct {
	title  string
	notes  []string // lines below
	header []string
	wide   int // columns that only -o wide shows, the last ones
	rows   [][]any
}

func (s *sheet) row(cells ...any) { s.rows = append(s.rows, cells) }

// print writes an object in the form that was asked for; tables are only made where they are shown.
func (o *outputFlag) print(w io.Writer, object any, show ...func() *sheet) error {
	if o.format == "table" || o.format == "wide" {
		for _, each := range show {
			if err := each().render(w, o.format == "wide"); err != nil {
				return err
			}
		}
		return nil
	}
	raw, err := json.MarshalIndent(object, "", "  ")
	if err != nil {
		return err
	}
	text := string(raw)
	switch o.format {
	case "yaml":
		if raw, err = yaml.JSONToYAML(raw); err != nil {
			return err
		}
		text = strings.TrimSuffix(string(raw), "\n")
	case "json":
	default:
		if text, err = o.path.render(raw); err != nil {
			return err
		}
	}
	return printf(w, "%s\n", text)
}

func (s *sheet) render(w io.Writer, wide bool) error {
	columns := len(s.header)
	if !wide {
		columns -= s.wide
	}
	t := newTable(w, s.header[:columns]...)
	if s.title != "" {
		t.SetTitle("%s", s.title)
	}
	for _, cells := range s.rows {
		t.AppendRow(table.Row(cells[:columns]))
	}
	t.Render()
	for _, note := range s.notes {
		if err := printf(w, "%s\n", note); err != nil {
			return err
		}
	}
	return nil
}

// printError tells why a command failed: in one line, or as an object for -o json.
func printError(w io.Writer, cmd *cobra.Command, err error) {
	var refused *api.Error
	if errors.As(err, &refused) && refused.Code == api.Unavailable && refused.Status == 0 && refused.Next == "" {
		refused.Next = "is a coordinator there? --server and `coordinator ctx set` name others"
	}
	if output := cmd.Flags().Lookup("output"); output == nil || output.Value.String() != "json" {
		fmt.Fprintln(w, "error:", err)
		return
	}
	failure := &api.Error{Code: codeOf(err), Message: err.Error()}
	if refused != nil {
		// What helps is a field of its own; what the command said in front stays.
		failure.Code, failure.Next = refused.Code, refused.Next
		failure.Message = strings.TrimSuffix(failure.Message, ": "+refused.Next)
	}
	raw, encoding := json.Marshal(api.Failure{Error: failure})
	if encoding != nil {
		raw = []byte("error: " + err.Error())
	}
	fmt.Fprintln(w, string(raw))
}

// codeOf is the code of an error that no coordinator sent.
func codeOf(err error) api.Code {
	switch exitCode(err) {
	case exitUsage:
		return api.Invalid
	case exitNotFound:
		return api.NotFound
	case exitConflict:
		return api.Conflict
	case exitUnauthorised:
		return api.Unauthorized
	case exitUnavailable:
		return api.Unavailable
	case exitTimeout:
		return api.Timeout
	}
	return api.Internal
}

// since is ago in a sentence.
func since(t time.Time) string {
	if text := ago(t); text != "now" {
		return text + " ago"
	}
	return "just now"
}

// ago is how long something is past, for people.
func ago(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	d := time.Since(t)
	switch {
	case d < time.Second:
		return "now"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d d", int(d.Hours()/24))
}

// dash is a text, or a dash where it is empty.
func dash(text string) string {
	if text == "" {
		return "–"
	}
	return text
}
