// Package reference writes the pages of docs/reference from the tables of the code: one page a family of components, each
// with its options, defaults, formula, source, and an example that runs.
//
// Nothing on the pages is written by hand but their introductions and examples, so that they say what the code does:
//
//	pages, err := reference.Pages()
//	if err != nil {
//		return err
//	}
//	for _, page := range pages {
//		fmt.Println(page.File, len(page.Text)) // losses.md …
//	}
//
// `coordinator config reference` writes them to a folder.
package reference

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/kelvin-ebm/kelvin/pkg/internal/atomicfile"
)

// Page is a Markdown file.
type Page struct {
	File string // its name
	Text string
}

// family is a page's content: components that take each other's place.
type family struct {
	file, title string
	intro       string
	entries     []entry
}

// entry is a component, or a section of an experiment.
type entry struct {
	name    string
	doc     string // one sentence or two
	formula string // empty where there is none
	source  string // empty where there is none
	facts   [][2]string
	options []option
	example string // an experiment's file
	command string // a command line that draws from it
}

// option is a key of a component.
type option struct{ key, doc, def string }

// Pages writes every page, the index first. The same tables give the same bytes.
func Pages() ([]Page, error) {
	all, err := families()
	if err != nil {
		return nil, fmt.Errorf("reference: %w", err)
	}
	pages := []Page{{"README.md", index(all)}}
	for _, f := range all {
		pages = append(pages, Page{f.file, f.page()})
	}
	return pages, nil
}

// Write writes the pages to a folder, which it makes where there is none, and returns how many they are.
func Write(dir string) (int, error) {
	pages, err := Pages()
	if err != nil {
		return 0, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, fmt.Errorf("reference: %w", err)
	}
	for _, page := range pages {
		if err := atomicfile.WriteFile(filepath.Join(dir, page.File), []byte(page.Text), 0o644); err != nil {
			return 0, fmt.Errorf("reference: %w", err)
		}
	}
	return len(pages), nil
}

const generated = "<!-- Written by `coordinator config reference` from the tables of the code: change them, not this page. -->\n\n"

func index(all []family) string {
	var b strings.Builder
	b.WriteString(generated + `# Reference

Every component by its name in an experiment's file, with its options, its formula, where it comes from, and an example. The examples of files are whole: ` +
		"`coordinator config validate`" + ` accepts them as they stand.
For one experiment of your own, ` + "`coordinator config explain FILE`" + ` says the same of the keys that it has.

| page | entries |
|---|---|
`)
	for _, f := range all {
		var links []string
		for _, e := range f.entries {
			links = append(links, fmt.Sprintf("[%s](%s#%s)", e.name, f.file, e.name))
		}
		fmt.Fprintf(&b, "| [%s](%s) | %s |\n", f.title, f.file, strings.Join(links, ", "))
	}
	return b.String()
}

func (f family) page() string {
	var b strings.Builder
	b.WriteString(generated)
	fmt.Fprintf(&b, "# %s\n\n%s\n\n| name | what it is |\n|---|---|\n", f.title, f.intro)
	for _, e := range f.entries {
		fmt.Fprintf(&b, "| [%s](#%s) | %s |\n", e.name, e.name, cell(e.doc))
	}
	for _, e := range f.entries {
		e.write(&b)
	}
	return b.String()
}

func (e entry) write(b *strings.Builder) {
	fmt.Fprintf(b, "\n## %s\n\n%s\n", e.name, e.doc)
	if e.formula != "" {
		block(b, "text", e.formula)
	}
	if len(e.options) > 0 {
		b.WriteString("\n| key | what it says | default |\n|---|---|---|\n")
		for _, o := range e.options {
			fmt.Fprintf(b, "| `%s` | %s | %s |\n", o.key, cell(o.doc), value(o.def))
		}
	}
	if len(e.facts) > 0 {
		b.WriteString("\n| fact | value |\n|---|---|\n")
		for _, f := range e.facts {
			fmt.Fprintf(b, "| %s | %s |\n", f[0], cell(f[1]))
		}
	}
	if e.source != "" {
		fmt.Fprintf(b, "\nSource: %s.\n", e.source)
	}
	if e.example != "" {
		block(b, "yaml", e.example)
	}
	if e.command != "" {
		block(b, "sh", e.command)
	}
}

func block(b *strings.Builder, language, text string) {
	fmt.Fprintf(b, "\n```%s\n%s\n```\n", language, strings.TrimSpace(text))
}

// cell is text in a table: a bar would end the cell, and Markdown reads stars and underscores.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "*", `\*`, "_", `\_`, "\n", " ").Replace(text)
}

// value is a default: as code where it is a word or a list, else in words.
func value(text string) string {
	switch {
	case text == "":
		return "–"
	case strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]"):
		return "`" + strings.ReplaceAll(strings.ReplaceAll(text, " ", ""), ",", ", ") + "`"
	case text == "required" || strings.Contains(text, " "):
		return cell(text)
	}
	return "`" + text + "`"
}
