package event_test

import (
	"net/url"
	"testing"

	"github.com/tapwall/tapwall/event"
)

func FuzzParseFilter(f *testing.F) {
	for _, s := range []string{
		"verdict=DROPPED&ip=10.0.0.0/8,::1&port=80&since=5m&limit=10&first=true", "since=1d2h&until=now", "after=9f3a21c4-0001-000000004ok3f",
		"since=9999999999d", "protocol=58,icmpv6&from=a&to=b&endpoint=c", "limit=-1&port=0&verdit=x",
		"not.verdict=DENIED&type=deny,tapwall.flow&tcp-flags=SYN%2BACK&label=a%3Db,c&vlan=0-10&mac=52:54:00:12:34:56&cookie=0x7&ip-version=6",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q, err := url.ParseQuery(s)
		if err != nil {
			return
		}
		got, err := event.ParseFilter(q, noon)
		if err != nil {
			if len(event.ParamErrors(err)) == 0 {
				t.Fatalf("%q: %v names no parameter", s, err)
			}
			return
		}
		again, err := event.ParseFilter(got.Values(), noon)
		if err != nil || again.Values().Encode() != got.Values().Encode() {
			t.Fatalf("%q became %q, then %q, %v", s, got.Values().Encode(), again.Values().Encode(), err)
		}
	})
}

func FuzzParseID(f *testing.F) {
	f.Add("9f3a21c4-0001-000000004ok3f")
	f.Add("9f3a21c4-0001-000000004ok3f-lost")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := event.ParseID(s)
		if err != nil {
			return
		}
		if again, err := event.ParseID(id.String()); err != nil || again != id || id.Sequence < 0 {
			t.Fatalf("%q is %+v, then %+v, %v", s, id, again, err)
		}
	})
}
