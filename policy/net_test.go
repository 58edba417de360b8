package policy_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/policy"
)

func prefixes(ss ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range ss {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func texts[T interface{ String() string }](vs []T) []string {
	var out []string
	for _, v := range vs {
		out = append(out, v.String())
	}
	return out
}

func TestCIDRMinus(t *testing.T) {
	tests := []struct {
		name   string
		cidr   string
		except []netip.Prefix
		want   []string
	}{
		{"OK nothing taken away", "10.0.0.0/24", nil, []string{"10.0.0.0/24"}},
		{"OK other family", "10.0.0.0/24", prefixes("2001:db8::/32"), []string{"10.0.0.0/24"}},
		{"OK outside", "10.0.0.0/24", prefixes("10.0.1.0/24"), []string{"10.0.0.0/24"}},
		{"OK lower half", "10.0.0.0/24", prefixes("10.0.0.0/25"), []string{"10.0.0.128/25"}},
		{"OK one address", "10.0.0.0/29", prefixes("10.0.0.3/32"), []string{"10.0.0.0/31", "10.0.0.2/32", "10.0.0.4/30"}},
		{"OK overlapping exceptions", "10.0.0.0/29", prefixes("10.0.0.0/30", "10.0.0.2/32"), []string{"10.0.0.4/30"}},
		{"OK two halves take all", "10.0.0.0/24", prefixes("10.0.0.0/25", "10.0.0.128/25"), nil},
		{"OK wider exception takes all", "10.0.0.0/24", prefixes("10.0.0.0/8"), nil},
		{"OK single address stays", "10.0.0.1/32", prefixes("10.0.0.2/32"), []string{"10.0.0.1/32"}},
		{"OK v6", "2001:db8::/126", prefixes("2001:db8::1/128"), []string{"2001:db8::/128", "2001:db8::2/127"}},
		{"OK everything but one", "0.0.0.0/0", prefixes("128.0.0.0/1"), []string{"0.0.0.0/1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := texts(policy.CIDRMinus(netip.MustParsePrefix(tt.cidr), tt.except))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// In a space of 16 or 256 addresses every address can be asked.
func TestCIDRMinusIsExactAndMinimal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v6 := rapid.Bool().Draw(t, "v6")
		addr := func(host int) netip.Addr {
			if v6 {
				return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: byte(host)})
			}
			return netip.AddrFrom4([4]byte{10, 0, 0, byte(host)})
		}
		draw := func(name string) netip.Prefix {
			a := addr(rapid.IntRange(0, 255).Draw(t, name))
			return netip.PrefixFrom(a, a.BitLen()-rapid.IntRange(0, 8).Draw(t, name+" host bits")).Masked()
		}
		cidr := draw("cidr")
		var except []netip.Prefix
		for range rapid.IntRange(0, 5).Draw(t, "exceptions") {
			except = append(except, draw("except"))
		}
		got := policy.CIDRMinus(cidr, except)
		for host := range 256 {
			a := addr(host)
			want := cidr.Contains(a)
			for _, e := range except {
				want = want && !e.Contains(a)
			}
			n := 0
			for _, p := range got {
				if p.Contains(a) {
					n++
				}
			}
			if want && n != 1 || !want && n != 0 {
				t.Fatalf("%v minus %v = %v: %v is in %d of them, want in result: %v", cidr, except, got, a, n, want)
			}
		}
		for i := 1; i < len(got); i++ {
			a, b := got[i-1], got[i]
			if a.Addr().Compare(b.Addr()) >= 0 {
				t.Fatalf("%v is not in order", got)
			}
			if a.Bits() == b.Bits() && a.Bits() > 0 && netip.PrefixFrom(a.Addr(), a.Bits()-1).Masked() == netip.PrefixFrom(b.Addr(),
				b.Bits()-1).Masked() {
				t.Fatalf("%v and %v could be one", a, b)
			}
		}
	})
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
