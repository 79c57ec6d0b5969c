package backend

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// bar shows how far a transfer is: a bar on a terminal, a line at the start and one at the end elsewhere.
type bar struct {
	out   io.Writer
	label string
	total int64
	start time.Time
	all   *mpb.Progress
	one   *mpb.Bar
}

func newBar(out io.Writer, label string, total int64) *bar {
	b := &bar{out: out, label: label, total: total, start: time.Now()}
	if out == nil {
		return b
	}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		b.all = mpb.New(mpb.WithOutput(out), mpb.WithWidth(40))
		b.one = b.all.New(total, mpb.BarStyle().Lbound("").Filler("━").Tip("━").Padding("─").Rbound(""),
			mpb.PrependDecorators(decor.Name(label+" ")),
			mpb.AppendDecorators(decor.CountersKibiByte(" % .1f of % .1f "), decor.AverageSpeed(decor.SizeB1024(0), "% .1f "), decor.AverageETA(decor.ET_STYLE_GO)))
		return b
	}
	fmt.Fprintf(out, "%s: %s\n", label, megabytes(total))
	return b
}

func (b *bar) reader(r io.Reader) io.Reader {
	if b.one == nil {
		return r
	}
	return &barReader{r, b.one}
}

func (b *bar) finish(err error) {
	switch {
	case b.one != nil:
		if err != nil {
			b.one.Abort(false)
		} else {
			b.one.SetTotal(-1, true)
		}
		b.all.Wait()
	case b.out != nil && err == nil:
		fmt.Fprintf(b.out, "%s: done in %s\n", b.label, time.Since(b.start).Round(100*time.Millisecond))
	}
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

type barReader struct {
	r   io.Reader
	bar *mpb.Bar
}

func (b *barReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.bar.IncrBy(n)
	return n, err
}
