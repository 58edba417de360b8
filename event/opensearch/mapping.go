package opensearch

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/tapwall/tapwall/event"
)

// longestKeyword is the most characters of a text that are indexed: longer ones stay in the document and are not found by it. A term of
// more than 32,766 bytes would have the whole document refused.
const longestKeyword = 1024

// properties is the mapping of the fields of a type of package event, by their JSON names. Types follow from those of Go, but where a tag
// es says otherwise. A type that it does not know is an error of ours, which a test finds.
func properties(t reflect.Type) map[string]any {
	out := map[string]any{}
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		out[name] = mappingOf(f.Type, f.Tag.Get("es"))
	}
	return out
}

func mappingOf(t reflect.Type, tag string) map[string]any {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	switch {
	case tag == "ip":
		return map[string]any{"type": "ip", "ignore_malformed": true}
	case tag != "":
		return map[string]any{"type": tag}
	case t == reflect.TypeFor[time.Time]():
		return map[string]any{"type": "date_nanos"}
	case t.Kind() == reflect.String:
		return map[string]any{"type": "keyword", "ignore_above": longestKeyword}
	case t.Kind() == reflect.Bool:
		return map[string]any{"type": "boolean"}
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint32:
		return map[string]any{"type": "long"}
	case t.Kind() == reflect.Map:
		// One field whatever the keys: app beside app.kubernetes.io/name would be a value and an object of the same name.
		return map[string]any{"type": "flat_object"}
	case t.Kind() == reflect.Struct:
		return map[string]any{"properties": properties(t)}
	}
	panic(fmt.Sprintf("opensearch: no mapping for %v", t))
}

// Mappings is that of an event in every index. Fields that it does not name are kept and not indexed.
func Mappings() map[string]any {
	return map[string]any{"dynamic": false, "properties": properties(reflect.TypeFor[event.Event]())}
}
