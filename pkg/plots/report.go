package plots

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"image/gif"
	"image/png"
	"io"
	"math"
	"strings"

	"github.com/kelvin-ebm/kelvin/pkg/internal/atomicfile"
)

// ReportData is what report.html shows, from the top. Only Name is needed; what is empty is left out.
type ReportData struct {
	Name     string
	Subtitle string   // one line, such as "9,600 steps on xla:cpu in 31 s"
	Verdict  string   // one or two sentences: how good the model is
	Warnings []string // what a reader must know before believing the numbers
	Numbers  []Number
	Figures  []ReportFigure
	Sections []Section
	Tables   []Table  // metrics, configuration
	Commands []string // that made the run, and that look further
	Footer   string   // version and time
}

// Number is one of the numbers at the top.
type Number struct {
	Label, Value string
	Note         string // below it, smaller: an error, a unit, what it is compared with
}

// ReportFigure is a picture with its caption: a Figure, or a file in the form of PNG or GIF.
type ReportFigure struct {
	Figure  *Figure
	File    []byte
	Title   string
	Caption string
	Wide    bool // over the whole width; else two stand side by side
}

// Section is a part of the page with figures and tables of its own, such as Tempering.Section makes. Its verdict and
// notes are sentences.
type Section struct {
	Title, Verdict string
	Notes          []string
	Figures        []ReportFigure
	Tables         []DataTable
}

// DataTable is a table of named columns; every row has as many cells as there are columns.
type DataTable struct {
	Title   string
	Columns []string
	Rows    [][]string
}

// Table is a table of keys and values.
type Table struct {
	Title string
	Rows  []Row
}

// Row is a row of a table; Note stands behind the value, fainter, and may be empty.
type Row struct{ Key, Value, Note string }

//go:embed report.html
var reportHTML string

// Report writes report.html to a path: one file that needs no network, no script and no file beside it, light or dark as
// the reader's system is, with the figures in both. On an error nothing half-written is left.
func Report(path string, d ReportData) error {
	var out bytes.Buffer
	if err := WriteReport(&out, d); err != nil {
		return err
	}
	if err := atomicfile.WriteFile(path, out.Bytes(), 0o644); err != nil {
		return fmt.Errorf("plots: %w", err)
	}
	return nil
}

// WriteReport writes what Report writes.
func WriteReport(w io.Writer, d ReportData) error {
	if d.Name == "" {
		return errors.New("plots: report: no name")
	}
	type section struct {
		Section
		Pictures []picture
	}
	page := struct {
		ReportData
		Pictures            []picture
		Parts               []section
		LightVars, DarkVars template.CSS
	}{ReportData: d, LightVars: cssVars(Light), DarkVars: cssVars(Dark)}
	var err error
	if page.Pictures, err = newPictures(d.Figures); err != nil {
		return fmt.Errorf("plots: report: %w", err)
	}
	for _, s := range d.Sections {
		pictures, err := newPictures(s.Figures)
		if err != nil {
			return fmt.Errorf("plots: report: section %s: %w", s.Title, err)
		}
		for _, t := range s.Tables {
			for i, row := range t.Rows {
				if len(row) != len(t.Columns) {
					return fmt.Errorf("plots: report: section %s: table %s: row %d: %d cells, want %d", s.Title, t.Title, i, len(row), len(t.Columns))
				}
			}
		}
		page.Parts = append(page.Parts, section{s, pictures})
	}
	t, err := template.New("report").Parse(reportHTML)
	if err != nil {
		return fmt.Errorf("plots: report: %w", err)
	}
	if err := t.Execute(w, page); err != nil {
		return fmt.Errorf("plots: report: %w", err)
	}
	return nil
}

// picture is a figure as the template wants it.
type picture struct {
	Title, Caption, Alt string
	Wide                bool
	Width, Height       int // in CSS pixels
	Light               template.URL
	Dark                template.Srcset // empty when there is one form for both
}

func newPictures(figures []ReportFigure) ([]picture, error) {
	var pictures []picture
	for i, f := range figures {
		p, err := newPicture(f)
		if err != nil {
			return nil, fmt.Errorf("figure %d (%s): %w", i, f.Title, err)
		}
		pictures = append(pictures, p)
	}
	return pictures, nil
}

func newPicture(f ReportFigure) (picture, error) {
	p := picture{Title: f.Title, Caption: f.Caption, Wide: f.Wide, Alt: strings.TrimSuffix(f.Title, ".")}
	if f.Caption != "" {
		p.Alt += ". " + f.Caption
	}
	if f.Figure != nil {
		light, err := f.Figure.PNG(Light)
		if err != nil {
			return p, err
		}
		dark, err := f.Figure.PNG(Dark)
		if err != nil {
			return p, err
		}
		p.Light, p.Dark = template.URL(dataURI("image/png", light)), template.Srcset(dataURI("image/png", dark))
		p.Width = int(math.Ceil(float64(f.Figure.width) * 96 / 72))
		p.Height = int(math.Ceil(float64(f.Figure.height) * 96 / 72))
		return p, nil
	}
	if c, err := png.DecodeConfig(bytes.NewReader(f.File)); err == nil {
		p.Width, p.Height, p.Light = c.Width, c.Height, template.URL(dataURI("image/png", f.File))
		return p, nil
	}
	c, err := gif.DecodeConfig(bytes.NewReader(f.File))
	if err != nil {
		return p, fmt.Errorf("%d bytes that are neither a PNG nor a GIF", len(f.File))
	}
	p.Width, p.Height, p.Light = c.Width, c.Height, template.URL(dataURI("image/gif", f.File))
	return p, nil
}

func dataURI(kind string, data []byte) string {
	return "data:" + kind + ";base64," + base64.StdEncoding.EncodeToString(data)
}

// cssVars gives the page the colours of the figures.
func cssVars(th Theme) template.CSS {
	hex := func(c interface{ RGBA() (r, g, b, a uint32) }) string {
		r, g, b, _ := c.RGBA()
		return fmt.Sprintf("#%02x%02x%02x", r>>8, g>>8, b>>8)
	}
	return template.CSS(fmt.Sprintf("--card:%s;--ink:%s;--muted:%s;--line:%s;--accent:%s",
		hex(th.Background), hex(th.Foreground), hex(th.Muted), hex(th.Grid), hex(th.Model)))
}
