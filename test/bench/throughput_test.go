package main

import "testing"

// The ranks are those of the binomial distribution: P(fewer than 4 of 15 below the median) = 1.8 %, P(fewer than 5) = 5.9 %.
func TestMedianInterval(t *testing.T) {
	var xs []float64
	for i := range 15 {
		xs = append(xs, float64((i*7)%15+1)) // 1…15, shuffled
	}
	if mid, low, high := medianInterval(xs); mid != 8 || low != 4 || high != 12 {
		t.Errorf("median %v in %v-%v, want 8 in 4-12", mid, low, high)
	}
}
