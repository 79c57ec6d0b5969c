package plots_test

import (
	"fmt"
	"math"
	"os"
	"path/filepath"

	"github.com/kelvin-ebm/kelvin/pkg/plots"
)

func ExampleLandscape() {
	grid := plots.NewGrid(-3, 3, -2, 2, 121, 81)
	points := grid.Points()
	for i := range grid.Values {
		grid.Values[i] = math.Pow(points[2*i]*points[2*i]-1, 2) + 2*points[2*i+1]*points[2*i+1] // a double well
	}
	density, err := grid.Density()
	if err != nil {
		panic(err)
	}
	figure, err := plots.Landscape(density, plots.LandscapeOptions{Title: "double well"})
	if err != nil {
		panic(err)
	}
	dir, err := os.MkdirTemp("", "plots")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	fmt.Println(figure.Save(filepath.Join(dir, "landscape.svg")))
	// Output: <nil>
}
