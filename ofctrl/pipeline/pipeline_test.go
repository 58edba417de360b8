package pipeline_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
)

var everything = pipeline.Options{Pickup: true, GuardGroupFrames: true, Passes: true, AuditPolicies: true, AuditEndpoints: true, DNS: true}

func TestTablesDoNotClash(t *testing.T) {
	ids, names := map[uint8]string{}, map[string]bool{}
	for _, table := range pipeline.Tables() {
		if other, ok := ids[table.ID]; ok {
			t.Errorf("table %d is %s and %s", table.ID, other, table.Name)
		}
		if names[table.Name] {
			t.Errorf("two tables are called %s", table.Name)
		}
		ids[table.ID], names[table.Name] = table.Name, true
		if table.ID != pipeline.TableEntry && (table.ID < pipeline.TableFirst || table.ID > pipeline.TableLast) {
			t.Errorf("table %d (%s) is not tapwall's", table.ID, table.Name)
		}
		if table.Matches == "" || table.Does == "" {
			t.Errorf("table %s is not described", table.Name)
		}
	}
	for _, f := range pipeline.Fixed(everything) {
		if ids[f.Table] == "" {
			t.Errorf("a flow in the undeclared table %d: %s", f.Table, f.String())
		}
	}
}

func TestFieldsDoNotOverlap(t *testing.T) {
	type bit struct {
		field flow.FieldID
		bit   uint16
	}
	taken, names := map[bit]string{}, map[string]bool{}
	for _, f := range pipeline.Fields() {
		if key := f.Field.String() + " " + f.Name; names[key] {
			t.Errorf("two fields are called %s", key)
		} else {
			names[key] = true
		}
		if f.Bits == 0 || int(f.Ofs+f.Bits) > f.Field.Bits() {
			t.Errorf("%s: bits %d..%d of %s, which has %d", f.Name, f.Ofs, f.Ofs+f.Bits-1, f.Field, f.Field.Bits())
		}
		if f.Field < flow.Reg8 && f.Field != flow.Metadata || f.Field > flow.Reg15 && f.Field != flow.CtMark &&
			f.Field != flow.CtLabel && f.Field != flow.Metadata {
			t.Errorf("%s is in %s, which belongs to others", f.Name, f.Field)
		}
		for b := f.Ofs; b < f.Ofs+f.Bits; b++ {
			if other, ok := taken[bit{f.Field, b}]; ok {
				t.Errorf("bit %d of %s is %q and %q", b, f.Field, other, f.Name)
			}
			taken[bit{f.Field, b}] = f.Name
		}
		if f.Doc == "" {
			t.Errorf("field %s is not described", f.Name)
		}
	}
	// The zone is read whole and written in halves.
	zone := pipeline.CtZone
	if v, b := pipeline.ZoneVLAN, pipeline.ZoneBridge; v.Field != zone.Field || b.Field != zone.Field || v.Ofs != zone.Ofs || b.Ofs != v.Ofs+
		v.Bits ||
		v.Bits+b.Bits != zone.Bits {
		t.Error("the halves of the zone are not the zone")
	}
}

// written collects the sub-fields that actions write, and read.
func written(actions []flow.Action, visit func(flow.SubField)) {
	for _, a := range actions {
		switch a := a.(type) {
		case flow.Load:
			visit(a.Dst)
		case flow.Move:
			visit(a.Dst)
		case flow.Pop:
			visit(a.Dst)
		case flow.CT:
			written(a.Exec, visit)
		}
	}
}

// TestFlowsUseDeclaredFields: no fixed flow writes or matches bits of registers, ct_mark or ct_label that are not declared.
func TestFlowsUseDeclaredFields(t *testing.T) {
	declared := map[flow.FieldID]flow.U128{}
	for _, f := range pipeline.Fields() {
		declared[f.Field] = declared[f.Field].Or(flow.Ones(int(f.Bits)).Shl(int(f.Ofs)))
	}
	forget := flow.Whole(flow.Reg13)
	// The pickup window exchanges addresses and ports, and back.
	for _, header := range []flow.FieldID{flow.IPSrc, flow.IPDst, flow.IPv6Src, flow.IPv6Dst, flow.TCPSrc, flow.TCPDst} {
		declared[header] = flow.Ones(header.Bits())
	}
	for _, f := range pipeline.Fixed(everything) {
		written(f.Actions, func(s flow.SubField) {
			if bits := flow.Ones(int(s.Bits)).Shl(int(s.Ofs)); s != forget && !bits.And(declared[s.Field].Not()).IsZero() {
				t.Errorf("undeclared bits of %s are written: %s", s.Field, f.String())
			}
		})
		for _, term := range f.Match {
			if own, ok := declared[term.Field]; ok && !term.Mask.And(own.Not()).IsZero() {
				t.Errorf("undeclared bits of %s are matched: %s", term.Field, f.String())
			}
		}
		if _, _, ok := pipeline.ParseCookie(f.Cookie); !ok {
			t.Errorf("a foreign cookie: %s", f.String())
		}
	}
}

// TestDropsAreCounted: whatever has no actions says why it drops, and every reason is used.
func TestDropsAreCounted(t *testing.T) {
	used := map[uint32]bool{}
	for _, pickup := range []bool{false, true} {
		for _, f := range pipeline.Fixed(pipeline.Options{Pickup: pickup, GuardGroupFrames: true, Guards: true}) {
			kind, id, _ := pipeline.ParseCookie(f.Cookie)
			passes := slices.ContainsFunc(f.Actions, func(a flow.Action) bool {
				c, copies := a.(flow.Controller)
				return !copies || c.UserData == pipeline.CopyProbe.UserData() // a probe is not meant to get anywhere
			})
			if !passes != (kind == pipeline.CookieDrop) {
				t.Errorf("kind %s: %s", kind, f.String())
			}
			if kind == pipeline.CookieDrop {
				used[id] = true
			}
		}
	}
	for _, r := range pipeline.DropReasons() {
		if r != pipeline.DropTaggedAccess && r != pipeline.DropUnknownMAC && !used[uint32(r)] {
			t.Errorf("nothing drops for reason %s", r)
		}
		if strings.HasPrefix(r.String(), "reason") {
			t.Errorf("reason %d has no name", r)
		}
	}
}

func TestZones(t *testing.T) {
	seen := map[uint16]bool{}
	for k := range pipeline.MaxBridges {
		for vlan := range 4096 {
			z, err := pipeline.Zone(k, vlan)
			if err != nil {
				t.Fatal(err)
			}
			if seen[z] || z < 4200 || z >= 65510 {
				t.Fatalf("zone %d of bridge %d, VLAN %d is taken", z, k, vlan)
			}
			seen[z] = true
		}
	}
	if z, _ := pipeline.Zone(0, 10); z != 57354 {
		t.Errorf("zone of VLAN 10 is %d", z)
	}
	for _, bad := range [][2]int{{-1, 0}, {pipeline.MaxBridges, 0}, {0, -1}, {0, 4096}} {
		if _, err := pipeline.Zone(bad[0], bad[1]); !errors.Is(err, pipeline.ErrBridgeIndex) {
			t.Errorf("bridge %d, VLAN %d: %v", bad[0], bad[1], err)
		}
	}
}

func TestCookiesAndUserData(t *testing.T) {
	if k, id, ok := pipeline.ParseCookie(pipeline.NewCookie(pipeline.CookieRule, 0xdeadbeef)); k != pipeline.CookieRule ||
		id != 0xdeadbeef || !ok {
		t.Errorf("cookie reads back as %v %#x %v", k, id, ok)
	}
	if _, _, ok := pipeline.ParseCookie(0x1234); ok {
		t.Error("a foreign cookie is taken for ours")
	}
	for _, r := range pipeline.CopyReasons() {
		if got, ok := pipeline.ParseUserData([]byte(r.UserData())); got != r || !ok {
			t.Errorf("%s reads back as %s, %v", r, got, ok)
		}
	}
	for _, bad := range []string{"", "\x7a", "\x7a\x00", "\x7a\xff", "\x01\x01", "\x7a\x01\x00"} {
		if _, ok := pipeline.ParseUserData([]byte(bad)); ok {
			t.Errorf("%x is taken for ours", bad)
		}
	}
	if pipeline.IsRule(0) || pipeline.IsRule(pipeline.IDNoEndpoint) || pipeline.IsRule(pipeline.IDDefaultDeny|5) || !pipeline.IsRule(5) {
		t.Error("rules and defaults are confused")
	}
}

func TestFieldMatches(t *testing.T) {
	m := pipeline.IngressVerdict.Is(pipeline.EgressVerdict.Is(nil, 1), 2)
	if diff := cmp.Diff("reg13=0x90/0xf0", m.String()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff("ct_label=0x500000000/0xffffffff00000000", pipeline.LabelEgress.Is(nil, 5).String()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff("reg11=0/0xc0000000", pipeline.EgressRule.IsMasked(nil, 0, uint64(pipeline.IDKindMask)).String()); diff != "" {
		t.Error(diff)
	}
}
