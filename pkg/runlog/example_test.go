package runlog_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/kelvin-ebm/kelvin/pkg/runlog"
)

func Example() {
	dir, err := os.MkdirTemp("", "run")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	w, err := runlog.Create(dir)
	if err != nil {
		panic(err)
	}
	record := runlog.Record{Step: 1, Seconds: 0.25}
	record.Set("loss", 0.5)
	record.SetList("swap_accept", []float64{0.4, 0.75})
	if err := w.Write(record); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, runlog.MetricsFile))
	if err != nil {
		panic(err)
	}
	fmt.Print(string(data))
	// Output: {"step":1,"seconds":0.250,"loss":0.5,"swap_accept":[0.4,0.75]}
}
