package duration_test

import (
	"testing"
	"time"

	"github.com/tapwall/tapwall/duration"
)

func TestParse(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"0": 0, "90s": 90 * time.Second, "1h30m": 90 * time.Minute, "30d": 30 * day, "0d": 0, "1d12h": 36 * time.Hour, "2d90s": 2*day +
			90*time.Second,
		"1.5h": 90 * time.Minute, "73000d": 73000 * day, "72999d24h": 73000 * day,
	} {
		if got, err := duration.Parse(text); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "d", "30", "-1h", "-1d", "+1d", "1d-1h", "1h1d", "1.5d", "1d2d", "1d 2h", "73001d", "73000d1s",
		"9999999999h",
		"1w", "soon",
		"1d+1h"} {
		if got, err := duration.Parse(text); err == nil {
			t.Errorf("%q is taken for %v", text, got)
		} else if err.Error() != "want "+duration.Forms {
			t.Errorf("%q: %v", text, err)
		}
	}
}
