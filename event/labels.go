package event

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// MaxLabels is how many bytes the keys and values of the labels of a side have together at most. OpenSearch refuses a whole document for
// one term of more than 32,766, and labels may be external_ids of Open vSwitch, which have no bound.
const MaxLabels = 32_000

// Cut is the text, or as much of it as fits into so many bytes, and "…".
func Cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// BoundedLabels are the labels, without the largest if they are more than MaxLabels together. They are the same map if they are not.
func BoundedLabels(labels map[string]string) map[string]string {
	size := func(key string) int { return len(key) + len(labels[key]) }
	all := 0
	for key := range labels {
		all += size(key)
	}
	if all <= MaxLabels {
		return labels
	}
	out := map[string]string{}
	room := MaxLabels
	for _, key := range slices.SortedFunc(maps.Keys(labels), func(a, b string) int {
		return cmp.Or(cmp.Compare(size(a), size(b)), cmp.Compare(a, b))
	}) {
		if room -= size(key); room < 0 {
			break
		}
		out[key] = labels[key]
	}
	return out
}
