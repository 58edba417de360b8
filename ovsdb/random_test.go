package ovsdb_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/ovsdb"
	"github.com/tapwall/tapwall/ovsdb/ovsdbtest"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

// randomHost makes wishes and disturbances out of few names, so that they often meet.
type randomHost struct {
	*rand.Rand
	t *testing.T
	o *ovsdbtest.OVS
	c *ovsdb.Client

	disturbances int
}

func pick[T any](r *randomHost, from ...T) T { return from[r.IntN(len(from))] }

func (r *randomHost) name() string   { return pick(r, "n1", "n2", "n3", "n4", "n5", "n6") }
func (r *randomHost) bridge() string { return pick(r, "br0", "br0", r.name()) }

func (r *randomHost) desired() ovsdb.Desired {
	var d ovsdb.Desired
	tag := 7
	for range r.IntN(3) {
		d.Bridges = append(d.Bridges, vswitch.BridgeSpec{
			Owner: pick(r, "x", "y"), Name: r.name(), DatapathType: pick(r, "", "netdev"), Protocols: pick(r, nil, []string{"OpenFlow13"}),
			OtherConfig: pick(r, nil, map[string]string{"disable-in-band": "true"}),
		})
	}
	for range r.IntN(5) {
		d.Ports = append(d.Ports, vswitch.PortSpec{
			Owner: pick(r, "x", "y"), Bridge: r.bridge(), Name: r.name(), Type: pick(r, "patch", "internal", ""),
			Options: pick(r, nil, map[string]string{"peer": r.name()}), Tag: pick(r, nil, &tag),
		})
	}
	for i := range r.IntN(4) {
		m := vswitch.MirrorSpec{Owner: fmt.Sprint("m", i), Bridge: r.bridge(), Name: "m", SelectAll: true, Hold: r.IntN(3) == 0}
		m.Output = vswitch.OutputSpec{Port: r.name()}
		if r.IntN(2) == 0 {
			m.Output.Create, m.Output.Type = true, pick(r, "internal", "patch")
		}
		d.Mirrors = append(d.Mirrors, m)
	}
	for range r.IntN(3) {
		d.TimeoutPolicies = append(d.TimeoutPolicies, vswitch.TimeoutPolicySpec{
			Owner: pick(r, "x", "y"), DatapathType: pick(r, "", "netdev"), Zone: r.IntN(2), Timeouts: map[string]int{"udp_first": 1 + r.IntN(2)},
		})
	}
	return d
}

// disturb does what some other program might do: with names that are free, with its own rows and with ours.
func (r *randomHost) disturb() {
	s, name := r.c.Topology(), r.name()
	var port *vswitch.Port
	var on *vswitch.Bridge
	free := []string{name + "x"}
	for _, n := range []string{"n1", "n2", "n3", "n4", "n5", "n6"} {
		if s.Bridges[n] == nil && !named(s, n) {
			free = append(free, n)
		}
	}
	for _, b := range s.Bridges {
		if p := b.Ports[name]; p != nil {
			port, on = p, b
		}
	}
	bridges := slices.Sorted(maps.Keys(s.Bridges))
	var args string
	switch {
	case s.Bridges[name] != nil:
		args = pick(r, "del-br "+name, "set Bridge "+name+" other_config:x=y", "set Bridge "+name+" fail_mode=standalone",
			"clear Bridge "+name+" external_ids", "clear Bridge "+name+" mirrors", "clear Bridge "+name+" ports")
	case port == nil && named(s, name):
		args = "clear Bridge br0 mirrors"
	case port == nil && r.IntN(3) == 0:
		args = "add-br " + name
	case port == nil:
		args = "add-port " + pick(r, bridges...) + " " + name
	default:
		args = pick(r, "del-port "+name, "set Port "+name+" tag=9", "set Interface "+name+" options:peer=z",
			"clear Interface "+name+" external_ids",
			"clear Port "+name+" external_ids", "set Interface "+name+" type="+pick(r, "internal", "patch"),
			"remove Bridge "+on.Name+" ports "+port.UUID, "clear Bridge br0 mirrors",
			"--id=@i create Interface name="+pick(r, free...)+" -- add Port "+name+" interfaces @i")
		if len(port.Interfaces) > 1 {
			args = "del-port " + name
		}
	}
	switch r.IntN(8) {
	case 0:
		args = "clear Open_vSwitch . datapaths"
	case 1:
		if d := s.Datapaths["netdev"]; d.UUID != "" && d.Zones[0].UUID == "" {
			args = "add-zone-tp netdev zone=0 udp_first=9"
		}
	case 2:
		if d := s.Datapaths["system"]; d.Zones[1].UUID != "" {
			args = "del-zone-tp system zone=1"
		}
	}
	r.disturbances++ // ovs-vsctl counts next_cfg up only for a change
	args += fmt.Sprint(" -- set Open_vSwitch . external_ids:disturbances=", r.disturbances)
	r.o.Vsctl(strings.Fields(args)...)
	eventually(r.t, r.c, args, func(now *vswitch.Topology) bool { return now.NextCfg > s.NextCfg })
}

// named says whether a port or interface has the name.
func named(s *vswitch.Topology, name string) bool {
	for _, b := range s.Bridges {
		for _, p := range b.Ports {
			if p.Name == name || slices.ContainsFunc(p.Interfaces, func(i *vswitch.Interface) bool { return i.Name == name }) {
				return true
			}
		}
	}
	return false
}

func marked(ids map[string]string) bool { return ids[vswitch.MarkOwner] == vswitch.OwnerValue }

// foreign are the rows without our marks, without what ovs-vswitchd writes and what refers to other rows.
func foreign(s *vswitch.Topology) map[string]string {
	out := map[string]string{}
	for name, b := range s.Bridges {
		if !marked(b.ExternalIDs) {
			out[b.UUID] = fmt.Sprint("bridge ", name, b.DatapathType, b.FailMode, b.Protocols, b.ExternalIDs, b.OtherConfig)
		}
		for _, m := range b.Mirrors {
			if !marked(m.ExternalIDs) {
				out[m.UUID] = fmt.Sprint("mirror ", name, m.Name, m.SelectAll)
			}
		}
		for _, p := range b.Ports {
			local := p.Name == name && marked(b.ExternalIDs) // part of our bridge
			if !marked(p.ExternalIDs) && !local {
				out[p.UUID] = fmt.Sprint("port ", name, p.Name, p.Tag != nil, p.ExternalIDs)
			}
			for _, i := range p.Interfaces {
				if !marked(i.ExternalIDs) && !(marked(p.ExternalIDs) && i.Name == p.Name) && !local {
					out[i.UUID] = fmt.Sprint("interface ", i.Name, i.Type, i.Options, i.ExternalIDs)
				}
			}
		}
	}
	for name, d := range s.Datapaths {
		if !marked(d.ExternalIDs) {
			out[d.UUID] = "datapath " + name
		}
		for number, z := range d.Zones {
			if !marked(z.ExternalIDs) {
				out[z.UUID] = fmt.Sprint("zone ", name, number, z.Policy.UUID, z.Policy.Timeouts)
			}
		}
	}
	return out
}

// check holds a result against the rows.
func (r *randomHost) check(d ovsdb.Desired, have ovsdb.Result) {
	s := r.c.Topology()
	wanted := map[string]bool{}
	for i, spec := range d.Bridges {
		wanted["bridge "+spec.Name] = true
		b, res := s.Bridges[spec.Name], have.Bridges[i]
		if res.Code == ovsdb.CodeOK && (b == nil || !res.Stands() || b.UUID != res.UUID || b.FailMode != "secure" ||
			b.DatapathType != spec.DatapathType || !slices.Equal(b.Protocols, spec.Protocols) || !maps.Equal(b.OtherConfig, spec.OtherConfig) ||
			b.ExternalIDs[vswitch.MarkResource] != spec.Owner) {
			r.t.Errorf("bridge %+v\nresult %+v\nrow %+v", spec, res, b)
		}
	}
	for i, spec := range d.Ports {
		wanted["port "+spec.Name] = true
		if have.Ports[i].Code != ovsdb.CodeOK {
			continue
		}
		p := s.Bridges[spec.Bridge].Ports[spec.Name]
		if p == nil || p.UUID != have.Ports[i].UUID || (p.Tag == nil) != (spec.Tag == nil) || len(p.Interfaces) != 1 ||
			p.Interfaces[0].Type != spec.Type || !maps.Equal(p.Interfaces[0].Options, spec.Options) ||
			p.ExternalIDs[vswitch.MarkResource] != spec.Owner || !marked(p.Interfaces[0].ExternalIDs) {
			r.t.Errorf("port %+v\nresult %+v\nrow %+v", spec, have.Ports[i], p)
		}
	}
	for i, spec := range d.Mirrors {
		wanted["port "+spec.Output.Port] = true
		if m := have.Mirrors[i]; m.Code == ovsdb.CodeOK && (m.UUID == "" || m.OutputUUID == "") {
			r.t.Errorf("mirror %+v\nresult %+v", spec, m)
		}
	}
	for i, spec := range d.TimeoutPolicies {
		z := s.Datapaths[vswitch.DatapathName(spec.DatapathType)].Zones[spec.Zone]
		wanted[fmt.Sprint("zone ", vswitch.DatapathName(spec.DatapathType), spec.Zone)] = true
		p := have.TimeoutPolicies[i]
		if p.Code == ovsdb.CodeOK && (z.Policy == nil || p.UUID != z.Policy.UUID || !maps.Equal(z.Policy.Timeouts, spec.Timeouts)) {
			r.t.Errorf("timeout policy %+v\nresult %+v\nrow %+v", spec, p, z.Policy)
		}
	}
	for name, b := range s.Bridges {
		kept := slices.ContainsFunc(have.Kept, func(k string) bool { return strings.HasPrefix(k, "bridge "+name+":") })
		if marked(b.ExternalIDs) && !wanted["bridge "+name] && !kept {
			r.t.Errorf("bridge %s is left", name)
		}
		for _, p := range b.Ports {
			pure := len(p.Interfaces) == 1
			if marked(p.ExternalIDs) && pure && p.Name != name && !wanted["port "+p.Name] {
				r.t.Errorf("port %s of %s is left", p.Name, name)
			}
		}
	}
	for name, dp := range s.Datapaths {
		for number, z := range dp.Zones {
			if marked(z.ExternalIDs) && !wanted[fmt.Sprint("zone ", name, number)] {
				r.t.Errorf("zone %d of %s is left", number, name)
			}
		}
	}
}

// Whatever is wanted and whatever others do: Apply comes to rest, says the truth, and keeps its hands off what is not ours.
func TestRandomWishes(t *testing.T) {
	for _, seed := range []uint64{1, 2, 3} {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			o := newSwitch(t)
			r := &randomHost{Rand: rand.New(rand.NewPCG(seed, 0)), t: t, o: o, c: connected(t, o)}
			for step := range 30 {
				var d ovsdb.Desired
				if step%10 != 9 {
					d = r.desired()
				}
				theirs := foreign(r.c.Topology())
				have, calls := ovsdb.Result{Pending: true}, 0
				for ; have.Pending && calls < 5; calls++ {
					var err error
					if have, err = r.c.Apply(t.Context(), d); err != nil {
						t.Fatalf("step %d, %+v: %v", step, d, err)
					}
				}
				if have.Pending {
					t.Errorf("still pending after %d calls: %q", calls, allCodes(have))
				}
				r.check(d, have)
				if again, err := r.c.Apply(t.Context(), d); err != nil || again.Transactions != 0 {
					t.Errorf("does not come to rest: %+v, %v", again, err)
				}
				if diff := cmp.Diff(theirs, foreign(r.c.Topology())); diff != "" {
					t.Errorf("foreign rows changed (-before +after):\n%s", diff)
				}
				if t.Failed() {
					t.Fatalf("step %d wanted %+v\ncodes %q", step, d, allCodes(have))
				}
				for range 1 + r.IntN(3) {
					r.disturb()
				}
			}
		})
	}
}
