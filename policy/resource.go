package policy

import (
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"
)

// Resource is a *Mirror, *Policy, *Group, *Endpoint or *Quarantine. Values handed from one part of the program to another are not changed
// any more; who wants another one clones it first.
type Resource interface {
	// GetMeta returns the resource's own Meta, not a copy.
	GetMeta() *Meta
	Kind() Kind
	// Validate lists everything that is wrong with the resource by itself, ordered by pointer as the document reads. References to other
	// resources are ValidateRefs' business.
	Validate() Faults
	// WithDefaults returns a copy in which the defaults are written out, as the API shows resources.
	WithDefaults() Resource
	// Clone returns a deep copy.
	Clone() Resource
}

// Kinds lists the kinds in the order in which documents depend on each other: what is referred to comes first.
func Kinds() []Kind { return []Kind{KindEndpoint, KindGroup, KindPolicy, KindMirror, KindQuarantine} }

// Plural is the kind as paths of the API spell it: "policies". It is "" for an unknown kind.
func (k Kind) Plural() string {
	switch k {
	case KindMirror:
		return "mirrors"
	case KindPolicy:
		return "policies"
	case KindGroup:
		return "groups"
	case KindEndpoint:
		return "endpoints"
	case KindQuarantine:
		return "quarantines"
	}
	return ""
}

// String returns the kind as documents spell it.
func (k Kind) String() string { return string(k) }

// New returns an empty resource of the kind, or nil for an unknown kind.
func New(k Kind) Resource {
	switch k {
	case KindMirror:
		return new(Mirror)
	case KindPolicy:
		return new(Policy)
	case KindGroup:
		return new(Group)
	case KindEndpoint:
		return new(Endpoint)
	case KindQuarantine:
		return new(Quarantine)
	}
	return nil
}

// GetMeta implements Resource for the types that embed Meta.
func (m *Meta) GetMeta() *Meta { return m }

// Kind implements Resource.
func (*Mirror) Kind() Kind { return KindMirror }

// Kind implements Resource.
func (*Policy) Kind() Kind { return KindPolicy }

// Kind implements Resource.
func (*Group) Kind() Kind { return KindGroup }

// Kind implements Resource.
func (*Endpoint) Kind() Kind { return KindEndpoint }

// Clone implements Resource.
func (m *Mirror) Clone() Resource { return clone(m) }

// Clone implements Resource.
func (p *Policy) Clone() Resource { return clone(p) }

// Clone implements Resource.
func (g *Group) Clone() Resource {
	c := *g
	c.Spec.Change = nil // the members may be changed from now on
	return clone(&c)
}

// Clone implements Resource.
func (e *Endpoint) Clone() Resource { return clone(e) }

// WithDefaults implements Resource: enabled, direction, and the ports of VXLAN and Geneve and the version of ERSPAN.
func (m *Mirror) WithDefaults() Resource {
	c := clone(m)
	if c.Spec.Enabled == nil {
		c.Spec.Enabled = ptr(true)
	}
	if c.Spec.Direction == "" {
		c.Spec.Direction = MirrorBoth
	}
	for _, t := range c.Spec.Targets {
		if t.VXLAN != nil && t.VXLAN.DstPort == 0 {
			t.VXLAN.DstPort = DefaultVXLANPort
		}
		if t.Geneve != nil && t.Geneve.DstPort == 0 {
			t.Geneve.DstPort = DefaultGenevePort
		}
		if t.ERSPAN != nil && t.ERSPAN.Version == 0 {
			t.ERSPAN.Version = DefaultERSPANVersion
		}
	}
	return c
}

// WithDefaults implements Resource: tier, priority, mode and both directions of defaultDeny.
func (p *Policy) WithDefaults() Resource {
	c := clone(p)
	c.Spec.Tier = p.EffectiveTier()
	c.Spec.Priority = ptr(p.EffectivePriority())
	if c.Spec.Mode == "" {
		c.Spec.Mode = ModeEnforce
	}
	if c.Spec.DefaultDeny == nil {
		c.Spec.DefaultDeny = new(DefaultDeny)
	}
	c.Spec.DefaultDeny.Ingress = ptr(p.Isolates(Ingress))
	c.Spec.DefaultDeny.Egress = ptr(p.Isolates(Egress))
	return c
}

// WithDefaults implements Resource; a group has none, and its members are not copied.
func (g *Group) WithDefaults() Resource {
	c := *g
	return &c
}

// WithDefaults implements Resource; an endpoint has none.
func (e *Endpoint) WithDefaults() Resource { return clone(e) }

func ptr[T any](v T) *T { return &v }

// clone copies every map, slice and pointer below v. It follows the types by reflection, so that a field added to the specification
// cannot be forgotten; it runs at the rate of API calls only.
func clone[T any](v *T) *T {
	c := new(T)
	deepCopy(reflect.ValueOf(c).Elem(), reflect.ValueOf(v).Elem())
	return c
}

func deepCopy(dst, src reflect.Value) {
	dst.Set(src) // scalars, strings and time.Time (whose location is shared and never changes)
	switch src.Kind() {
	case reflect.Pointer:
		if !src.IsNil() {
			dst.Set(reflect.New(src.Type().Elem()))
			deepCopy(dst.Elem(), src.Elem())
		}
	case reflect.Slice:
		if !src.IsNil() {
			dst.Set(reflect.MakeSlice(src.Type(), src.Len(), src.Len()))
			for i := range src.Len() {
				deepCopy(dst.Index(i), src.Index(i))
			}
		}
	case reflect.Map: // of strings to strings, the only ones in the specifications
		if !src.IsNil() {
			dst.Set(reflect.MakeMapWithSize(src.Type(), src.Len()))
			for it := src.MapRange(); it.Next(); {
				dst.SetMapIndex(it.Key(), it.Value())
			}
		}
	case reflect.Struct:
		for _, i := range referring(src.Type()) {
			deepCopy(dst.Field(i), src.Field(i))
		}
	}
}

// referring lists the fields of a struct below which there is something to copy. A group may have 100,000 selectors, most of whose fields
// are texts.
func referring(t reflect.Type) []int {
	if known, ok := referringFields.Load(t); ok {
		return known.([]int)
	}
	var fields []int
	if t != reflect.TypeFor[time.Time]() {
		for i := range t.NumField() {
			switch f := t.Field(i).Type; f.Kind() {
			case reflect.Pointer, reflect.Slice, reflect.Map:
				fields = append(fields, i)
			case reflect.Struct:
				if len(referring(f)) > 0 {
					fields = append(fields, i)
				}
			}
		}
	}
	referringFields.Store(t, fields)
	return fields
}

var referringFields sync.Map // reflect.Type to []int

// sortedKeys returns the keys of m in order, so that what is derived from m does not depend on map order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
