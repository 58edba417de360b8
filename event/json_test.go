package event_test

import (
	"encoding/json"
	"reflect"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/event"
)

// fill sets every field below v by pick, so that a field added later is in the comparison too.
func fill(v reflect.Value, pick func(reflect.Value)) {
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		pick(v)
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), pick)
		}
	case v.Kind() == reflect.Pointer:
		if pick(v); !v.IsNil() {
			fill(v.Elem(), pick)
		}
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct:
		pick(v)
		for i := range v.Len() {
			fill(v.Index(i), pick)
		}
	default:
		pick(v)
	}
}

func compareJSON(t interface{ Errorf(string, ...any) }, e *event.Event) {
	want, err := json.Marshal(e)
	got, err2 := event.AppendJSON([]byte("before"), e)
	if (err != nil) != (err2 != nil) {
		t.Errorf("json.Marshal says %v, AppendJSON %v", err, err2)
		return
	}
	if string(got) != "before"+string(want) {
		t.Errorf("\n got %s\nwant before%s", got, want)
	}
}

func TestAppendJSON(t *testing.T) {
	compareJSON(t, &event.Event{})
	var e event.Event
	n := 0
	fill(reflect.ValueOf(&e).Elem(), func(v reflect.Value) {
		n++
		switch v.Interface().(type) {
		case time.Time:
			v.Set(reflect.ValueOf(noon.Add(time.Duration(n) * time.Nanosecond)))
		case []string:
			v.Set(reflect.ValueOf([]string{strconv.Itoa(n), "b"}))
		case map[string]string:
			v.Set(reflect.ValueOf(map[string]string{"b": strconv.Itoa(n), "a": "x"}))
		default:
			switch v.Kind() {
			case reflect.Pointer:
				v.Set(reflect.New(v.Type().Elem()))
			case reflect.String:
				v.SetString(strconv.Itoa(n))
			case reflect.Int, reflect.Int64:
				v.SetInt(int64(n))
			case reflect.Uint32:
				v.SetUint(uint64(n))
			case reflect.Bool:
				v.SetBool(true)
			case reflect.Slice:
				v.Set(reflect.MakeSlice(v.Type(), 2, 2))
			default:
				t.Fatalf("a field of type %v is not tried", v.Type())
			}
		}
	})
	compareJSON(t, &e)
	if n := testing.AllocsPerRun(100, func() {
		var room [4096]byte
		if _, err := event.AppendJSON(room[:0], &e); err != nil {
			t.Error(err)
		}
	}); n > 1 {
		t.Errorf("%v allocations", n)
	}
	e.Timestamp = time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC)
	if b, err := event.AppendJSON([]byte("before"), &e); err == nil || string(b) != "before" {
		t.Errorf("a year JSON cannot hold: %s, %v", b, err)
	}
}

func TestAppendJSONRandom(t *testing.T) {
	text := rapid.OneOf(rapid.Just(""), rapid.String(), rapid.SampledFrom([]string{"<&>", "\x1b[31m", "\u2028", "\xff", `"\`, "ä"}))
	rapid.Check(t, func(rt *rapid.T) {
		var e event.Event
		fill(reflect.ValueOf(&e).Elem(), func(v reflect.Value) {
			switch v.Interface().(type) {
			case time.Time:
				ns := rapid.Int64Range(0, 4e18).Draw(rt, "time")
				at := time.Unix(0, ns).UTC()
				if ns%2 == 0 {
					at = at.In(time.FixedZone("", 5400))
				}
				v.Set(reflect.ValueOf(at))
			case []string:
				v.Set(reflect.ValueOf(rapid.SliceOfN(text, 0, 3).Draw(rt, "list")))
			case map[string]string:
				v.Set(reflect.ValueOf(rapid.MapOfN(text, text, 0, 20).Draw(rt, "map")))
			default:
				switch v.Kind() {
				case reflect.Pointer:
					if rapid.Bool().Draw(rt, "set") {
						v.Set(reflect.New(v.Type().Elem()))
					}
				case reflect.String:
					v.SetString(text.Draw(rt, "text"))
				case reflect.Int, reflect.Int64:
					v.SetInt(rapid.OneOf(rapid.Just(int64(0)), rapid.Int64()).Draw(rt, "int"))
				case reflect.Uint32:
					v.SetUint(uint64(rapid.Uint32().Draw(rt, "uint")))
				case reflect.Bool:
					v.SetBool(rapid.Bool().Draw(rt, "bool"))
				case reflect.Slice:
					n := rapid.IntRange(0, 3).Draw(rt, "length")
					v.Set(reflect.MakeSlice(v.Type(), n, n))
				default:
					rt.Fatalf("a field of type %v is not tried", v.Type())
				}
			}
		})
		compareJSON(rt, &e)
	})
}
