package fleet

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/internal/host"
)

// Captures implements api.Engine.
func (f *Fleet) Captures(mirror string) (out []wire.Capture) {
	for _, e := range f.hosts {
		out = append(out, e.Captures(mirror)...)
	}
	slices.SortStableFunc(out, func(a, b wire.Capture) int { return strings.Compare(a.Mirror, b.Mirror) })
	return out
}

// Packets implements api.Engine.
func (f *Fleet) Packets(q backend.CaptureQuery) (backend.WritePackets, error) {
	return oneOf(f, q.Host, "packets of mirror "+q.Mirror, func(e *host.Engine) (backend.WritePackets, error) { return e.Packets(q) },
		func(backend.WritePackets) {})
}

// CaptureFile implements api.Engine.
func (f *Fleet) CaptureFile(mirror, id, file string) (backend.CaptureFile, error) {
	return oneOf(f, id, "file "+file, func(e *host.Engine) (backend.CaptureFile, error) { return e.CaptureFile(mirror, file) },
		func(x backend.CaptureFile) { _ = x.Close() })
}

// oneOf returns what the host with an id has, or the only one that has it; if several have it, what is there of each is released.
func oneOf[T any](f *Fleet, id, what string, ask func(*host.Engine) (T, error), release func(T)) (out T, err error) {
	var none T
	var has []string
	asked := 0
	for _, e := range f.hosts {
		if id != "" && e.Name() != id {
			continue
		}
		asked++
		x, e2 := ask(e)
		switch {
		case e2 == nil:
			if len(has) > 0 {
				release(x)
			} else {
				out = x
			}
			has = append(has, e.Name())
		case err == nil || errors.Is(err, backend.ErrNotFound):
			err = e2
		}
	}
	switch {
	case asked == 0:
		return none, fmt.Errorf("host %q: %w", id, backend.ErrNotFound)
	case len(has) > 1:
		release(out)
		return none, fmt.Errorf("%w: %s are on several hosts; say which by host: %s", backend.ErrUnable, what, strings.Join(has, ", "))
	case len(has) == 1:
		return out, nil
	}
	return none, err
}
