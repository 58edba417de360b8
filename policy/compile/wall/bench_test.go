package wall_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// big is a host with 200 endpoints and 1,000 policies of 10 rules: each policy applies to one of 100 apps (two endpoints), allows from
// a range, from another app and denies a port.
type big struct {
	fw        *wall.Firewall
	workloads []*policy.Workload
}

func bigPolicy(i, version int) *policy.Policy {
	p := &policy.Policy{Meta: policy.Meta{Name: fmt.Sprintf("p%04d", i)},
		Spec: policy.PolicySpec{AppliesTo: []policy.Selector{app(fmt.Sprint(i % 100))}}}
	for j := range 10 {
		r := policy.Rule{Name: fmt.Sprint("r", j), Action: policy.Allow, Services: tcp(fmt.Sprint(1000+i), "8000-8099")}
		switch j % 3 {
		case 0:
			r.From = cidr(fmt.Sprintf("10.%d.%d.0/24", i%250, j))
		case 1:
			r.From = []policy.Selector{app(fmt.Sprint((i + j) % 100))}
		default:
			r.Action, r.From = policy.Deny, cidr(fmt.Sprintf("10.%d.%d.7/32", i%250, j))
		}
		p.Spec.Ingress = append(p.Spec.Ingress, r)
	}
	p.Spec.Ingress[0].Services = tcp(fmt.Sprint(20000 + version))
	return p
}

func (b *big) vm(i int) *policy.Workload {
	return &policy.Workload{
		Key: fmt.Sprint("vm", i), Bridge: "br0", Port: fmt.Sprint("tap", i), OFPort: uint32(i + 1), MAC: fmt.Sprintf("52:54:00:00:%02x:%02x",
			i/256, i%256),
		Labels:    map[string]string{"app": fmt.Sprint(i % 100), "port": fmt.Sprint("tap", i)},
		Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i / 256), byte(i)})},
	}
}

func newBig(tb testing.TB) *big {
	fw, err := wall.NewFirewall(wall.Options{Bridge: "br0"})
	if err != nil {
		tb.Fatal(err)
	}
	b := &big{fw: fw}
	for i := range 200 {
		b.workloads = append(b.workloads, b.vm(i))
	}
	fw.SetWorkloads(b.workloads, []wall.Port{{Name: "eth0", OFPort: 9999, Tagged: true}})
	for i := range 1000 {
		fw.SetPolicy(bigPolicy(i, 0))
	}
	return b
}

func BenchmarkFull10kRules(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		x := newBig(b)
		c := x.fw.Compile()
		n := 0
		for _, f := range c.Owners {
			n += len(f)
		}
		b.ReportMetric(float64(n), "flows")
	}
}

// BenchmarkRestart10kRules compiles everything with the assignments of an earlier run.
func BenchmarkRestart10kRules(b *testing.B) {
	x := newBig(b)
	x.fw.Compile()
	a := x.fw.Assignments()
	b.ReportAllocs()
	for b.Loop() {
		fw, err := wall.NewFirewall(wall.Options{Bridge: "br0", Assignments: a})
		if err != nil {
			b.Fatal(err)
		}
		fw.SetWorkloads(x.workloads, []wall.Port{{Name: "eth0", OFPort: 9999, Tagged: true}})
		for i := range 1000 {
			fw.SetPolicy(bigPolicy(i, 0))
		}
		fw.Compile()
	}
}

func BenchmarkOneChangeOf10kRules(b *testing.B) {
	for _, c := range []struct {
		name   string
		change func(x *big, i int)
	}{
		{"rule", func(x *big, i int) { x.fw.SetPolicy(bigPolicy(500, i+1)) }},
		{"policy", func(x *big, i int) {
			if i%2 == 0 {
				x.fw.DeletePolicy("p0500")
			} else {
				x.fw.SetPolicy(bigPolicy(500, i))
			}
		}},
		{"endpoint", func(x *big, i int) {
			x.workloads[7] = x.vm(7)
			x.workloads[7].Labels["app"] = fmt.Sprint(i % 100)
			x.fw.SetWorkloads(x.workloads, []wall.Port{{Name: "eth0", OFPort: 9999, Tagged: true}})
		}},
		{"nothing", func(x *big, i int) {
			x.fw.SetWorkloads(x.workloads, []wall.Port{{Name: "eth0", OFPort: 9999, Tagged: true}})
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			x := newBig(b)
			x.fw.Compile()
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				c.change(x, i)
				x.fw.Compile()
				i++
			}
		})
	}
}
