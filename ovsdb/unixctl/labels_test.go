package unixctl_test

import (
	"strings"
	"testing"

	"github.com/tapwall/tapwall/ovsdb/unixctl"
)

// A label is read whole, or refused in words.
func TestParseLabels(t *testing.T) {
	for text, want := range map[string][2]uint64{
		"0x0": {}, "0xAb": {0, 0xab}, "0x19b9141119b9140019b9143519b91432": {0x19b9141119b91400, 0x19b9143519b91432},
		"0x1" + strings.Repeat("0", 16): {1, 0},
	} {
		if hi, lo, err := unixctl.ParseLabels(text); err != nil || hi != want[0] || lo != want[1] {
			t.Errorf("%s: %#x %#x, %v", text, hi, lo, err)
		}
	}
	for _, text := range []string{"", "0x", "12", "0xzz", "0x-1", "0x+1", "0x1_0", "0x" + strings.Repeat("1", 33)} {
		if _, _, err := unixctl.ParseLabels(text); err == nil || err.Error() != "want 0x and at most 32 hexadecimal digits" {
			t.Errorf("%q: %v", text, err)
		}
	}
}
