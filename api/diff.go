package api

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/tapwall/tapwall/policy"
)

// sameWish reports whether two resources ask for the same, written-out defaults or not.
func sameWish(a, b policy.Resource) bool {
	if a, ok := a.(*policy.Group); ok {
		b, ok := b.(*policy.Group)
		return ok && maps.Equal(a.Labels, b.Labels) && a.Spec.Same(&b.Spec)
	}
	return bytes.Equal(wishText(a), wishText(b))
}

// wish is wishText as encoding/json reads it back.
func wish(r policy.Resource) any { return decodeAny(wishText(r)) }

// wishText is what a user can ask for: labels and spec with defaults. It is the same text for the same wish, as encoding/json sorts the
// keys of maps.
func wishText(r policy.Resource) []byte {
	text, err := json.Marshal(struct {
		Labels map[string]string `json:"labels,omitempty"`
		Spec   any               `json:"spec"`
	}{r.GetMeta().Labels, specOf(r)})
	if err != nil { // the specifications hold nothing that cannot be encoded
		panic(fmt.Sprintf("api: %s: %v", refName(r.Kind(), r.GetMeta().Name), err))
	}
	return text
}

// decodeAny reads JSON that this program wrote.
func decodeAny(text []byte) any {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		panic(fmt.Sprintf("api: %v", err))
	}
	return v
}

// fieldChanges lists the fields in which what is written differs from what it replaces.
func fieldChanges(before, after policy.Resource) []FieldChange {
	if change, ok := memberChange(before, after); ok {
		return diffMembers(before.(*policy.Group), change)
	}
	return diff(before, after)
}

// diff lists the fields that differ, by pointer. Elements of lists are paired by their name where all have one, so that a rule that
// was put in front of others shows as one addition; otherwise those that are in both lists are left out, and the others go by position.
func diff(old, new policy.Resource) []FieldChange {
	var out []FieldChange
	if a, ok := old.(*policy.Group); ok {
		if b, ok := new.(*policy.Group); ok && diffGroup(a, b, &out) {
			return out
		}
	}
	diffAny("", wish(old), wish(new), &out)
	return out
}

// diffGroup does so for groups, which may have many members; it reports whether others than their order differ.
func diffGroup(old, new *policy.Group, out *[]FieldChange) bool {
	a, b := memberTexts(old.Spec.Members), memberTexts(new.Spec.Members)
	inOld, inNew := inBoth(a, b), inBoth(b, a)
	if !slices.Contains(inOld, false) && !slices.Contains(inNew, false) {
		return false
	}
	for i := range a {
		if !inOld[i] {
			a[i] = decodeAny(textOf(&old.Spec.Members[i]))
		}
	}
	for i := range b {
		if !inNew[i] {
			b[i] = decodeAny(textOf(&new.Spec.Members[i]))
		}
	}
	x, y := *old, *new
	x.Spec.Members, y.Spec.Members = []policy.Selector{}, []policy.Selector{}
	diffAny("", wish(&x), wish(&y), out)
	diffRest("/spec/members", a, b, inOld, inNew, out)
	slices.SortStableFunc(*out, func(x, y FieldChange) int { // members come ahead of what else the spec has
		return cmp.Compare(fieldOf(x.Pointer), fieldOf(y.Pointer))
	})
	return true
}

// fieldOf is the part of a pointer that says which field of a resource, or of its spec, it is in.
func fieldOf(pointer string) string {
	parts := strings.SplitN(pointer, "/", 4)
	return strings.Join(parts[:min(3, len(parts))], "/")
}

// memberTexts are the same for equal members only.
func memberTexts(members []policy.Selector) []any {
	out := make([]any, len(members))
	for i := range members {
		if m := &members[i]; m.Kind() == policy.SelectCIDR && m.Except == nil && m.Host == "" {
			out[i] = m.CIDR
		} else {
			out[i] = string(textOf(m))
		}
	}
	return out
}

func textOf(m *policy.Selector) []byte {
	text, err := json.Marshal(m)
	if err != nil { // the specifications hold nothing that cannot be encoded
		panic(fmt.Sprintf("api: %v", err))
	}
	return text
}

func diffAny(at string, old, new any, out *[]FieldChange) {
	if reflect.DeepEqual(old, new) {
		return
	}
	switch o := old.(type) {
	case map[string]any:
		if n, ok := new.(map[string]any); ok {
			keys := maps.Clone(o)
			maps.Copy(keys, n)
			for _, k := range slices.Sorted(maps.Keys(keys)) {
				diffAny(at+"/"+escapePointer(k), o[k], n[k], out)
			}
			return
		}
	case []any:
		if n, ok := new.([]any); ok {
			diffList(at, o, n, out)
			return
		}
	}
	*out = append(*out, FieldChange{Pointer: at, Old: old, New: new})
}

func diffList(at string, old, new []any, out *[]FieldChange) {
	oldNames, ok := names(old)
	newNames, ok2 := names(new)
	if !ok || !ok2 {
		known := len(*out)
		if diffRest(at, old, new, inBoth(old, new), inBoth(new, old), out); len(*out) == known { // only the order differs
			diffRest(at, old, new, make([]bool, len(old)), make([]bool, len(new)), out)
		}
		return
	}
	for i, name := range newNames {
		var o any
		if j := slices.Index(oldNames, name); j >= 0 {
			o = old[j]
		}
		diffAny(fmt.Sprintf("%s/%d", at, i), o, new[i], out)
	}
	for j, name := range oldNames {
		if !slices.Contains(newNames, name) {
			diffAny(fmt.Sprintf("%s/%d", at, j), old[j], nil, out)
		}
	}
}

// diffRest compares by position what is in one of two lists only; skip leaves out elements.
func diffRest(at string, old, new []any, skipOld, skipNew []bool, out *[]FieldChange) {
	for i := range max(len(old), len(new)) {
		var o, n any
		if i < len(old) && !skipOld[i] {
			o = old[i]
		}
		if i < len(new) && !skipNew[i] {
			n = new[i]
		}
		if o != nil || n != nil {
			diffAny(fmt.Sprintf("%s/%d", at, i), o, n, out)
		}
	}
}

// inBoth says of each element of a list whether the other list has it too, each as often as it has it.
func inBoth(list, other []any) []bool {
	have := make(map[string]int, len(other))
	for _, v := range other {
		have[elementText(v)]++
	}
	both := make([]bool, len(list))
	for i, v := range list {
		text := elementText(v)
		both[i] = have[text] > 0
		have[text]--
	}
	return both
}

// elementText is the same for equal elements only.
func elementText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case map[string]any: // of one text, as most members of a large group are
		for k, value := range v {
			if text, ok := value.(string); ok && len(v) == 1 {
				return k + "\x00" + text
			}
		}
	}
	text, err := json.Marshal(v)
	if err != nil { // it was read from JSON
		panic(fmt.Sprintf("api: %v", err))
	}
	return "\x01" + string(text)
}

// names returns the name of each element; ok is false if one has none.
func names(list []any) (out []string, ok bool) {
	for _, v := range list {
		m, _ := v.(map[string]any)
		name, ok := m["name"].(string)
		if !ok {
			return nil, false
		}
		out = append(out, name)
	}
	return out, true
}

// escapePointer follows RFC 6901 §3.
func escapePointer(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "~", "~0"), "/", "~1")
}

// mergePatch applies a JSON merge patch (RFC 7386 §2). It changes neither argument.
func mergePatch(target, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	t, _ := target.(map[string]any)
	out := maps.Clone(t)
	if out == nil {
		out = map[string]any{}
	}
	for k, v := range p {
		if v == nil {
			delete(out, k)
		} else {
			out[k] = mergePatch(out[k], v)
		}
	}
	return out
}
