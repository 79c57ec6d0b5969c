package main

import "testing"

// Forty replicas, each with one rung, come to the index process of the serial program.
func TestIndexProcess(t *testing.T) {
	if _, err := measure(t.Context(), 40, 3, 60); err != nil {
		t.Fatal(err)
	}
}

// The stand-in swaps a third of the time.
func TestAcceptance(t *testing.T) {
	const rungs, chains, scans = 12, 50, 400
	walkers, err := serial(rungs, chains, scans)
	if err != nil {
		t.Fatal(err)
	}
	swapped, tried := 0, 0
	for scan := 1; scan < scans; scan++ {
		for pair := scan % 2; pair < rungs-1; pair += 2 {
			for j := range chains {
				tried++
				if walkers[scan][pair*chains+j] != walkers[scan-1][pair*chains+j] {
					swapped++
				}
			}
		}
	}
	if share := float64(swapped) / float64(tried); share < 0.32 || share > 0.35 { // 110,000 tries: five standard errors are 0.007
		t.Errorf("%.3f of the swaps are accepted, want 1/3", share)
	}
}
