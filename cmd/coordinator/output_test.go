package main

import (
	"strings"
	"testing"
	"time"

	"github.com/kelvin-ebm/kelvin/pkg/coordinator/api"
)

const document = `{"name":"moons","version":9007199254740993,"items":[{"a":1,"b":["x","y"]},{"a":2.5,"b":[]}],"odd key":{"t":true,"n":null}}`

func TestJSONPath(t *testing.T) {
	for _, tc := range []struct{ template, want string }{
		{"{.name}", "moons"},
		{".name", "moons"},
		{"$.items[*].a", "1 2.5"},
		{"{.items[-1].a}", "2.5"},
		{"{.items[*].b[*]}", "x y"},
		{"{.items[0].b}", `["x","y"]`},
		{"{['odd key'].t} {.['odd key']['n']}", "true null"},
		{`{.name}\t{.version}\n`, "moons\t9007199254740993\n"},
		{"{.items[1].b[*]}", ""},
		{"{.}", `{"items":[{"a":1,"b":["x","y"]},{"a":2.5,"b":[]}],"name":"moons","odd key":{"n":null,"t":true},"version":9007199254740993}`},
	} {
		path, err := parseJSONPath(tc.template)
		if err != nil {
			t.Errorf("%s: %v", tc.template, err)
			continue
		}
		if got, err := path.render([]byte(document)); err != nil || got != tc.want {
			t.Errorf("%s: %q, %v, want %q", tc.template, got, err, tc.want)
		}
	}
	for template, want := range map[string]string{
		"": "no path", "{.name": "a { without a }", ".name}": "a } without a {", "{.items[}": "a [ without a ]", "{.items[x]}": "[x], want a number",
		"{name}": "want a dot or a bracket", "{.a..b}": "want a name behind the dot", "{.items[?(@.a)]}": "want a number", "{range .items}": "want a dot",
	} {
		if _, err := parseJSONPath(template); err == nil || exitCode(err) != exitUsage || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", template, err, want)
		}
	}
	for template, want := range map[string]string{".nmae": `no "nmae" in it`, ".items[2]": "no [2] in a list of 2", ".name[*]": "[*] of what is no list", ".items.a": `no "a" in it`} {
		path, err := parseJSONPath(template)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := path.render([]byte(document)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", template, err, want)
		}
	}
}

func FuzzJSONPath(f *testing.F) {
	for _, seed := range []string{"{.items[*].a}", "{['x']}", "{.a}b{.c[-1]}", "}{"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, template string) {
		if path, err := parseJSONPath(template); err == nil {
			_, _ = path.render([]byte(document)) // no panic
		}
	})
}

func TestForPeople(t *testing.T) {
	now := time.Now()
	for d, want := range map[time.Duration]string{0: "now", 90 * time.Second: "90 s", 90 * time.Minute: "90 min", 47 * time.Hour: "47 h", 72 * time.Hour: "3 d"} {
		if got := ago(now.Add(-d)); got != want {
			t.Errorf("%v ago is %q, want %q", d, got, want)
		}
	}
	if got := ago(time.Time{}); got != "–" {
		t.Errorf("no time is %q", got)
	}
	line, err := metricLine(api.Metric{Line: []byte(`{"step":3,"loss":1e-9,"rate":12345678,"x":[1,0.5],"note":"a"}`)})
	if want := "step=3 loss=1e-09 rate=12345678 x=[1 0.5] note=a"; err != nil || line != want {
		t.Errorf("%q, %v, want %q", line, err, want)
	}
	if _, err := metricLine(api.Metric{Step: 4, Line: []byte(`{"step":`)}); err == nil {
		t.Error("half a line: no error")
	}
}

// Rates come from two looks; an experiment that is new has none yet, and one that has ended is not shown.
func TestTopTellsRates(t *testing.T) {
	f := newFakeCluster(t, clusterAnswers())
	var flags clusterFlags
	c, err := flags.open()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var look top
	at := time.Now()
	first, err := look.look(t.Context(), c, at)
	if err != nil {
		t.Fatal(err)
	}
	later, done := moons(api.Running), moons(api.Completed)
	later.Step, done.Name = 60, "finished"
	f.set("GET /v1/experiments", list("ExperimentList", later, done))
	second, err := look.look(t.Context(), c, at.Add(2*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(first, "│ –       │ –    │") || !strings.Contains(second, "│ 10.0    │ 4s   │") || strings.Contains(second, "finished") {
		t.Errorf("first\n%sthen\n%s", first, second)
	}
}
