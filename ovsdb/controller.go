package ovsdb

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

// ControllerResult is the state of one ControllerSpec. CodeOK says that the row is there, not that the bridge listens: ovs-vswitchd
// reports a port that another process has only in its log, and tries again with the next change of any row.
type ControllerResult struct {
	Bridge, Target string
	Code           Code
	Message        string // one sentence; "" for CodeOK
	UUID           string // of the Controller row; "" when there is none
}

// setControllers makes the wanted Controller rows and removes marked ones that nobody wants. A row is never changed: another target
// is another row.
func (p *planner) setControllers(specs []vswitch.ControllerSpec) {
	wanted := map[portKey]bool{}
	p.controllers = make([]ControllerResult, len(specs))
	for i, s := range specs {
		p.controllers[i] = ControllerResult{Bridge: s.Bridge, Target: s.Target()}
		wanted[portKey{s.Bridge, s.Target()}] = true
	}

	type listener struct {
		at    netip.AddrPort
		where string
	}
	var staying, going []listener
	own := map[portKey]bool{} // the marked rows that stay
	for _, name := range slices.Sorted(maps.Keys(p.topo.Bridges)) {
		for _, row := range p.topo.Bridges[name].Controllers {
			key := portKey{name, row.Target}
			at, listens := row.Listens()
			l := listener{at, fmt.Sprintf("bridge %s at %s", name, row.Target)}
			switch {
			case ours(row.ExternalIDs) && (!wanted[key] || own[key]):
				e := p.edit(name)
				e.delControllers = append(e.delControllers, row.UUID)
				p.removed = append(p.removed, "controller "+name+"/"+row.Target)
				if listens {
					going = append(going, l)
				}
				continue
			case ours(row.ExternalIDs):
				own[key] = true
			}
			if listens {
				staying = append(staying, l)
			}
		}
	}

	for i, s := range specs {
		r := &p.controllers[i]
		at, ok := vswitch.Controller{Target: r.Target}.Listens()
		collides := func(l listener) bool { return vswitch.Collide(l.at, at) }
		fail := func(code Code, format string, args ...any) {
			r.Code, r.Message = code, fmt.Sprintf(format, args...)
		}
		switch {
		case !ok:
			fail(CodeInvalid, "a controller needs a port")
		case s.Addr.Zone() != "":
			fail(CodeInvalid, "address %s has a zone", s.Addr)
		case p.bridge(s.Bridge) == nil:
			fail(CodeBridgeMissing, "%s", p.noBridge(s.Bridge))
		case own[portKey{s.Bridge, r.Target}]:
			// It is there.
		case slices.ContainsFunc(staying, collides):
			fail(CodeTargetTaken, "%s listens there", staying[slices.IndexFunc(staying, collides)].where)
		case slices.ContainsFunc(going, collides):
			// ovs-vswitchd opens new sockets before it closes the old ones, and does not try again by itself.
			p.pending = true
			fail(CodePending, "%s stops to listen first", going[slices.IndexFunc(going, collides)].where)
		default:
			ref := p.name()
			p.rowOps = append(p.rowOps, insertOp(tableController, ref, ovsdb.Row{
				"target":       r.Target,
				"type":         set([]string{"service"}),
				"external_ids": stringMap(map[string]string{vswitch.MarkOwner: vswitch.OwnerValue}),
			}))
			e := p.edit(s.Bridge)
			e.addControllers = append(e.addControllers, ref)
			staying = append(staying, listener{at, "bridge " + s.Bridge})
		}
	}
}

// readControllers completes the results with what a snapshot holds.
func (p *plan) readControllers(t *vswitch.Topology) {
	for i := range p.controllers {
		r := &p.controllers[i]
		if bridge := t.Bridges[r.Bridge]; bridge != nil {
			for _, row := range bridge.Controllers {
				if ours(row.ExternalIDs) && row.Target == r.Target {
					r.UUID = row.UUID
					break
				}
			}
		}
	}
}
