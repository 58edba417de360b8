package build

import (
	"runtime/debug"
	"testing"
)

func TestFrom(t *testing.T) {
	vcs := []debug.BuildSetting{{Key: "vcs.revision", Value: "0123456789abcdef0123"}, {Key: "vcs.modified", Value: "true"}}
	for _, tt := range []struct {
		name, linked string
		info         *debug.BuildInfo
		want         string
	}{
		{"release by the linker", "v1.2.3", &debug.BuildInfo{Settings: vcs}, "v1.2.3"},
		{"go install", "", &debug.BuildInfo{Main: debug.Module{Version: "v1.4.0"}}, "v1.4.0"},
		{"checkout", "", &debug.BuildInfo{Main: debug.Module{Version: "(devel)"}, Settings: vcs}, "v0.0.0-dev+0123456789ab.modified"},
		{"checkout, clean", "", &debug.BuildInfo{Settings: vcs[:1]}, "v0.0.0-dev+0123456789ab"},
		{"no information", "", nil, "v0.0.0-dev"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := from(tt.linked, func() (*debug.BuildInfo, bool) { return tt.info, tt.info != nil }).String()
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
