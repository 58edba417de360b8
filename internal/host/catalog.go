package host

import (
	"maps"
	"slices"

	"github.com/tapwall/tapwall/policy"
)

// catalog holds resources by kind and name. The resources in it are immutable.
type catalog map[policy.Kind]map[string]policy.Resource

// set writes a resource, or deletes it if r is nil.
func (c catalog) set(kind policy.Kind, name string, r policy.Resource) {
	byName := c[kind]
	if byName == nil {
		byName = map[string]policy.Resource{}
		c[kind] = byName
	}
	if r == nil {
		delete(byName, name)
	} else {
		byName[name] = r
	}
}

// clone copies the maps.
func (c catalog) clone() catalog {
	out := catalog{}
	for kind, byName := range c {
		out[kind] = maps.Clone(byName)
	}
	return out
}

// groups returns the groups by name.
func (c catalog) groups() map[string]*policy.Group {
	out := map[string]*policy.Group{}
	for name, g := range c[policy.KindGroup] {
		out[name] = g.(*policy.Group)
	}
	return out
}

// ofKind returns the resources of a kind ordered by name.
func ofKind[R policy.Resource](c catalog, kind policy.Kind) []R {
	byName := c[kind]
	out := make([]R, 0, len(byName))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		out = append(out, byName[name].(R))
	}
	return out
}
