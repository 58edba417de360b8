// Package build says which version of tapwall this is.
package build

import (
	"runtime/debug"
	"sync"
)

// version is set by the linker for releases: -ldflags "-X github.com/tapwall/tapwall/internal/build.version=v1.2.3".
var version string

// Info is what is known of the build.
type Info struct {
	Version  string `json:"version"`            // v1.2.3, or v0.0.0-dev
	Commit   string `json:"commit,omitempty"`   // full hash; "" = not built from a checkout
	Time     string `json:"time,omitempty"`     // of the commit, RFC 3339
	Modified bool   `json:"modified,omitempty"` // the checkout had changes
	Go       string `json:"go"`
}

// Read returns what the linker and the Go toolchain recorded.
var Read = sync.OnceValue(func() Info { return from(version, debug.ReadBuildInfo) })

func from(version string, read func() (*debug.BuildInfo, bool)) Info {
	i := Info{Version: version}
	if bi, ok := read(); ok {
		i.Go = bi.GoVersion
		for _, s := range bi.Settings {
			switch s.Key {
			case "vcs.revision":
				i.Commit = s.Value
			case "vcs.time":
				i.Time = s.Value
			case "vcs.modified":
				i.Modified = s.Value == "true"
			}
		}
		// go install module@version leaves the version here; a plain build says (devel), or invents one from the checkout.
		if i.Version == "" && i.Commit == "" && bi.Main.Version != "(devel)" {
			i.Version = bi.Main.Version
		}
	}
	if i.Version == "" {
		i.Version = "v0.0.0-dev"
	}
	return i
}

// Version is one word for logs, user agents and the API: the version, with the commit where it is not a release.
func Version() string { return Read().String() }

// String is the version, with the commit where it is not a release.
func (i Info) String() string {
	v := i.Version
	if v != "v0.0.0-dev" || i.Commit == "" {
		return v
	}
	v += "+" + i.Commit[:min(12, len(i.Commit))]
	if i.Modified {
		v += ".modified"
	}
	return v
}
