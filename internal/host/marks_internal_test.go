package host

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Sheets bear exactly the marks that they are to bear, a mark stays on its sheet, and what a flow bears can be read from it.
func TestSheets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s sheets
		for range rapid.IntRange(1, 6).Draw(t, "changes") {
			var marks []uint64
			for range rapid.SampledFrom([]int{0, 1, 5, 990, 2500}).Draw(t, "marks") {
				marks = append(marks, rapid.Uint64Range(1, 5000).Draw(t, "mark"))
			}
			slices.Sort(marks)
			marks = slices.Compact(marks)
			before := map[uint64]int{}
			for i, sheet := range s {
				for _, m := range sheet {
					before[m] = i
				}
			}
			s = s.with(marks)
			var seen seenMarks
			var all []uint64
			for i, sheet := range s {
				if len(sheet) > maxMarks {
					t.Fatalf("%d marks on a sheet", len(sheet))
				}
				for _, m := range sheet {
					if was, ok := before[m]; ok && was != i {
						t.Fatalf("mark %d moved from sheet %d to %d", m, was, i)
					}
				}
			}
			for _, f := range s.flows() {
				all = append(all, onSheet(&f)...)
				seen.readBack(&f)
			}
			seen.readBack(nil)
			if slices.Sort(all); !slices.Equal(all, marks) {
				t.Fatalf("%d marks on the sheets, not %d", len(all), len(marks))
			}
			if len(marks) > 0 && (!seen.has(marks[0]) || seen.has(0)) {
				t.Fatal("what was read back is not what was there")
			}
		}
	})
}
