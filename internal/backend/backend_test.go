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
	unread := map[string]bool{"Force": true, "Limit": true, "Filter": true, "Verdict": true, "Action": true, "Endpoint": true,
		"FromName": true, "ToName": true, "Since": true, "Until": true, "After": true, "First": true}
	set := func(v reflect.Value) {
		switch v.Kind() {
		case reflect.String:
			v.SetString("x")
		case reflect.Slice:
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		default:
			t.Fatalf("the test cannot set a %v", v.Kind())
		}
	}
	for i := range reflect.TypeFor[backend.ConnectionQuery]().NumField() {
		var q backend.ConnectionQuery
		f := reflect.TypeFor[backend.ConnectionQuery]().Field(i)
		if unread[f.Name] && f.Name != "Endpoint" {
			continue
		}
		set(reflect.ValueOf(&q).Elem().Field(i))
		if q.Everything() {
			t.Errorf("with %s it leaves nothing out", f.Name)
		}
	}
	for i := range reflect.TypeFor[event.Filter]().NumField() {
		var q backend.ConnectionQuery
		f := reflect.TypeFor[event.Filter]().Field(i)
		if unread[f.Name] {
			continue
		}
		set(reflect.ValueOf(&q.Filter).Elem().Field(i))
		if q.Everything() {
			t.Errorf("with %s of the filter it leaves nothing out", f.Name)
		}
	}
}
