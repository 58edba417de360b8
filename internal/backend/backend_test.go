package backend_test

import (
	"reflect"
	"testing"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/internal/backend"
)

// A kill asks it: a field that it forgets would make a narrow kill one of everything, or refuse it.
func TestEverything(t *testing.T) {
	if q := (backend.ConnectionQuery{Force: true, Limit: 5, Filter: event.Filter{Limit: 7}}); !q.Everything() {
		t.Errorf("%+v leaves something out", q)
	}
	unread := map[string]bool{"Force": true, "Limit": true}
	set := func(v reflect.Value) {
		switch v.Kind() {
		case reflect.String:
			v.SetString("x")
		case reflect.Slice:
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		case reflect.Struct:
			v.Set(reflect.ValueOf(event.Filter{Bridge: []string{"br0"}}))
		default:
			t.Fatalf("the test cannot set a %v", v.Kind())
		}
	}
	for i := range reflect.TypeFor[backend.ConnectionQuery]().NumField() {
		var q backend.ConnectionQuery
		f := reflect.TypeFor[backend.ConnectionQuery]().Field(i)
		if unread[f.Name] {
			continue
		}
		set(reflect.ValueOf(&q).Elem().Field(i))
		if q.Everything() {
			t.Errorf("with %s it leaves nothing out", f.Name)
		}
	}
}
