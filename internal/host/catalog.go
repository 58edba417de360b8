package host

import (
	"cmp"
	"iter"
	"maps"
	"strings"

	"github.com/benbjohnson/immutable"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/policy"
)

// shelf is a map that is never changed, ordered by its keys: Set and Delete return another one, which shares nearly all with the first. So
// the loop may publish it at every turn, however large it is, and go on.
type shelf[V any] = *immutable.SortedMap[string, V]

type byText struct{}

func (byText) Compare(a, b string) int { return strings.Compare(a, b) }

func newShelf[V any]() shelf[V] { return immutable.NewSortedMap[string, V](byText{}) }

// numberShelf is a shelf by number.
type numberShelf[V any] = *immutable.SortedMap[uint16, V]

type byNumber struct{}

func (byNumber) Compare(a, b uint16) int { return cmp.Compare(a, b) }

func newNumberShelf[V any]() numberShelf[V] { return immutable.NewSortedMap[uint16, V](byNumber{}) }

// each yields what is on a shelf, in order.
func each[K cmp.Ordered, V any](s *immutable.SortedMap[K, V]) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for i := s.Iterator(); !i.Done(); {
			if k, v, _ := i.Next(); !yield(k, v) {
				return
			}
		}
	}
}

// lookUp is Get for those who can do with the zero value.
func lookUp[V any](s shelf[V], key string) V {
	v, _ := s.Get(key)
	return v
}

// catalog holds resources by kind and name. Neither it nor the resources in it are ever changed.
type catalog map[policy.Kind]shelf[policy.Resource]

func newCatalog() catalog {
	c := catalog{}
	for _, kind := range policy.Kinds() {
		c[kind] = newShelf[policy.Resource]()
	}
	return c
}

// with returns the catalog after changes.
func (c catalog) with(changes []backend.Change) catalog {
	out := maps.Clone(c)
	for _, x := range changes {
		out.set(x.Kind, x.Name, x.Resource)
	}
	return out
}

// set is for a catalog that nobody else has yet. r nil = delete.
func (c catalog) set(kind policy.Kind, name string, r policy.Resource) {
	if r == nil {
		c[kind] = c[kind].Delete(name)
	} else {
		c[kind] = c[kind].Set(name, r)
	}
}

// get returns a resource, nil if there is none.
func (c catalog) get(kind policy.Kind, name string) policy.Resource {
	if c[kind] == nil {
		return nil // no such kind
	}
	return lookUp(c[kind], name)
}

// groups returns the groups by name.
func (c catalog) groups() map[string]*policy.Group {
	out := map[string]*policy.Group{}
	for name, g := range each(c[policy.KindGroup]) {
		out[name] = g.(*policy.Group)
	}
	return out
}

// ofKind returns the resources of a kind ordered by name.
func ofKind[R policy.Resource](c catalog, kind policy.Kind) []R {
	out := make([]R, 0, c[kind].Len())
	for _, r := range each(c[kind]) {
		out = append(out, r.(R))
	}
	return out
}
