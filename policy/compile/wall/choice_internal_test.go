package wall

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/policy"
)

// TestContentHash holds that digests stay what earlier versions saved.
func TestContentHash(t *testing.T) {
	c := content{any: true}
	var all []byte
	for i := range 3000 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
		if i%3 == 0 {
			p = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(i >> 8), byte(i)}), 64)
		}
		c.prefixes = append(c.prefixes, p)
		all, _ = p.AppendBinary(all)
		if want := hexHash(hashOf("pa", string(all))); c.contentHash() != want {
			t.Fatalf("%d prefixes: %s, not %s", i+1, c.contentHash(), want)
		}
	}
}

// TestExchanged holds the exchange of some prefixes to sorting them all.
func TestExchanged(t *testing.T) {
	prefix := rapid.Custom(func(t *rapid.T) policy.Selector {
		return policy.Selector{CIDR: rapid.SampledFrom([]string{"10.0.0.0/8", "10.0.0.0/16", "10.1.0.0/16", "10.0.0.0/24", "2001:db8::/32",
			"192.0.2.0/24"}).Draw(t, "p")}
	})
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOfN(prefix, 0, 10)
		kept, out, in := list.Draw(t, "kept"), list.Draw(t, "out"), list.Draw(t, "in")
		before := orderedPrefixes(slices.Concat(kept, out))
		got, ok := exchanged(before, orderedPrefixes(out), orderedPrefixes(in))
		want := orderedPrefixes(slices.Concat(kept, in))
		if !ok || !slices.Equal(got, want) {
			t.Fatalf("%v %t, not %v", got, ok, want)
		}
		if !slices.Equal(before, orderedPrefixes(slices.Concat(kept, out))) {
			t.Fatal("the list itself has changed")
		}
	})
}
