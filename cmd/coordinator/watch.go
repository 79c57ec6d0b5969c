package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
)

func newWatchCommand() *cobra.Command {
	var cluster clusterFlags
	var output string
	var since uint64
	cmd := &cobra.Command{
		Use:   "watch [NAME]",
		Short: "Show what changes, as it changes",
		Long: `Show what changes with the experiments, or with one, as it changes: a line each, or a JSON object a line. Nothing is missed
while a coordinator or the leader is lost. Each object has an index; --since goes on behind one.`,
		Example: "  coordinator watch\n  coordinator watch two-moons -o json",
		Args:    cobra.MaximumNArgs(1), ValidArgsFunction: cluster.complete,
	}
	cluster.add(cmd)
	check := addOutputFlag(cmd, &output, "lines", "lines", "json")
	cmd.Flags().Uint64Var(&since, "since", 0, "`index` of the last change seen; 0 shows what there is first")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := check(); err != nil {
			return err
		}
		return cluster.withUntilInterrupt(cmd, func(ctx context.Context, c *api.Client) error {
			changes := c.Watch(ctx, since)
			if len(args) > 0 {
				if _, err := c.Experiment(ctx, args[0]); err != nil { // a name that is not there never changes
					return err
				}
				changes = c.WatchExperiment(ctx, args[0], since)
			}
			for change, err := range changes {
				if err != nil {
					return err
				}
				if err := printChange(cmd.OutOrStdout(), change, output == "json"); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return cmd
}

func printChange(w io.Writer, c api.Change, raw bool) error {
	if raw {
		line, err := json.Marshal(c)
		if err != nil {
			return err
		}
		return printf(w, "%s\n", line)
	}
	line, err := changeLine(c)
	if err != nil || line == "" {
		return err
	}
	return printf(w, "%s\n", line)
}

// changeLine is a change for people; "" for one that tells them nothing.
func changeLine(c api.Change) (string, error) {
	switch c.Kind {
	case api.KindExperiment:
		e, err := c.Experiment()
		if c.Deleted {
			return fmt.Sprintf("%-19s  %s: deleted", "", e.Name), err
		}
		line := fmt.Sprintf("%s  %s: %s, step %d of %d, generation %d", clock(e.Changed), e.Name, e.Phase, e.Step, e.Steps, e.Generation)
		if e.Message != "" {
			line += ": " + e.Message
		}
		return line, err
	case api.KindEvent:
		e, err := c.Event()
		return eventLine(e), err
	case api.KindMember:
		m, err := c.Member()
		if c.Deleted {
			return fmt.Sprintf("%-19s  coordinator %s: gone", "", m.Name), err
		}
		return fmt.Sprintf("%-19s  coordinator %s: %s at %s", "", m.Name, m.Role, m.API), err
	}
	return "", nil
}

func clock(t time.Time) string { return t.Local().Format(time.DateTime) }

func eventLine(e api.Event) string {
	return fmt.Sprintf("%s  %s: %s: %s", clock(e.At), e.Experiment, e.Reason, e.Text)
}

func newLogsCommand() *cobra.Command {
	var cluster clusterFlags
	var follow bool
	var output string
	var from int64
	cmd := &cobra.Command{
		Use:   "logs NAME",
		Short: "Print the events and the metrics of an experiment",
		Long: `Print the last events of an experiment, and its metrics, a line each. The metrics are those that the leader has, since it
leads; --from leaves out the first ones. With -f new lines follow until the experiment ends.`,
		Example: "  coordinator logs two-moons -f\n  coordinator logs two-moons --from 5000 -o json",
		Args:    exactlyOneName, ValidArgsFunction: cluster.complete,
	}
	cluster.add(cmd)
	check := addOutputFlag(cmd, &output, "lines", "lines", "json")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the experiment ends")
	cmd.Flags().Int64Var(&from, "from", -1, "metrics behind this `step`")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := check(); err != nil {
			return err
		}
		l := logPrinter{w: cmd.OutOrStdout(), raw: output == "json"}
		with := cluster.with
		if follow {
			with = cluster.withUntilInterrupt
		}
		return with(cmd, func(ctx context.Context, c *api.Client) error { return l.print(ctx, c, args[0], from, follow) })
	}
	return cmd
}

// logPrinter writes lines that come from two streams.
type logPrinter struct {
	raw bool

	mu sync.Mutex
	w  io.Writer
}

func (l *logPrinter) line(text string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return printf(l.w, "%s\n", text)
}

func (l *logPrinter) event(e api.Event) error {
	if !l.raw {
		return l.line(eventLine(e))
	}
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return l.line(string(line))
}

func (l *logPrinter) metric(m api.Metric) error {
	if l.raw {
		return l.line(string(m.Line))
	}
	text, err := metricLine(m)
	if err != nil {
		return err
	}
	return l.line(text)
}

func (l *logPrinter) print(ctx context.Context, c *api.Client, name string, from int64, follow bool) error {
	events, err := c.Events(ctx, name)
	if err != nil {
		return err
	}
	for _, e := range events.Items {
		if err := l.event(e); err != nil {
			return err
		}
	}
	ctx, stop := context.WithCancelCause(ctx)
	var following sync.WaitGroup
	if follow {
		following.Go(func() {
			if err := l.follow(ctx, c, name, events.Index); err != nil {
				stop(err) // says nothing once the metrics have ended
			}
		})
	}
	err = nil
	for m, failed := range c.Metrics(ctx, name, from, follow) { // they end with the experiment
		if err = failed; err == nil {
			err = l.metric(m)
		}
		if err != nil {
			break
		}
	}
	cause := context.Cause(ctx)
	stop(nil)
	following.Wait()
	return cmp.Or(cause, err)
}

func (l *logPrinter) follow(ctx context.Context, c *api.Client, name string, since uint64) error {
	for change, err := range c.WatchExperiment(ctx, name, since) {
		if err != nil {
			return err
		}
		if change.Kind != api.KindEvent {
			continue
		}
		e, err := change.Event()
		if err == nil {
			err = l.event(e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// metricLine is a record of metrics for people: its keys in their order, lists in brackets.
func metricLine(m api.Metric) (string, error) {
	dec := json.NewDecoder(strings.NewReader(string(m.Line)))
	if _, err := dec.Token(); err != nil {
		return "", fmt.Errorf("metrics of step %d: %w", m.Step, err)
	}
	var parts []string
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return "", fmt.Errorf("metrics of step %d: %w", m.Step, err)
		}
		var value any
		if err := dec.Decode(&value); err != nil {
			return "", fmt.Errorf("metrics of step %d: %w", m.Step, err)
		}
		parts = append(parts, fmt.Sprintf("%v=%s", key, metricText(value)))
	}
	return strings.Join(parts, " "), nil
}

func metricText(v any) string {
	switch v := v.(type) {
	case float64:
		if v == float64(int64(v)) { // a count
			return strconv.FormatInt(int64(v), 10)
		}
		return strconv.FormatFloat(v, 'g', 4, 64)
	case []any:
		var parts []string
		for _, x := range v {
			parts = append(parts, metricText(x))
		}
		return "[" + strings.Join(parts, " ") + "]"
	}
	return fmt.Sprint(v)
}
