package learn_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/internal/learn"
	"github.com/tapwall/tapwall/policy"
)

var began = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

var networks = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16"), netip.MustParsePrefix("10.9.0.0/16")}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func claim(mac learn.MAC, ip string) learn.Claim {
	return learn.Claim{MAC: mac, Address: addr(ip), Source: learn.ARP}
}

// vm is an endpoint of br0 with one MAC address.
func vm(key string, mac learn.MAC, edit ...func(*policy.Workload)) *policy.Workload {
	w := &policy.Workload{Key: key, Bridge: "br0", Port: "tap-" + key, OFPort: 1, MAC: mac.String()}
	for _, f := range edit {
		f(w)
	}
	return w
}

func declares(ip string) func(*policy.Workload) {
	return func(w *policy.Workload) { w.Addresses = append(w.Addresses, addr(ip)) }
}

func everywhere(string) bool { return true }

// Whom is believed what, one after the other in one table.
func TestNote(t *testing.T) {
	held := func(w *policy.Workload) {
		w.Guard = &policy.Guard{Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.32/28")}}
	}
	a, b, c, d := learn.MAC{2, 1}, learn.MAC{2, 2}, learn.MAC{2, 3}, learn.MAC{2, 4}
	twice := learn.MAC{2, 9}
	vlan := func(n int) func(*policy.Workload) { return func(w *policy.Workload) { w.VLAN = n } }
	w := learn.NewWorld([]*policy.Workload{vm("a", a), vm("b", b), vm("c", c, declares("10.0.0.3")), vm("d", d, held),
		vm("e", twice), vm("f", twice), vm("g", learn.MAC{2, 10}, vlan(10)), vm("h", learn.MAC{2, 11}, vlan(20)),
		{Key: "endpoint/far", Remote: true, Addresses: []netip.Addr{addr("10.0.0.4")}}}, []netip.Addr{addr("10.0.0.1")})
	tab := learn.NewTable(learn.Limits{Networks: networks, PerEndpoint: 3, PerHost: 6, Age: time.Minute})
	for i, x := range []struct {
		sender string
		vlan   int
		claim  learn.Claim
		want   learn.Reason
		by     string
	}{
		{"a", 0, claim(a, "10.0.0.5"), learn.Learned, ""},
		{"a", 0, claim(a, "10.0.0.5"), learn.Seen, ""},
		{"b", 0, claim(b, "10.0.0.5"), learn.Taken, "endpoint a was the first to use"},
		{"b", 0, claim(b, "8.8.8.8"), learn.Outside, ""},
		{"b", 0, claim(b, "10.1.0.1"), learn.Outside, ""},
		{"b", 0, claim(a, "10.0.0.6"), learn.Stranger, ""},
		{"b", 0, claim(learn.MAC{2, 99}, "10.0.0.6"), learn.Stranger, ""},
		{"e", 0, claim(twice, "10.0.0.6"), learn.Stranger, ""},
		{"", 0, claim(twice, "10.0.0.6"), learn.Stranger, ""},
		{"b", 0, claim(b, "10.0.0.3"), learn.Taken, "endpoint c declares"},
		{"b", 0, claim(b, "10.0.0.4"), learn.Taken, "endpoint endpoint/far declares"},
		{"b", 0, claim(b, "10.0.0.1"), learn.Taken, "the host has"},
		{"c", 0, claim(c, "10.0.0.3"), learn.Declared, ""},
		{"d", 0, claim(d, "10.0.0.5"), learn.Spoofed, ""},
		{"d", 0, claim(d, "10.0.0.33"), learn.Learned, ""},
		{"", 0, learn.Claim{MAC: b, Address: addr("10.0.0.7"), Source: learn.DHCP, Lease: time.Hour}, learn.Learned, ""},
		{"g", 10, claim(learn.MAC{2, 10}, "10.0.0.5"), learn.Learned, ""}, // another network
		{"h", 20, claim(learn.MAC{2, 11}, "10.0.0.5"), learn.Learned, ""},
		{"g", 20, claim(learn.MAC{2, 10}, "10.0.0.8"), learn.Stranger, ""},
		{"a", 0, claim(a, "10.0.0.10"), learn.Learned, ""},
		{"a", 0, claim(a, "10.0.0.11"), learn.Full, ""}, // the host's
		{"b", 0, claim(b, "10.0.0.7"), learn.Seen, ""},
	} {
		got := tab.Note(w, x.sender, "br0", x.vlan, x.claim, began)
		if got.Reason != x.want || got.By != x.by {
			t.Errorf("%d: %s claims %v: %s (%q), want %s (%q)", i, x.sender, x.claim.Address, got.Reason, got.By, x.want, x.by)
		}
	}
	if got := fmt.Sprint(learn.Addresses(
		tab.Entries())); got != "map[a:[10.0.0.5 10.0.0.10] b:[10.0.0.7] d:[10.0.0.33] g:[10.0.0.5] h:[10.0.0.5]]" {
		t.Errorf("learned: %s", got)
	}
	more := learn.NewTable(learn.Limits{Networks: networks, PerEndpoint: 2, PerHost: 100, Age: time.Minute})
	for i, want := range []learn.Reason{learn.Learned, learn.Learned, learn.Full} {
		if got := more.Note(w, "a", "br0", 0, claim(a, fmt.Sprintf("10.0.1.%d", i)), began); got.Reason != want {
			t.Errorf("address %d of an endpoint: %s, want %s", i, got.Reason, want)
		}
	}
}

// What is forgotten, and when.
func TestTend(t *testing.T) {
	a := learn.MAC{2, 1}
	same := vm("a", a)
	for _, c := range []struct {
		name  string
		now   *policy.Workload // nil = gone
		also  *policy.Workload
		looks bool
		after time.Duration
		want  string
	}{
		{"nothing", same, nil, true, time.Minute - 1, ""},
		{"its age", same, nil, true, time.Minute, "aged"},
		{"its age on a bridge that is away", nil, nil, false, time.Minute, "aged"},
		{"a bridge that is away", nil, nil, false, 0, ""},
		{"gone", nil, nil, true, 0, "gone"},
		{"another port", vm("a", a, func(w *policy.Workload) { w.Port = "tap9" }), nil, true, 0, "gone"},
		{"the port made anew", vm("a", a, func(w *policy.Workload) { w.OFPort = 2 }), nil, true, 0, "gone"},
		{"the port without a number yet", vm("a", a, func(w *policy.Workload) { w.OFPort = 0 }), nil, true, 0, ""},
		{"another VLAN", vm("a", a, func(w *policy.Workload) { w.VLAN = 9 }), nil, true, 0, "gone"},
		{"another MAC", vm("a", learn.MAC{2, 7}), nil, true, 0, "gone"},
		{"another MAC beside", vm("a", learn.MAC{2, 7}, func(w *policy.Workload) { w.MACs = []string{a.String()} }), nil, true, 0, ""},
		{"declared by itself", vm("a", a, declares("10.0.0.5")), nil, true, 0, "gone"},
		{"declared by another", same, vm("b", learn.MAC{2, 2}, declares("10.0.0.5")), true, 0, "gone: endpoint b declares"},
		{"the MAC declared by another", same, vm("b", a), true, 0, "gone"},
		{"held to others", vm("a", a, func(w *policy.Workload) { w.Guard = &policy.Guard{} }), nil, true, 0, "gone"},
	} {
		tab := learn.NewTable(learn.Limits{Networks: networks, PerEndpoint: 4, PerHost: 4, Age: time.Minute})
		if got := tab.Note(learn.NewWorld([]*policy.Workload{same}, nil), "a", "br0", 0, claim(a, "10.0.0.5"),
			began); got.Reason != learn.Learned {
			t.Fatalf("%s: %s", c.name, got.Reason)
		}
		var ws []*policy.Workload
		for _, w := range []*policy.Workload{c.now, c.also} {
			if w != nil {
				ws = append(ws, w)
			}
		}
		got := ""
		for _, f := range tab.Tend(learn.NewWorld(ws, nil), func(string) bool { return c.looks }, began.Add(c.after)) {
			if got = "gone"; f.Aged {
				got = "aged"
			}
			if f.By != "" {
				got += ": " + f.By
			}
		}
		if got != c.want || (len(tab.Entries()) == 0) != (c.want != "") || tab.Next().IsZero() != (c.want != "") {
			t.Errorf("%s: %q, want %q; %d left", c.name, got, c.want, len(tab.Entries()))
		}
	}
}

// A claim that is heard again keeps an address, and a lease is good for its time.
func TestAge(t *testing.T) {
	a := learn.MAC{2, 1}
	w := learn.NewWorld([]*policy.Workload{vm("a", a)}, nil)
	tab := learn.NewTable(learn.Limits{Networks: networks, PerEndpoint: 4, PerHost: 4, Age: time.Minute})
	lease := func(d time.Duration) learn.Claim {
		return learn.Claim{MAC: a, Address: addr("10.0.0.9"), Source: learn.DHCP, Lease: d}
	}
	note := func(c learn.Claim, after time.Duration) { tab.Note(w, "", "br0", 0, c, began.Add(after)) }
	until := func(want time.Duration) {
		t.Helper()
		if got := tab.Next().Sub(began); got != want {
			t.Errorf("it is good for %v, want %v", got, want)
		}
	}
	note(lease(10*time.Minute), 0)
	until(10 * time.Minute)
	note(claim(a, "10.0.0.9"), 5*time.Minute)
	until(10 * time.Minute)
	note(claim(a, "10.0.0.9"), 9*time.Minute+30*time.Second)
	until(10*time.Minute + 30*time.Second)
	note(lease(1000*time.Hour), 10*time.Minute)
	until(10*time.Minute + learn.MaxLease)
	if n := len(tab.Tend(w, everywhere, began.Add(11*time.Minute+learn.MaxLease))); n != 1 {
		t.Errorf("%d are forgotten", n)
	}
}

// What was written down is good again, no older than it was, but for leases; nothing is after a day.
func TestRestore(t *testing.T) {
	a := learn.MAC{2, 1}
	w := learn.NewWorld([]*policy.Workload{vm("a", a)}, nil)
	limits := learn.Limits{Networks: networks, PerEndpoint: 2, PerHost: 4, Age: time.Minute}
	tab := learn.NewTable(limits)
	tab.Note(w, "a", "br0", 0, claim(a, "10.0.0.5"), began)
	tab.Note(w, "", "br0", 0, learn.Claim{MAC: a, Address: addr("10.0.0.9"), Source: learn.DHCP, Lease: time.Hour}, began)
	entries := tab.Entries()
	written := began.Add(30 * time.Second)
	for away, want := range map[time.Duration]string{0: "1m0s 1h0m0s", 10 * time.Minute: "11m0s 1h0m0s", 25 * time.Hour: ""} {
		next := learn.NewTable(limits)
		next.Restore(append(slices.Clone(entries), entries...), written, written.Add(away))
		got := ""
		for _, e := range next.Entries() {
			got += " " + e.Until.Sub(began).String()
		}
		if got != "" {
			got = got[1:]
		}
		if got != want {
			t.Errorf("away for %v: good for %q, want %q", away, got, want)
		}
	}
	elsewhere := learn.NewTable(learn.Limits{Networks: networks[1:], PerEndpoint: 4, PerHost: 4, Age: time.Minute})
	if elsewhere.Restore(entries, written, written); len(elsewhere.Entries()) != 0 {
		t.Errorf("addresses outside of the networks are restored: %v", elsewhere.Entries())
	}
	few := learn.NewTable(learn.Limits{Networks: networks, PerEndpoint: 1, PerHost: 4, Age: time.Minute})
	if few.Restore(entries, written, written); len(few.Entries()) != 1 {
		t.Errorf("%d addresses of an endpoint are restored that may have one", len(few.Entries()))
	}
}

// Whatever is claimed, declared, plugged and taken away: no two endpoints of a network ever have one address, none has one that somebody
// declares, or one under a MAC address that is not its own, or more than its share.
func TestNoTwoHaveOneAddress(t *testing.T) {
	seen := map[learn.Reason]int{}
	one := func(t *rapid.T) {
		limits := learn.Limits{Networks: networks, PerEndpoint: 2, PerHost: 4, Age: time.Minute}
		tab, now := learn.NewTable(limits), began
		macs := rapid.Custom(func(t *rapid.T) learn.MAC { return learn.MAC{2, byte(rapid.IntRange(1, 4).Draw(t, "mac"))} })
		addresses := rapid.Custom(func(t *rapid.T) string { return fmt.Sprintf("10.0.0.%d", rapid.IntRange(1, 6).Draw(t, "address")) })
		vlans := rapid.SampledFrom([]int{0, 10, 20})
		var ws []*policy.Workload
		own := map[*policy.Workload]learn.MAC{}
		shuffle := func() {
			ws = nil
			for i := range rapid.IntRange(1, 5).Draw(t, "endpoints") {
				mac := macs.Draw(t, "own")
				x := vm(fmt.Sprint("vm", i), mac)
				own[x] = mac
				x.VLAN = vlans.Draw(t, "vlan")
				if rapid.IntRange(0, 3).Draw(t, "declares") == 0 {
					declares(addresses.Draw(t, "declared"))(x)
				}
				ws = append(ws, x)
			}
		}
		shuffle()
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if rapid.IntRange(0, 14).Draw(t, "changes") == 0 {
				shuffle()
			}
			now = now.Add(time.Duration(rapid.IntRange(0, 10).Draw(t, "passes")) * time.Second)
			w := learn.NewWorld(ws, []netip.Addr{addr("10.0.0.6")})
			tab.Tend(w, everywhere, now)
			sender, vlan, c := "", vlans.Draw(t, "in"), claim(macs.Draw(t, "from"), addresses.Draw(t, "claims"))
			if rapid.Bool().Draw(t, "by itself") {
				x := rapid.SampledFrom(ws).Draw(t, "sender")
				if sender = x.Key; rapid.Bool().Draw(t, "honestly") {
					vlan, c.MAC = x.VLAN, own[x]
				}
			}
			out := tab.Note(w, sender, "br0", vlan, c, now)
			seen[out.Reason]++
			holders, count := map[string]string{}, map[string]int{}
			for _, e := range tab.Entries() {
				at := fmt.Sprint(e.Bridge, e.VLAN, e.Address)
				if other, taken := holders[at]; taken {
					t.Fatalf("%s and %s both have %v", other, e.Key, e.Address)
				}
				holders[at] = e.Key
				i := slices.IndexFunc(ws, func(x *policy.Workload) bool { return x.Key == e.Key })
				if count[e.Key]++; count[e.Key] > limits.PerEndpoint || len(holders) > limits.PerHost || i < 0 || ws[i].MAC != e.MAC ||
					!now.Before(e.Until) {
					t.Fatalf("%+v", e)
				}
				for _, x := range ws {
					if slices.Contains(x.Addresses, e.Address) || x.Key != e.Key && x.MAC == e.MAC && (x.VLAN == 0 || x.VLAN == e.VLAN) {
						t.Fatalf("%+v is %s's", e, x.Key)
					}
				}
			}
		}
	}
	rare := func() (reasons []learn.Reason) {
		for _, r := range []learn.Reason{learn.Learned, learn.Seen, learn.Taken, learn.Full, learn.Stranger, learn.Declared} {
			if seen[r] < 10 {
				reasons = append(reasons, r)
			}
		}
		return reasons
	}
	rapid.Check(t, one)
	for tries := 0; tries < 50 && !t.Failed() && len(rare()) > 0; tries++ { // with few draws it takes some luck
		rapid.Check(t, one)
	}
	if reasons := rare(); len(reasons) > 0 {
		t.Errorf("hardly any claims were %v: %v", reasons, seen)
	}
}
